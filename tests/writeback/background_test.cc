// What happens by itself: flushers, throttle, reclaim; and forgetting a file while they run.
#include <algorithm>
#include <thread>

#include "writeback_fixture.h"

namespace ourfs::test {
namespace {

class BackgroundTest : public WritebackFixture {
 protected:
  void awaitClean() {
    while (volume->pool.dirty + volume->pool.writeback != 0 || writeback->dirtyFiles() != 0)
      std::this_thread::yield();
  }
};

TEST_F(BackgroundTest, AFileThatIsDirtyForLongIsWritten) {
  WritebackOptions w = quiet();
  w.expire = w.interval = std::chrono::milliseconds(1);
  start({}, w);
  write(0, pattern(1, 100000));
  awaitClean();
  EXPECT_EQ(volume->onDisk(*file), pattern(1, 100000));
  expectSound();
}

TEST_F(BackgroundTest, OverTheBackgroundLimitFlushersStart) {
  WritebackOptions w = quiet();
  w.interval = std::chrono::hours(1);
  w.backgroundDirty = ByteCount(64 * KiB);
  start({}, w);
  write(0, pattern(2, 60000));
  EXPECT_EQ(writeback->dirtyFiles(), 1u);
  write(60000, pattern(3, 60000));
  while (volume->pool.dirty > 64 * KiB) std::this_thread::yield();
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(volume->onDisk(*file), pattern(2, 60000) + pattern(3, 60000));
}

TEST_F(BackgroundTest, ASmallFileIsWrittenBetweenTheSlicesOfAHugeOne) {
  WritebackOptions w = quiet();
  w.backgroundDirty = ByteCount(1);
  VolumeOptions o;
  o.cacheLimit = ByteCount(64 * MiB);
  start(o, w);
  auto small = volume->newFile();
  ASSERT_TRUE(volume->store(*file, 0, pattern(4, 20 * MiB)).isOk());
  ASSERT_TRUE(volume->store(*small, 0, pattern(5, 5000)).isOk());
  SyncPoints::instance().park("writeback.before_map");
  writeback->dirtied(file);
  ASSERT_TRUE(SyncPoints::instance().awaitParked("writeback.before_map"));
  writeback->dirtied(small);
  SyncPoints::instance().release("writeback.before_map");
  awaitClean();
  const auto writes = volume->dataWrites();
  const auto isSmall = [](const RecordedIo& io) { return io.bytes.size() == 8192; };
  const auto at = std::find_if(writes.begin(), writes.end(), isSmall) - writes.begin();
  EXPECT_GE(at, 16);
  EXPECT_LT(at, 18);
  EXPECT_GE(writes.size(), 21u);
  EXPECT_EQ(volume->onDisk(*small), pattern(5, 5000));
}

TEST_F(BackgroundTest, TwoWritersOfTenTimesTheLimitStayWithinIt) {
  VolumeOptions o;
  o.cacheLimit = ByteCount(4 * MiB);
  o.recording = false;
  WritebackOptions w;
  w.expire = std::chrono::hours(1);
  start(o, w);
  constexpr uint64_t kStep = 64 * KiB, kSteps = 20 * MiB / kStep;
  std::atomic<uint64_t> busiest{0}, largest{0};
  const auto raise = [](std::atomic<uint64_t>& most, uint64_t now) {
    for (uint64_t old = most; old < now && !most.compare_exchange_weak(old, now);) continue;
  };
  const auto writer = [&](const std::shared_ptr<Mapping>& to, uint64_t seed) {
    for (uint64_t i = 0; i < 2 * kSteps; ++i) {
      writeback->throttle(ByteCount(kStep));
      writeTo(to, i % kSteps * kStep, pattern(seed + i, kStep));
      raise(busiest, volume->pool.dirty + volume->pool.writeback);
      raise(largest, volume->pool.used().v);
    }
  };
  auto other = volume->newFile();
  std::thread one(writer, file, 1000), two(writer, other, 2000);
  one.join();
  two.join();
  EXPECT_LE(busiest, 2 * MiB + 4 * kStep);
  EXPECT_LE(largest, 4 * MiB + 512 * KiB + 4 * kStep);
  EXPECT_GT(volume->counters.foliosReclaimed, 0u);
  ASSERT_TRUE(writeback->flushAll().isOk());
  EXPECT_EQ(volume->onDisk(*file).substr(0, kStep), pattern(1000 + kSteps, kStep));
  EXPECT_EQ(volume->onDisk(*other).substr(20 * MiB - kStep), pattern(2000 + 2 * kSteps - 1, kStep));
  expectSound();
}

TEST_F(BackgroundTest, AWriterAtTheLimitWaitsUntilAWriteHasEnded) {
  WritebackOptions w = quiet();
  w.backgroundDirty = w.dirtyLimit = ByteCount(64 * KiB);
  start({}, w);
  const int rule = volume->holdWrites();
  write(0, pattern(1, 128 * KiB));
  volume->waitForHeld(1);  // the flusher started by itself
  std::atomic<bool> through{false};
  SyncPoints::instance().park("throttle.wait");
  std::thread writer([&] {
    writeback->throttle(ByteCount(4096));
    through = true;
  });
  ASSERT_TRUE(SyncPoints::instance().awaitParked("throttle.wait"));
  SyncPoints::instance().release("throttle.wait");
  EXPECT_FALSE(through);
  volume->fault->removeRule(rule);
  writer.join();
  EXPECT_EQ(volume->counters.throttled, 1u);
  EXPECT_EQ(volume->onDisk(*file), pattern(1, 128 * KiB));
}

TEST_F(BackgroundTest, AWriterGoesOnWhenAsMuchWasWrittenAsItBrings) {
  // Others fill what becomes free at once; it must not starve.
  WritebackOptions w = quiet();
  w.backgroundDirty = w.dirtyLimit = ByteCount(64 * KiB);
  start({}, w);
  auto other = volume->newFile();
  std::atomic<bool> through{false};
  std::thread hog([&] {
    for (uint64_t i = 0; !through; ++i) writeTo(other, i % 64 * 4096, pattern(i, 200000));
  });
  for (int i = 0; i < 20; ++i) writeback->throttle(ByteCount(4096));
  through = true;
  hog.join();
  ASSERT_TRUE(writeback->flushAll().isOk());
  EXPECT_EQ(volume->onDisk(*other), volume->content(*other));
}

TEST_F(BackgroundTest, ReclaimTakesOnlyWhatIsCleanAndNotInWriteback) {
  VolumeOptions o;
  o.cacheLimit = ByteCount(MiB);
  start(o);
  write(0, pattern(6, 3 * 4096));
  ASSERT_TRUE(writeback->flush(file, FileOffset(0), FileOffset(4096)).isOk());
  const int rule = volume->holdWrites();
  std::thread flusher(
      [this] { EXPECT_TRUE(writeback->flush(file, FileOffset(4096), FileOffset(8192)).isOk()); });
  volume->waitForHeld(1);
  uint64_t cookie = file->extents.sequence();
  writeback->reclaim(ByteCount(MiB));
  EXPECT_NE(file->extents.sequence(), cookie);
  EXPECT_EQ(volume->counters.foliosReclaimed, 1u);
  EXPECT_FALSE(file->pages.lock(0));
  EXPECT_TRUE(file->pages.lock(1));
  EXPECT_TRUE(file->pages.lock(2)->anyDirty());
  volume->fault->removeRule(rule);
  flusher.join();
  cookie = file->extents.sequence();
  writeback->reclaim(ByteCount(0));  // there is room
  EXPECT_EQ(volume->counters.foliosReclaimed, 1u);
  EXPECT_EQ(file->extents.sequence(), cookie);
}

TEST_F(BackgroundTest, ReclaimFindsAFolioThatNeverWasDirty) {
  start();
  write(0, pattern(1, 1000));
  ASSERT_TRUE(flush().isOk());
  writeback->reclaim(ByteCount(16 * MiB));
  writeback->reclaim(ByteCount(16 * MiB));
  ASSERT_EQ(file->pages.folios(), 0u);
  writeback->reclaim(ByteCount(32 * MiB));  // the file has nothing to give any more
  IoContext io = volume->io([this](Mapping&) { writeback->dirtied(file); });
  {
    ExclusiveLock invalidate(file->invalidateLock);
    ASSERT_TRUE(truncateCache(*file, io, FileOffset(2000)).isOk());
  }
  // The tail of the block was read, and is zero.
  ASSERT_EQ(file->pages.folios(), 1u);
  ASSERT_EQ(file->pages.dirtyFolios(), 0u);
  writeback->reclaim(ByteCount(16 * MiB));
  writeback->reclaim(ByteCount(16 * MiB));
  EXPECT_EQ(file->pages.folios(), 0u);
  expectSound();
}
TEST_F(BackgroundTest, ReclaimGivesFoliosInUseASecondChance) {
  VolumeOptions o;
  o.cacheLimit = ByteCount(64 * 4096);  // so large that no flusher reclaims
  start(o);
  write(0, pattern(7, 8 * 4096));
  ASSERT_TRUE(flush().isOk());
  writeback->reclaim(ByteCount(57 * 4096));  // clears all marks, then takes one
  EXPECT_EQ(file->pages.folios(), 7u);
  for (uint64_t i = 1; i < 8; ++i)
    if (i != 5) file->pages.lock(i);
  writeback->reclaim(ByteCount(58 * 4096));
  EXPECT_EQ(file->pages.folios(), 6u);
  EXPECT_FALSE(file->pages.lock(5));
}

TEST_F(BackgroundTest, ReclaimSkipsFoliosThatAreLocked) {
  VolumeOptions o;
  o.cacheLimit = ByteCount(MiB);
  start(o);
  write(0, pattern(8, 4096));
  ASSERT_TRUE(flush().isOk());
  LockedFolio held = file->pages.lock(0);
  writeback->reclaim(ByteCount(MiB));
  EXPECT_EQ(file->pages.folios(), 1u);
}

TEST_F(BackgroundTest, AForgottenFileIsInNobodysHands) {
  WritebackOptions w;
  w.expire = w.interval = std::chrono::milliseconds(1);
  w.threads = 2;
  VolumeOptions o;
  o.cacheLimit = ByteCount(MiB);
  start(o, w);
  std::atomic<bool> stop{false};
  std::thread reclaimer([&] {
    while (!stop) writeback->reclaim(ByteCount(MiB));
  });
  std::thread syncer([&] {
    while (!stop) EXPECT_TRUE(writeback->flushAll().isOk());
  });
  const auto worker = [&](uint64_t seed) {
    for (uint64_t i = 0; i < 200; ++i) {
      auto mine = volume->newFile();
      writeTo(mine, 0, pattern(seed + i, 20000));
      if (i % 2 == 0) {
        EXPECT_TRUE(writeback->flush(mine, FileOffset(0), kFileEnd).isOk());
        EXPECT_EQ(volume->onDisk(*mine), pattern(seed + i, 20000));
      }
      volume->truncate(*mine, 0);
      writeback->forget(mine);
      EXPECT_EQ(mine.use_count(), 1);
    }
  };
  std::thread a(worker, 1), b(worker, 1000);
  a.join();
  b.join();
  stop = true;
  reclaimer.join();
  syncer.join();
  EXPECT_EQ(writeback->dirtyFiles(), 0u);
  expectSound();
}

TEST_F(BackgroundTest, ForgetWaitsForAnIoend) {
  start();
  SyncPoints::instance().park("ioend.before_end_writeback");
  write(0, pattern(9, 4096));
  std::thread flusher([this] { EXPECT_TRUE(flush().isOk()); });
  ASSERT_TRUE(SyncPoints::instance().awaitParked("ioend.before_end_writeback"));
  std::atomic<bool> forgotten{false};
  std::thread forgetter([&] {
    writeback->forget(file);
    forgotten = true;
  });
  EXPECT_FALSE(forgotten);
  SyncPoints::instance().release("ioend.before_end_writeback");
  flusher.join();
  forgetter.join();
  EXPECT_EQ(file.use_count(), 1);
}

}  // namespace
}  // namespace ourfs::test
