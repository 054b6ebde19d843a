// A small workload, again and again, each time with another request that goes wrong.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <iostream>

#include "common/sync_point.h"
#include "faults/fault_run.h"
#include "faults/watchdog.h"
#include "fs/check.h"
#include "mutant.h"
#include "random_seed.h"
#include "rounds.h"

namespace ourfs::faults {
namespace {

constexpr IoClass kClasses[] = {IoClass::Data, IoClass::Journal, IoClass::Index, IoClass::FileTable,
                                IoClass::Superblock};

// What is done to the n-th request.
struct Harm {
  const char* name;
  FaultKind kind = FaultKind::Error;
  IoOp op = IoOp::Write;
  int errnum = EIO;
  uint64_t shift = 0;
};
void PrintTo(const Harm& harm, std::ostream* to) { *to << harm.name; }

class FaultTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    // Thousands of expected errors.
    spdlog::set_level(spdlog::level::off);
    watchdog = std::make_unique<Watchdog>(std::chrono::seconds(test::sanitized() ? 600 : 120));
    base = std::make_unique<FaultBase>(makeBase(false));
    clean = std::make_unique<FaultBase>(makeBase(true));
    if (base->broken.empty()) counts = countRequests(*base);
  }
  static void TearDownTestSuite() {
    base.reset();
    clean.reset();
    watchdog.reset();
    spdlog::set_level(spdlog::level::info);
  }
  void SetUp() override {
    ASSERT_EQ(base->broken + clean->broken, "");
    ASSERT_FALSE(counts.empty()) << "without a fault the workload fails";
  }

  // All n of `count`, or as many as there is time for, spread evenly and begun at random.
  static std::vector<uint64_t> chosen(uint64_t count) {
    const uint64_t most = everything() ? UINT64_MAX : test::rounds(4);
    std::vector<uint64_t> all;
    const uint64_t step = count <= most ? 1 : (count + most - 1) / most;
    for (uint64_t n = seed() % step; n < count; n += step) all.push_back(n);
    return all;
  }
  // The same for requests whose number is not known.
  static uint64_t step() { return everything() ? 1 : test::shortened() ? 8 : 2; }
  // OURFS_FAULT: the one to look at, by its name in a failure.
  static const char* only() { return std::getenv("OURFS_FAULT"); }
  static bool everything() { return test::fullRun() || only(); }
  static uint64_t seed() {
    static const uint64_t value = test::randomSeed("faults");
    return value;
  }
  // How often the same request gets this harm. A flip has a place.
  static uint64_t times(const Harm& harm) {
    return harm.kind == FaultKind::Flip && everything() ? 8 : 1;
  }
  // Most are in front, where the headers are.
  static uint64_t bitOf(uint64_t n, uint64_t time) {
    test::Random random(seed() + n * 8 + time);
    return random.below(uint64_t{4096} << random.below(12));
  }
  static FaultRule ruleOf(const Harm& harm, IoClass cls, uint64_t n, uint64_t time = 0) {
    FaultRule rule;
    rule.kind = harm.kind;
    rule.op = harm.op;
    rule.cls = cls;
    rule.skip = n;
    rule.errnum = harm.errnum;
    rule.shift = ByteCount(harm.shift);
    rule.bit = bitOf(n, time);
    rule.delay = std::chrono::milliseconds(20);
    return rule;
  }
  void once(const Fault& fault) {
    if (only() && fault.name() != only()) return;
    watchdog->begin(fault.name());
    for (const FaultBase* from : {base.get(), clean.get()}) {
      const FaultOutcome outcome = runWith(*from, fault);
      for (const std::string& line : outcome.broken)
        ADD_FAILURE() << (from == clean.get() ? "unmounted before: " : "replayed: ") << line;
      ++runs, hits += outcome.hit, told += outcome.told, stops += outcome.failStop;
      reported += outcome.reported;
    }
  }
  void tell(const std::string& what) const {
    std::cout << what << ": " << runs << " runs, " << hits << " met the fault, " << told
              << " were told, " << stops << " stopped the volume, " << reported
              << " were found by fsck, mount or reading" << std::endl;
  }

  static std::unique_ptr<Watchdog> watchdog;
  static std::unique_ptr<FaultBase> base, clean;
  static std::map<RequestKind, uint64_t> counts;
  uint64_t runs = 0, hits = 0, told = 0, stops = 0, reported = 0;
};
std::unique_ptr<Watchdog> FaultTest::watchdog;
std::unique_ptr<FaultBase> FaultTest::base, FaultTest::clean;
std::map<RequestKind, uint64_t> FaultTest::counts;

TEST_F(FaultTest, TheWorkloadBeginsWithReplayAndWithout) {
  EXPECT_GT(recordsToReplay(*base), 0u);
  EXPECT_EQ(recordsToReplay(*clean), 0u);
}

class FaultKindTest : public FaultTest, public testing::WithParamInterface<Harm> {};

TEST_P(FaultKindTest, OfEachRequestLeavesAConsistentVolume) {
  const Harm& harm = GetParam();
  for (IoClass cls : kClasses) {
    const uint64_t count = counts[{harm.op, cls}];
    runs = hits = told = stops = reported = 0;
    for (uint64_t n : chosen(count)) {
      const uint64_t before = hits;
      for (uint64_t time = 0; time < times(harm); ++time) once({ruleOf(harm, cls, n, time)});
      if (HasFailure()) return;
      // Not every run has the last ones: a compaction may come too late for the unmount.
      EXPECT_TRUE(hits > before || n * 2 >= count || only()) << "request " << n;
    }
    tell(std::string(harm.name) + " of " + std::to_string(count) + ", " + classNameOf(cls));
    EXPECT_TRUE(runs > 0 || count == 0 || only());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, FaultKindTest,
    testing::Values(Harm{"FailedRead", FaultKind::Error, IoOp::Read},
                    Harm{"FailedWrite", FaultKind::Error, IoOp::Write},
                    Harm{"FailedFlush", FaultKind::Error, IoOp::Flush},
                    Harm{"FullHost", FaultKind::Error, IoOp::Write, ENOSPC},
                    Harm{"ShortWrite", FaultKind::Short, IoOp::Write},
                    Harm{"DroppedWrite", FaultKind::Drop, IoOp::Write},
                    Harm{"DroppedFlush", FaultKind::Drop, IoOp::Flush},
                    Harm{"WriteToTheNextBlock", FaultKind::Misdirect, IoOp::Write, 0, 4096},
                    Harm{"WriteFarAway", FaultKind::Misdirect, IoOp::Write, 0, 3 * MiB},
                    Harm{"FlippedWrite", FaultKind::Flip, IoOp::Write},
                    Harm{"FlippedRead", FaultKind::Flip, IoOp::Read},
                    Harm{"SlowWrite", FaultKind::Delay, IoOp::Write},
                    Harm{"SlowRead", FaultKind::Delay, IoOp::Read},
                    Harm{"SlowFlush", FaultKind::Delay, IoOp::Flush}),
    [](const auto& param) { return std::string(param.param.name); });

// With a rule switched off, some request's failure must break a promise.
struct RuleOff {
  const char* mutant;
  Harm harm;
  IoClass cls;
};
void PrintTo(const RuleOff& rule, std::ostream* to) { *to << rule.mutant; }

class FaultMutantTest : public FaultTest, public testing::WithParamInterface<RuleOff> {};

TEST_P(FaultMutantTest, IsCaught) {
  if (test::shortened()) GTEST_SKIP() << "mutants are judged in the plain build";
  const RuleOff& off = GetParam();
  const uint64_t count = counts[{off.harm.op, off.cls}];
  std::string caught;
  ScopedMutant mutant(off.mutant);
  for (uint64_t n = 0; n < count && caught.empty(); ++n) {
    const Fault fault{ruleOf(off.harm, off.cls, n), std::chrono::seconds(1)};
    watchdog->begin(std::string(off.mutant) + ", " + fault.name());
    const FaultOutcome outcome = runWith(*base, fault);
    if (!outcome.broken.empty()) caught = outcome.broken[0];
    ++runs;
  }
  ASSERT_NE(caught, "") << "a filesystem without this rule was not told from one with it";
  test::reportCaught(off.mutant, runs, caught);
}

constexpr Harm kFailedWrite{"FailedWrite", FaultKind::Error, IoOp::Write};
constexpr Harm kFailedFlush{"FailedFlush", FaultKind::Error, IoOp::Flush};

INSTANTIATE_TEST_SUITE_P(
    Rules, FaultMutantTest,
    testing::Values(RuleOff{"iomap.error_told_to_one", kFailedWrite, IoClass::Data},
                    RuleOff{"iomap.error_told_again", kFailedWrite, IoClass::Data},
                    RuleOff{"files.sync_hides_loss", kFailedWrite, IoClass::Data},
                    RuleOff{"journal.acknowledge_early", kFailedWrite, IoClass::Journal},
                    RuleOff{"journal.forget_failure", kFailedWrite, IoClass::Journal},
                    RuleOff{"journal.forget_failure", kFailedFlush, IoClass::Journal},
                    RuleOff{"volume.goes_on", kFailedWrite, IoClass::Journal},
                    RuleOff{"volume.goes_on", kFailedFlush, IoClass::Journal}),
    [](const auto& param) {
      std::string name = param.param.mutant + std::string("_") + param.param.harm.name;
      for (char& c : name)
        if (!isalnum(c)) c = '_';
      return name;
    });

// From the n-th request on everything fails: a disk that was pulled out.
TEST_F(FaultTest, ADeviceThatDiesLeavesAConsistentVolume) {
  uint64_t total = 0;
  for (const auto& [kind, count] : counts) total += count;
  for (uint64_t n : chosen(total)) {
    FaultRule rule;
    rule.skip = n;
    rule.times = UINT64_MAX;
    const uint64_t before = hits;
    once({rule});
    if (HasFailure()) return;
    EXPECT_TRUE(hits > before || n * 2 >= total || only()) << "request " << n;
  }
  tell("a device that dies, of " + std::to_string(total));
}

// fsck and mkfs are told, too, and fsck makes nothing worse.
TEST_F(FaultTest, FsckTellsWhatItCannotReadOrWrite) {
  for (const bool repair : {false, true}) {
    for (const IoOp op : {IoOp::Read, IoOp::Write, IoOp::Flush}) {
      for (uint64_t n = seed() % step();; n += step()) {
        const auto memory = base->device->clone();
        const auto faults = FaultDevice::wrap(*memory);
        FaultRule rule;
        rule.op = op;
        rule.skip = n;
        const int number = faults->addRule(rule);
        watchdog->begin("fsck with a failing request " + std::to_string(n));
        CheckOptions options;
        options.repair = repair;
        const auto checked = checkVolume(*faults, options);
        if (faults->hits(number) == 0) break;
        EXPECT_TRUE(!checked || !checked->clean())
            << "request " << n << " failed, fsck said nothing";
        const auto after = checkVolume(*memory, CheckOptions());
        ASSERT_TRUE(after.isOk()) << after.status().message();
        EXPECT_TRUE(after->clean()) << "fsck made it worse: " << after->problems[0];
        ++runs;
      }
    }
  }
  std::cout << "fsck: " << runs << " failed requests" << std::endl;
  EXPECT_GT(runs, 60 / step());
}

TEST_F(FaultTest, MkfsTellsWhatItCannotWrite) {
  for (const IoOp op : {IoOp::Write, IoOp::Flush}) {
    for (uint64_t n = seed() % step();; n += step()) {
      const auto memory = MemoryDevice::create(ByteCount(32 * MiB));
      const auto faults = FaultDevice::wrap(*memory);
      FaultRule rule;
      rule.op = op;
      rule.skip = n;
      const int number = faults->addRule(rule);
      watchdog->begin("mkfs with a failing request " + std::to_string(n));
      const Status made = formatVolume(*faults, FormatOptions());
      if (faults->hits(number) == 0) break;
      EXPECT_EQ(made.errnum(), EIO) << "request " << n;
      // It is no volume, or a whole one.
      const auto checked = checkVolume(*memory, CheckOptions());
      EXPECT_TRUE(!checked || checked->clean()) << "request " << n;
      ++runs;
    }
  }
  EXPECT_GT(runs, test::shortened() ? 0 : 20 / step());
}

}  // namespace
}  // namespace ourfs::faults
