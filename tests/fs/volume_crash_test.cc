// Crash states of a volume, one by one: random transactions on a recording device, then any subset
// of what was not durable, torn at sectors. The oracle knows what each transaction made of the
// volume.
//
// What must hold in every state, named where it is checked:
//   opens      the volume mounts
//   durable    no transaction whose flush was answered is missing
//   prefix     what is there is what the first n transactions made: none in part, none out of order
//   data       a mapped block holds what was written to it for this mapping
//   space      no block is used twice (the mount's own scan)
#include <algorithm>
#include <cstring>
#include <map>

#include "block/record_device.h"
#include "mutant.h"
#include "random_seed.h"
#include "rounds.h"
#include "volume_fixture.h"

namespace ourfs {
namespace {

using test::messageOf;

constexpr uint64_t kNames = 12, kFiles = 6;
constexpr size_t kBlock = 4096;
constexpr uint64_t kFirstFile = 100;

// What one prefix of the transactions made of the volume.
struct State {
  std::map<uint64_t, uint64_t> names;                       // setting -> value
  std::map<uint64_t, std::pair<BlockRun, uint64_t>> files;  // inode -> blocks and the data's stamp
};

std::string nameOf(uint64_t n) { return "n" + std::to_string(n); }

class Workload {
 public:
  Workload(RecordDevice& device, uint64_t seed) : device_(device), rnd_(seed) {
    auto volume = Volume::open(device, OpenOptions{});
    EXPECT_TRUE(volume.isOk()) << messageOf(volume);
    if (volume.isOk()) volume_ = std::move(*volume);
    states_.push_back({});
  }

  struct Mix {
    uint64_t steps = 60;
    uint64_t flushOneIn = 3;
    uint64_t checkpointOneIn = 15;
  };

  void run(const Mix& mix) {
    for (uint64_t i = 0; i < mix.steps && volume_ != nullptr; ++i) {
      step();
      if (::testing::Test::HasFailure()) return;
      if (rnd_.oneIn(mix.flushOneIn)) flush();
      if (mix.checkpointOneIn != 0 && rnd_.oneIn(mix.checkpointOneIn)) (void)volume_->checkpoint();
    }
  }

  // The number of the last transaction that was acknowledged as durable at `point`.
  size_t durableAt(uint64_t point) const {
    size_t n = 0;
    for (const auto& [when, transactions] : acknowledged_) {
      if (when <= point) n = std::max(n, transactions);
    }
    return n;
  }
  const std::vector<State>& states() const { return states_; }
  void drop() { volume_.reset(); }

 private:
  void step() {
    State next = states_.back();
    Transaction t;
    const uint64_t number = states_.size();
    t.put(settingKey("sequence"), std::to_string(number));
    for (uint64_t n = rnd_.between(1, 4); n > 0; --n) changeName(t, next, number);
    if (rnd_.oneIn(2)) changeFile(t, next, number);
    auto room = volume_->log().reserve(kAttributeRoom);
    ASSERT_OK(room);
    auto lsn = volume_->log().commit(std::move(t), std::move(*room));
    ASSERT_OK(lsn);
    head_ = *lsn;
    states_.push_back(std::move(next));
  }

  void changeName(Transaction& t, State& next, uint64_t number) {
    const uint64_t name = rnd_.below(kNames);
    if (rnd_.oneIn(4)) {
      t.erase(settingKey(nameOf(name)));
      next.names.erase(name);
    } else {
      t.put(settingKey(nameOf(name)), std::to_string(number));
      next.names[name] = number;
    }
  }

  // Writes data to fresh blocks, near those that were freed last, and maps them in place of the old
  // ones.
  void changeFile(Transaction& t, State& next, uint64_t number) {
    const InodeNo ino(kFirstFile + rnd_.below(kFiles));
    const auto old = next.files.find(ino.v);
    const bool remove = old != next.files.end() && rnd_.oneIn(4);
    BlockRun fresh;
    if (!remove) {
      auto run = volume_->space().allocate(BlockCount(rnd_.between(1, 3)), lastFreed_, false);
      ASSERT_OK(run);
      fresh = *run;
      std::vector<std::byte> data(fresh.count.v * kBlock);
      for (size_t at = 0; at < data.size(); at += sizeof(number)) {
        std::memcpy(data.data() + at, &number, sizeof(number));
      }
      ASSERT_OK(device_.write(DeviceOffset(fresh.start.v * kBlock), data, IoClass::Data));
      t.afterData();
    }
    if (old != next.files.end()) {
      t.freeBlocks(old->second.first);
      lastFreed_ = old->second.first.start;
    }
    const std::string key = extentKey(ino, FileOffset(0));
    if (remove) {
      t.erase(key);
      next.files.erase(old);
    } else {
      const ExtentRecord record{fresh.start.v, fresh.count.v, StoredExtentState::Mapped};
      t.put(key, encodeExtent(ino, FileOffset(0), record));
      next.files[ino.v] = {fresh, number};
    }
  }

  void flush() {
    ASSERT_OK(volume_->log().flush(head_));
    acknowledged_.emplace_back(device_.mark(), states_.size() - 1);
  }

  RecordDevice& device_;
  test::Random rnd_;
  std::unique_ptr<Volume> volume_;
  std::vector<State> states_;  // [n]: after n transactions
  std::vector<std::pair<uint64_t, size_t>> acknowledged_;
  Lsn head_;
  BlockNo lastFreed_{0};
};

// Empty, or the rule that the volume on `image` breaks.
class Judge {
 public:
  Judge(BlockDevice& image, const std::vector<State>& states, size_t durable)
      : image_(image), states_(states), durable_(durable) {}

  std::string verdict() {
    auto volume = Volume::open(image_, OpenOptions{});
    if (!volume.isOk()) return "opens: " + messageOf(volume);
    const std::string broken = check(**volume);
    return broken;
  }

 private:
  std::string check(Volume& volume) {
    auto sequence = volume.index().get(settingKey("sequence"));
    if (!sequence.isOk()) return "opens: " + messageOf(sequence);
    const size_t n = *sequence ? std::stoul(**sequence) : 0;
    if (n < durable_)
      return "durable: " + std::to_string(durable_) + " were, " + std::to_string(n) + " are there";
    if (n >= states_.size()) return "prefix: a transaction that never was";
    return checkState(volume, states_[n]);
  }

  std::string checkState(Volume& volume, const State& state) {
    for (uint64_t name = 0; name < kNames; ++name) {
      auto value = volume.index().get(settingKey(nameOf(name)));
      const auto want = state.names.find(name);
      const std::string wanted = want == state.names.end() ? "" : std::to_string(want->second);
      if (!value.isOk() || value->value_or("") != wanted) return "prefix: " + nameOf(name);
    }
    for (uint64_t ino = kFirstFile; ino < kFirstFile + kFiles; ++ino) {
      auto value = volume.index().get(extentKey(InodeNo(ino), FileOffset(0)));
      const auto want = state.files.find(ino);
      if (!value.isOk() || value->has_value() != (want != state.files.end()))
        return "prefix: an extent";
      if (!value->has_value()) continue;
      auto extent = decodeExtent(InodeNo(ino), FileOffset(0), **value);
      if (!extent.isOk() || extent->block != want->second.first.start.v)
        return "prefix: an extent's place";
      if (!holds(want->second.first, want->second.second))
        return "data: of inode " + std::to_string(ino);
    }
    return "";
  }

  bool holds(BlockRun run, uint64_t stamp) {
    std::vector<std::byte> data(run.count.v * kBlock);
    if (!image_.read(DeviceOffset(run.start.v * kBlock), data).isOk()) return false;
    for (size_t at = 0; at < data.size(); at += sizeof(stamp)) {
      if (std::memcmp(data.data() + at, &stamp, sizeof(stamp)) != 0) return false;
    }
    return true;
  }

  BlockDevice& image_;
  const std::vector<State>& states_;
  const size_t durable_;
};

class VolumeCrashTest : public test::VolumeTest {
 protected:
  // Runs the workload, with one rule switched off if `mutant` names one, and looks at `images`
  // crash states, with all rules in force again. The first broken promise, or empty.
  std::string explore(uint64_t seed, const Workload::Mix& mix, int images,
                      const char* mutant = "none", uint64_t* states = nullptr) {
    format();
    if (HasFailure()) return "format";
    device_->setFill(std::byte{0xd5});
    const auto base = device_->clone();
    auto record = RecordDevice::wrap(*device_);
    Workload work(*record, seed);
    {
      const ScopedMutant off(mutant);
      work.run(mix);
      work.drop();
    }
    const auto log = record->log();
    const uint64_t end = record->clock();
    test::Random rnd(seed + 1);
    for (int i = 0; i < images; ++i) {
      const uint64_t point = rnd.oneIn(8) ? end : rnd.below(end + 1);
      const uint64_t keepOneIn = rnd.between(1, 4), tear = rnd.below(3);
      auto image = crashImage(*base, log, point, [&](size_t write, size_t sector) {
        if (tear == 0) return (write * 2654435761u >> 7) % keepOneIn == 0;  // whole writes
        return tear == 1 ? rnd.oneIn(keepOneIn) : sector % 2 == write % 2;
      });
      if (states != nullptr) ++*states;
      const std::string broken = judge(*image, work, point, rnd);
      if (!broken.empty()) return broken + " (image " + std::to_string(i) + ")";
    }
    return "";
  }

  // Also: a crash of the recovery itself, at any moment, changes nothing.
  std::string judge(MemoryDevice& image, const Workload& work, uint64_t point, test::Random& rnd) {
    const size_t durable = work.durableAt(point);
    if (!rnd.oneIn(4)) return Judge(image, work.states(), durable).verdict();
    const auto base = image.clone();
    auto record = RecordDevice::wrap(image);
    std::string broken = Judge(*record, work.states(), durable).verdict();
    if (!broken.empty()) return broken;
    auto again = crashImage(*base, record->log(), rnd.below(record->clock() + 1),
                            [&](size_t, size_t) { return rnd.oneIn(2); });
    broken = Judge(*again, work.states(), durable).verdict();
    return broken.empty() ? "" : "after a crash of the recovery, " + broken;
  }
};

// Hundreds of flushed transactions: the ring of 1 MiB goes round.
constexpr Workload::Mix kRoundTheRing{700, 1, 0};
constexpr Workload::Mix kBusy{80, 3, 15};

TEST_F(VolumeCrashTest, EveryCrashStateHoldsAPrefixWithAllThatWasAcknowledged) {
  const uint64_t seed = test::randomSeed("volume crash");
  for (uint64_t round = 0; round < test::rounds(uint64_t{4}) && !HasFailure(); ++round) {
    EXPECT_EQ(explore(seed + 2 * round, kBusy, 45), "");
  }
}

TEST_F(VolumeCrashTest, TheSameWhenTheJournalGoesRound) {
  EXPECT_EQ(explore(test::randomSeed("volume crash, ring"), kRoundTheRing, 25), "");
}

struct Mutant {
  const char* name;
  Workload::Mix mix;
};
class VolumeMutantTest : public VolumeCrashTest, public ::testing::WithParamInterface<Mutant> {};

TEST_P(VolumeMutantTest, IsCaught) {
  const uint64_t seed = test::randomSeed(GetParam().name);
  std::string broken;
  uint64_t states = 0;
  for (uint64_t round = 0; round < 12 && broken.empty() && !HasFailure(); ++round) {
    broken = explore(seed + 2 * round, GetParam().mix, 60, GetParam().name, &states);
  }
  EXPECT_NE(broken, "") << GetParam().name << " was not noticed";
  test::reportCaught(GetParam().name, states, broken);
}

INSTANTIATE_TEST_SUITE_P(Rules, VolumeMutantTest,
                         ::testing::Values(Mutant{"index.no_persist_hook", {60, 1000, 8}},
                                           Mutant{"journal.one_flush", kBusy},
                                           Mutant{"journal.flush_after_commit", kBusy},
                                           Mutant{"journal.advance_tail_early", kRoundTheRing},
                                           Mutant{"space.reuse_freed_early", {80, 6, 0}}),
                         [](const auto& i) {
                           std::string name = i.param.name;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

}  // namespace
}  // namespace ourfs
