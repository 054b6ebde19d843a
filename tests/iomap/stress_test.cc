// Random operations against a byte model: every way of writing, size changes, holes, and writeback
// in every intermediate state. Prints its seed; OURFS_SEED gives it back.
#include <gtest/gtest.h>

#include <thread>

#include "iomap/test_file.h"
#include "random_seed.h"
#include "rounds.h"

namespace ourfs {
namespace {

using test::Random;
using test::TestFile;

class StressTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  ~StressTest() override { SyncPoints::instance().reset(); }
};
INSTANTIATE_TEST_SUITE_P(Blocks, StressTest, ::testing::Values(1024, 4096, 16384, 65536),
                         [](const auto& p) { return std::to_string(p.param / 1024) + "K"; });

// One thread, every step in a random state of writeback; maps are short or long, and go stale at
// random.
class RandomFile {
 public:
  RandomFile(TestFile& file, uint64_t seed, bool& maySubmit)
      : f_(file), random_(seed), maySubmit_(maySubmit) {}

  void step(uint64_t n) {
    const uint64_t block = f_.blockSize, pages = kBlocks * block / 4096;
    const uint64_t pos = random_.below(kBlocks * block), length = random_.between(1, 6 * block);
    f_.ops.mapLimit = random_.oneIn(3) ? random_.between(1, 4) : UINT64_MAX;
    switch (random_.below(16)) {
      case 0:
      case 1:
      case 2:
      case 3:
        f_.write(pos, length, n);
        break;
      case 4:
        f_.mmapStore(random_.below(pages) * 4096, 4096 * random_.between(1, 4), n);
        break;
      case 5:
        f_.cacheWrite(random_.below(pages) * 4096, 4096, n);
        break;
      case 6:
        drain();
        f_.truncate(random_.below(kBlocks * block));
        break;
      case 7:
        drain();
        f_.punch(pos, length);
        break;
      case 8:
        f_.zero(pos, length);
        break;
      case 9:
        drain();
        f_.direct(pos / block * block, block * random_.between(1, 6), n);
        break;
      case 10:
        f_.preallocate(pos, length);
        break;
      case 11:
        f_.flush(pos, pos + length);
        break;
      case 12:
      case 13:
        f_.submit(pos / f_.pool.folioSize());
        break;
      case 14:
        f_.ioend();
        break;
      default:
        for (int i = 0; i < 8; ++i) f_.evict(random_.below(kBlocks));
        break;
    }
    f_.ops.mapLimit = UINT64_MAX;
    maySubmit_ = true;
  }

  // Strikes between any two steps inside of an operation.
  void disturb() {
    if (busy_ || !random_.oneIn(6)) return;
    busy_ = true;
    const uint64_t index = random_.below(kBlocks * f_.blockSize / f_.pool.folioSize());
    switch (random_.below(4)) {
      case 0:
        f_.bump();
        break;
      case 1:
        if (maySubmit_) f_.submit(index);
        break;
      case 2:
        f_.cleanOut(index);
        break;
      default:
        f_.evict(index);
        break;
    }
    busy_ = false;
  }

  // What is not zero in the model is data.
  void checkSeek() {
    const uint64_t from = random_.below(f_.model.size() + 1);
    const auto found = seekData(f_.mapping, f_.io, FileOffset(from));
    const uint64_t data = found ? found->v : f_.model.size();
    for (uint64_t i = from; i < data; ++i)
      ASSERT_EQ(f_.model[i], std::byte{0}) << "data missed at " << i;
    if (from >= f_.model.size()) return;
    const auto hole = seekHole(f_.mapping, f_.io, FileOffset(from));
    ASSERT_TRUE(hole.isOk());
    ASSERT_GE(hole->v, from);
    ASSERT_LE(hole->v, f_.model.size());
  }

 private:
  // The operation to come waits for writeback, which in one thread nobody would end.
  void drain() {
    maySubmit_ = false;
    while (f_.ioend()) {
    }
  }

  static constexpr uint64_t kBlocks = 40;
  TestFile& f_;
  Random random_;
  bool busy_ = false;
  bool& maySubmit_;
};

TEST_P(StressTest, RandomOperationsAgreeWithTheModel) {
  if (test::onlyThreadsCount()) GTEST_SKIP() << "one thread";
  const uint64_t seed = test::randomSeed("Stress");
  TestFile file(GetParam());
  bool maySubmit = true;
  RandomFile user(file, seed, maySubmit), disturber(file, seed + 1, maySubmit);
  for (const char* point : {"write.after_begin", "write.before_folio_lock", "read.after_begin",
                            "zero.after_dirty_scan", "direct.after_end_io"})
    SyncPoints::instance().call(point, [&] { disturber.disturb(); });
  const uint64_t steps = test::rounds(std::min<uint64_t>(5000, 32 * MiB / GetParam()));
  for (uint64_t n = 1; n <= steps; ++n) {
    user.step(n);
    ASSERT_EQ(file.compare(), "") << "step " << n << " seed " << seed;
    ASSERT_EQ(file.accounts(), "") << "step " << n << " seed " << seed;
    if (n % 16 == 0) user.checkSeek();
    ASSERT_FALSE(HasFatalFailure());
  }
  SyncPoints::instance().reset();
  EXPECT_EQ(file.verify(), "");
  EXPECT_GT(file.counters.staleWrite, 0u);
  EXPECT_GT(file.counters.staleRead, 0u);
}

// Several threads, each with bytes of its own that share blocks with those of the others.
//   | unit: 64 KiB | writer 0 | writer 1 | ... 48 KiB | mmap pages 48..64 KiB |
class SharedFile {
 public:
  static constexpr uint64_t kUnit = 64 * KiB, kUnits = 8, kStripe = 5000, kPages = 48 * KiB;
  static constexpr int kWriters = 3;
  SharedFile(TestFile& file, uint64_t seed) : f_(file), seed_(seed) {
    file.truncate(kUnit * kUnits);
    f_.preallocate(0, kUnit * 3);
  }

  // Writes, zeroes and reads back its own stripes.
  void writer(int self, int rounds) {
    Random random(seed_ + static_cast<uint64_t>(self));
    std::map<uint64_t, std::vector<std::byte>> own;
    for (int n = 0; n < rounds; ++n) {
      const uint64_t stripe = random.below(3) * kWriters + static_cast<uint64_t>(self);
      const uint64_t pos = random.below(kUnits) * kUnit + stripe * kStripe;
      auto& bytes = own.try_emplace(pos, kStripe, std::byte{0}).first->second;
      const uint64_t from = random.below(kStripe), length = random.between(1, kStripe - from);
      if (random.oneIn(4)) {
        ExclusiveLock inode(f_.inodeLock);
        ExclusiveLock invalidate(f_.mapping.invalidateLock);
        if (!zeroRange(f_.mapping, f_.io, FileOffset(pos + from), ByteCount(length))) ++failures_;
        std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(from), length, std::byte{0});
      } else {
        const auto fresh = test::pattern(random.below(1 << 30), length);
        ExclusiveLock inode(f_.inodeLock);
        if (!bufferedWrite(f_.mapping, f_.io, FileOffset(pos + from), fresh)) ++failures_;
        std::copy(fresh.begin(), fresh.end(), bytes.begin() + static_cast<ptrdiff_t>(from));
      }
      check(pos, bytes);
    }
    for (const auto& [pos, bytes] : own) check(pos, bytes);
  }

  // In a writer's thread, before it locks a folio: some folio goes to disk and away.
  void strike() {
    const uint64_t n = ++strikes_;
    if (n % 4 != 0) return;
    const uint64_t index = n * 7919 % (kUnits * kUnit / f_.pool.folioSize());
    f_.submit(index);
    f_.ioend();
    f_.evict(index);
  }

  void mmapWriter(int rounds) {
    Random random(seed_ + 100);
    for (int n = 0; n < rounds; ++n) {
      const uint64_t pos = random.below(kUnits) * kUnit + kPages + random.below(4) * 4096;
      const auto fresh = test::pattern(random.below(1 << 30), 4096);
      if (!cacheStore(f_.mapping, f_.io, FileOffset(pos), fresh, false)) ++failures_;
      check(pos, fresh);
    }
  }

  // Grows, shrinks, punches and writes directly behind what the others use.
  void tailChanger(int rounds) {
    Random random(seed_ + 200);
    const uint64_t base = kUnits * kUnit;
    for (int n = 0; n < rounds; ++n) {
      const auto fresh = test::pattern(random.below(1 << 30), kUnit);
      ExclusiveLock inode(f_.inodeLock);
      if (!directWrite(f_.mapping, f_.io, f_.hooks(), FileOffset(base), fresh)) ++failures_;
      check(base, fresh);
      inodeFreeTruncate(base);
    }
  }

  void flusher(const std::atomic<bool>& stop) {
    Random random(seed_ + 300);
    while (!stop) {
      const uint64_t folios = kUnits * kUnit / f_.pool.folioSize();
      const uint64_t index = random.below(folios);
      f_.submit(index);
      if (!random.oneIn(3)) f_.ioend();
      f_.evict(random.below(folios));
      if (random.oneIn(50)) f_.bump();
    }
    f_.flush();
  }

  int failures() const { return failures_; }

 private:
  void inodeFreeTruncate(uint64_t size) {
    ExclusiveLock invalidate(f_.mapping.invalidateLock);
    if (!truncateCache(f_.mapping, f_.io, FileOffset(size))) ++failures_;
    MutexLock lock(f_.mapping.extents.mutex());
    f_.ops.remove(f_.mapping, FileOffset(size), kFileEnd, [](const Extent&) { return true; });
    f_.mapping.storedSize = size;
  }
  void check(uint64_t pos, const std::vector<std::byte>& expected) {
    if (f_.read(pos, expected.size()) != expected) ++failures_;
  }

  TestFile& f_;
  const uint64_t seed_;
  std::atomic<int> failures_{0};
  std::atomic<uint64_t> strikes_{0};
};

TEST_P(StressTest, ThreadsThatShareBlocksKeepTheirOwnBytes) {
  const uint64_t seed = test::randomSeed("Threads");
  TestFile file(GetParam());
  SharedFile shared(file, seed);
  const int kRounds = test::rounds(400);
  std::atomic<bool> stop{false};
  SyncPoints::instance().call("write.before_folio_lock", [&] { shared.strike(); });
  std::vector<std::thread> users;
  for (int w = 0; w < SharedFile::kWriters; ++w)
    users.emplace_back([&, w] { shared.writer(w, kRounds); });
  users.emplace_back([&] { shared.mmapWriter(kRounds); });
  users.emplace_back([&] { shared.tailChanger(kRounds / 4); });
  std::thread flusher([&] { shared.flusher(stop); });
  for (std::thread& t : users) t.join();
  stop = true;
  flusher.join();
  EXPECT_EQ(shared.failures(), 0) << "seed " << seed;
  file.evictAll();
  EXPECT_EQ(file.accounts(), "") << "seed " << seed;
  EXPECT_GT(file.counters.staleWrite, 0u);
}

}  // namespace
}  // namespace ourfs
