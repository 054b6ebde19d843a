// The index and its room: pools that are small, full or in pieces, and many deleted keys.
#include <chrono>
#include <ctime>
#include <thread>

#include "index_fixture.h"
#include "rounds.h"

namespace ourfs {
namespace {

using namespace test;

class IndexSpaceTest : public IndexTest {
 protected:
  // Applies one batch for each `step` of the numbers below `count`.
  static void forBatches(uint64_t count, uint64_t step, const std::function<void(uint64_t)>& each) {
    for (uint64_t n = 0; n < count; n += step) each(n);
  }
  void fill(Index& index, uint64_t count) {
    forBatches(count, 10, [&](uint64_t n) {
      IndexBatch batch;
      for (uint64_t i = n; i < n + 10; ++i) batch.put(numberKey(i), random_.bytes(24));
      expectOk(commit(index, batch, ++position_));
    });
  }
  void eraseAll(Index& index, uint64_t count) {
    forBatches(count, 10, [&](uint64_t n) {
      IndexBatch batch;
      for (uint64_t i = n; i < n + 10; ++i) batch.erase(numberKey(i));
      expectOk(commit(index, batch, ++position_));
    });
  }
  static uint64_t countKeys(Index& index, const std::string& from, const std::string& end) {
    uint64_t n = 0;
    expectOk(index.scan(from, end, [&](std::string_view, std::string_view) { return ++n > 0; }));
    return n;
  }
  Status growWithoutEnd(std::atomic<int>& failures, uint64_t keysAtOnce);
  void fillAndEmpty(uint64_t volumeSize, int rounds, uint64_t stride);
  Random random_;
  uint64_t position_ = 0;
};

TEST_F(IndexSpaceTest, ASmallVolumeFilledAndEmptiedStaysInsideItsPool) {
  SCOPED_TRACE(random_.trace());
  constexpr uint64_t kCount = 200'000;
  Volume volume(geometryOf(32 * MiB));
  volume.device->setFill(std::byte{0xa5});
  ASSERT_OK(volume.format());
  auto index = volume.open();
  ASSERT_OK(index->startBackground());
  for (int round = 0; round < test::rounds(2); ++round) {
    fill(*index, kCount);
    EXPECT_EQ(countKeys(*index, "I", "J"), kCount);
    eraseAll(*index, kCount);
    EXPECT_EQ(countKeys(*index, "I", "J"), 0u);
  }
  EXPECT_EQ(index->counters().retries, 0u);
  ASSERT_OK(index->flush());
  uint64_t owned = 0;
  for (const BlockRun& run : index->ownedBlocks()) owned += run.count.v;
  std::printf("  pool of %llu KiB at the end, %llu taken\n",
              static_cast<unsigned long long>(owned * 4),
              static_cast<unsigned long long>(volume.taken * 4));
  EXPECT_LT(owned * 4096, 26 * MiB);
  EXPECT_EQ(owned, volume.pool[0].count.v + volume.taken);
  ASSERT_OK(index->close());
  // Everything it was never given is untouched.
  std::vector<std::byte> block(4096);
  for (uint64_t b = volume.nextFree; b < 8192; ++b) {
    ASSERT_OK(volume.device->read(DeviceOffset(b * 4096), block));
    ASSERT_TRUE(std::ranges::all_of(block, [](std::byte x) { return x == std::byte{0xa5}; })) << b;
  }
}

TEST_F(IndexSpaceTest, WhatDeletesHaveEmptiedIsGivenBack) {
  SCOPED_TRACE(random_.trace());
  constexpr uint64_t kCount = 60'000;
  Volume volume(geometryOf(32 * MiB));
  ASSERT_OK(volume.format());
  auto index = volume.open();
  ASSERT_OK(index->startBackground());
  const auto blocksOf = [](const std::vector<BlockRun>& runs) {
    uint64_t n = 0;
    for (const BlockRun& run : runs) n += run.count.v;
    return n;
  };
  for (int round = 0; round < test::rounds(3); ++round) {
    for (uint64_t n = 0; n < kCount; n += 10) {
      IndexBatch batch;
      for (uint64_t i = n; i < n + 10; ++i) batch.put(numberKey(i), random_.bytes(100));
      ASSERT_OK(commit(*index, batch, ++position_));
    }
    eraseAll(*index, kCount);
    const uint64_t full = blocksOf(index->ownedBlocks());
    ASSERT_GT(full * 4096, 7 * MiB);
    auto shrunk = index->shrinkPool(true);
    ASSERT_OK(shrunk);
    const std::vector<BlockRun> given = *shrunk;
    EXPECT_GT(blocksOf(given) * 4096, 2 * MiB);
    const std::vector<BlockRun> owned = index->ownedBlocks();
    EXPECT_EQ(blocksOf(owned) + blocksOf(given), full);
    for (const BlockRun& a : given) {
      for (const BlockRun& b : owned)
        EXPECT_TRUE(a.start + a.count <= b.start || b.start + b.count <= a.start);
      // Others use it now, and nothing of the index is hurt.
      for (uint64_t n = 0; n < a.count.v; ++n)
        ASSERT_OK(volume.device->write(DeviceOffset((a.start.v + n) * 4096),
                                       std::vector<std::byte>(4096, std::byte{0xee}), IoClass::Data,
                                       false));
      volume.giveBack(a);
    }
    EXPECT_TRUE(index->poolSufficient());
    shrunk = index->shrinkPool(true);
    ASSERT_OK(shrunk);
    EXPECT_TRUE(shrunk->empty());
    ASSERT_OK(index->close());
    index = volume.open();
    EXPECT_EQ(blocksOf(index->ownedBlocks()), blocksOf(owned));
    EXPECT_EQ(countKeys(*index, "I", "J"), 0u);
    ASSERT_OK(index->startBackground());
  }
  ASSERT_OK(index->close());
}

// A block that the durable table still names is the index's after a crash, whoever has it now.
TEST_F(IndexSpaceTest, NothingIsGivenBackBeforeTheTableWithoutItIsDurable) {
  for (const bool mutant : {false, true}) {
    Volume volume(geometryOf(32 * MiB), 20 * MiB);  // more than it needs
    ASSERT_OK(volume.format());
    auto index = volume.open();
    ASSERT_OK(index->startBackground());
    SyncPoints::instance().setMutant("index.shrink_before_sync", mutant);
    auto given = index->shrinkPool(false);
    ASSERT_OK(given);
    ASSERT_FALSE(given->empty());
    const auto crashed = volume.device->clone();
    index.reset();
    bool twice = false;
    for (const BlockRun& owned : Volume::openOn(*crashed, volume.options())->ownedBlocks()) {
      for (const BlockRun& run : *given)
        twice |= run.start < owned.start + owned.count && owned.start < run.start + run.count;
    }
    EXPECT_EQ(twice, mutant);
    SyncPoints::instance().reset();
  }
}

// Fills the volume until it refuses, empties it in the given way, and fills it again, `rounds`
// times.
void IndexSpaceTest::fillAndEmpty(uint64_t volumeSize, int rounds, uint64_t stride) {
  SCOPED_TRACE(std::to_string(volumeSize / MiB) + " MiB, every " + std::to_string(stride));
  Volume volume(geometryOf(volumeSize));
  volume.keepBlocks = (volumeSize - 14 * MiB) / 4096;
  ASSERT_OK(volume.format());
  IndexOptions o = volume.options();
  std::atomic<int> failures = 0;
  o.onFailure = [&](const Status&) { ++failures; };
  auto index = Volume::openOn(*volume.device, std::move(o));
  ASSERT_OK(index->startBackground());
  uint64_t least = UINT64_MAX;
  for (int round = 0; round < rounds; ++round) {
    Status status;
    uint64_t count = 0;
    while (status && count < 4'000'000) {
      IndexBatch batch;
      for (int i = 0; i < 10; ++i) batch.put(numberKey(count++), random_.bytes(40));
      status = commit(*index, batch, ++position_);
    }
    ASSERT_EQ(status.errnum(), ENOSPC);
    ASSERT_EQ(failures, 0);
    count -= 10;  // the last ones were refused
    least = std::min(least, count);
    EXPECT_GT(least, 2 * count / 3);  // there is room again for about as many
    EXPECT_EQ(countKeys(*index, "I", "J"), count);
    // What frees space is never refused, in whatever order it comes.
    for (uint64_t first = 0; first < stride; ++first) {
      for (uint64_t n = first; n < count; n += 10 * stride) {
        IndexBatch batch;
        for (uint64_t i = n; i < std::min(count, n + 10 * stride); i += stride)
          batch.erase(numberKey(i));
        ASSERT_OK(commit(*index, batch, ++position_, true));
      }
    }
    ASSERT_EQ(failures, 0);
    EXPECT_EQ(countKeys(*index, "I", "J"), 0u);
  }
  EXPECT_EQ(index->counters().retries, 0u);
  ASSERT_OK(index->close());
}

TEST_F(IndexSpaceTest, AFullVolumeRefusesAndDeletingMakesRoomAgain) {
  SCOPED_TRACE(random_.trace());
  fillAndEmpty(32 * MiB, test::shortened() ? 1 : 2, 7);
  if (test::shortened()) return;
  fillAndEmpty(32 * MiB, 1, 1);
  fillAndEmpty(64 * MiB, 1, 97);
}

// Growth in the name of freeing, which the filesystem never does: the reserve ends, compactions may
// be put off, but no flush fails and nothing is lost.
Status IndexSpaceTest::growWithoutEnd(std::atomic<int>& failures, uint64_t keysAtOnce) {
  Volume volume(geometryOf(32 * MiB));
  volume.keepBlocks = 5000;
  expectOk(volume.format());
  IndexOptions o = volume.options();
  o.onFailure = [&](const Status&) { ++failures; };
  auto index = Volume::openOn(*volume.device, std::move(o));
  expectOk(index->startBackground());
  Status status;
  uint64_t count = 0;
  while (status && count < 4'000'000) {
    IndexBatch batch;
    for (uint64_t i = 0; i < keysAtOnce; ++i) batch.put(numberKey(count++), random_.bytes(40));
    status = commit(*index, batch, ++position_, true);
  }
  if (failures > 0) return status;
  expectOk(index->flush());
  EXPECT_LE(index->counters().retries, 3u);  // each is a second
  EXPECT_EQ(countKeys(*index, "I", "J"), count - keysAtOnce);
  expectOk(index->close());
  return status;
}

TEST_F(IndexSpaceTest, TheReserveEndsBeforeAFlushCouldFail) {
  SCOPED_TRACE(random_.trace());
  std::atomic<int> failures = 0;
  EXPECT_EQ(growWithoutEnd(failures, 10).errnum(), ENOSPC);
  EXPECT_EQ(failures, 0);
  ScopedMutant mutant("index.admit_without_room");
  EXPECT_FALSE(growWithoutEnd(failures, 1000).isOk());
  EXPECT_EQ(failures, 1);
}

// Tables that a scan still reads keep their blocks, so that compaction gives nothing back.
TEST_F(IndexSpaceTest, ALongScanIsWaitedForAndBreaksNothing) {
  SCOPED_TRACE(random_.trace());
  Volume volume(geometryOf(32 * MiB));
  volume.keepBlocks = 4096;
  ASSERT_OK(volume.format());
  IndexOptions o = volume.options();
  std::atomic<int> failures = 0;
  o.onFailure = [&](const Status&) { ++failures; };
  auto index = Volume::openOn(*volume.device, std::move(o));
  ASSERT_OK(index->startBackground());
  Status status;
  uint64_t count = 0;
  const auto overwrite = [&](uint64_t first, uint64_t keys) {
    status = Status::ok();
    for (uint64_t n = first; status && n < first + keys; n += 10) {
      IndexBatch batch;
      for (uint64_t i = 0; i < 10; ++i) batch.put(numberKey(n + i), random_.bytes(40));
      status = commit(*index, batch, ++position_);
      if (status) count = std::max(count, n + 10);
    }
  };
  overwrite(0, 4'000'000);
  EXPECT_EQ(status.errnum(), ENOSPC);
  const uint64_t full = count / 40 * 40;
  for (uint64_t n = 0; n < full / 4; ++n) {
    IndexBatch batch;
    batch.erase(numberKey(n));
    ASSERT_OK(commit(*index, batch, ++position_, true));
  }
  ASSERT_OK(index->flush());
  std::atomic<bool> begun = false, end = false;
  std::thread reader([&] {
    uint64_t seen = 0;
    expectOk(index->scan("I", "J", [&](std::string_view, std::string_view) {
      begun = true;
      begun.notify_all();
      end.wait(false);
      return ++seen > 0;
    }));
    EXPECT_EQ(seen, count - full / 4);
  });
  begun.wait(false);
  // The same keys again: not more than there was, if compaction could give back what it reads.
  overwrite(full / 4, full - full / 4);
  EXPECT_EQ(status.errnum(), ENOSPC);
  EXPECT_EQ(failures, 0);
  end = true;
  end.notify_all();
  reader.join();
  overwrite(full / 4, full - full / 4);
  EXPECT_TRUE(status.isOk()) << status.message();
  EXPECT_EQ(countKeys(*index, "I", "J"), count - full / 4);
  EXPECT_EQ(failures, 0);
  ASSERT_OK(index->close());
}

TEST_F(IndexSpaceTest, APoolOfSingleBlocksWorks) {
  SCOPED_TRACE(random_.trace());
  Volume volume(geometryOf(64 * MiB, 4096, 512 * KiB));
  const uint64_t first = volume.pool[0].start.v, blocks = volume.pool[0].count.v;
  volume.pool.clear();
  for (uint64_t i = 0; i < blocks; ++i)
    volume.pool.push_back({BlockNo(first + 2 * i), BlockCount(1)});
  volume.nextFree = first + 2 * blocks;
  ASSERT_OK(volume.format());
  IndexOptions o = volume.options();
  o.takeSpace = [&](ByteCount wanted) -> Result<std::vector<BlockRun>> {
    std::vector<BlockRun> runs;
    for (uint64_t n = 0; n < wanted.v / 4096 + 1; ++n, volume.nextFree += 2) {
      runs.push_back({BlockNo(volume.nextFree), BlockCount(1)});
    }
    return runs;
  };
  auto index = Volume::openOn(*volume.device, o);
  ASSERT_NE(index, nullptr);
  ASSERT_OK(index->startBackground());
  fill(*index, 60'000);
  eraseAll(*index, 30'000);
  EXPECT_EQ(countKeys(*index, "I", "J"), 30'000u);
  ASSERT_OK(index->close());
  index = Volume::openOn(*volume.device, o);
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(countKeys(*index, "I", "J"), 30'000u);
  ASSERT_OK(index->verify([](const std::string& problem) { ADD_FAILURE() << problem; }));
}

TEST_F(IndexSpaceTest, WhatTheTableCannotNameIsGivenBack) {
  SCOPED_TRACE(random_.trace());
  Volume volume(geometryOf(64 * MiB, 4096, 64 * KiB));
  ASSERT_OK(volume.format());
  IndexOptions o = volume.options();
  std::set<uint64_t> taken;  // single blocks: the worst that a free space in pieces has
  const uint64_t end = volume.geometry.volumeSize.v / 4096;
  o.takeSpace = [&](ByteCount wanted) -> Result<std::vector<BlockRun>> {
    std::vector<BlockRun> runs;
    uint64_t left = wanted.v / 4096 + 1;
    for (uint64_t b = volume.nextFree; left > 0 && b < end; b += 2) {
      if (!taken.insert(b).second) continue;
      runs.push_back({BlockNo(b), BlockCount(1)});
      --left;
    }
    if (runs.empty()) return Status::error(ENOSPC);
    return runs;
  };
  o.returnSpace = [&](const std::vector<BlockRun>& runs) {
    for (const BlockRun& run : runs) {
      for (uint64_t n = 0; n < run.count.v; ++n) EXPECT_EQ(taken.erase(run.start.v + n), 1u);
    }
  };
  auto index = Volume::openOn(*volume.device, o);
  ASSERT_NE(index, nullptr);
  ASSERT_OK(index->startBackground());
  Status status;
  for (uint64_t n = 0; status && n < 4'000'000; n += 10) {
    IndexBatch batch;
    for (uint64_t i = n; i < n + 10; ++i) batch.put(numberKey(i), random_.bytes(100));
    status = commit(*index, batch, ++position_);
  }
  EXPECT_EQ(status.errnum(), ENOSPC);
  EXPECT_LT(taken.size(), (end - volume.nextFree) / 2);  // it is the table that is full
  for (int n = 0; n < 3; ++n) EXPECT_EQ(index->growPool().errnum(), ENOSPC);
  uint64_t owned = 0;
  for (const BlockRun& run : index->ownedBlocks()) owned += run.count.v;
  EXPECT_EQ(owned, volume.pool[0].count.v + taken.size());
  ASSERT_OK(index->close());
}

TEST_F(IndexSpaceTest, NothingIsTakenBeforeBackgroundWorkMayBegin) {
  Volume volume(geometryOf(32 * MiB));
  ASSERT_OK(volume.format());
  auto index = volume.open();
  for (uint64_t n = 1; n < 4000; ++n) {
    IndexBatch batch;
    for (int i = 0; i < 4; ++i) batch.put(numberKey(random_.below(500)), random_.bytes(50));
    ASSERT_OK(index->awaitMemtableRoom());
    ASSERT_OK(index->apply(batch, {Lsn(n), 1}));
  }
  ASSERT_OK(index->flush());
  EXPECT_EQ(volume.taken, 0u);
  EXPECT_EQ(index->counters().compactions, 0u);
  EXPECT_EQ(index->ownedBlocks(), volume.pool);
}

TEST_F(IndexSpaceTest, AMillionDeletedNeighboursDoNotSlowADirectory) {
  constexpr uint64_t kBatch = 1000;
  const uint64_t kDeleted = test::rounds(uint64_t{1'000'000});
  const InodeNo parent(5), gone(6), other(7);
  Volume volume(geometryOf(1 * GiB));
  ASSERT_OK(volume.format());
  auto index = volume.open();
  ASSERT_OK(index->startBackground());
  const auto eachBatch = [&](const std::function<void(IndexBatch&, uint64_t)>& add) {
    for (uint64_t n = 0; n < kDeleted; n += kBatch) {
      IndexBatch batch;
      for (uint64_t i = n; i < n + kBatch; ++i) add(batch, i);
      ASSERT_OK(commit(*index, batch, ++position_));
    }
  };
  IndexBatch few;
  for (uint64_t i = 0; i < 10; ++i) few.put(direntKey(parent, 256 * (i + 1)), "entry");
  for (uint64_t i = 0; i < 10; ++i) few.put(direntKey(other, 256 * (i + 1)), "entry");
  ASSERT_OK(commit(*index, few, ++position_));
  eachBatch([&](IndexBatch& b, uint64_t i) { b.put(direntKey(gone, 256 * (i + 1)), "entry"); });
  eachBatch([&](IndexBatch& b, uint64_t i) { b.erase(direntKey(gone, 256 * (i + 1))); });
  const auto scanMs = [&](InodeNo dir, uint64_t expected) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(countKeys(*index, direntPrefix(dir), prefixEnd(direntPrefix(dir))), expected);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
        .count();
  };
  double slowest = 0;
  for (const InodeNo dir : {parent, other}) {
    double best = 1e9;
    for (int i = 0; i < 5; ++i) best = std::min(best, scanMs(dir, 10));
    slowest = std::max(slowest, best);
  }
  std::printf("  directories next to it: %.3f ms; the emptied one itself: %.1f ms\n", slowest,
              scanMs(gone, 0));
  EXPECT_LT(slowest, 20.0);  // 1,000,000 tombstones would take over 500
}

TEST_F(IndexSpaceTest, CostOfApplyAndGet) {
  Volume volume(geometryOf(1 * GiB));
  ASSERT_OK(volume.format());
  auto index = volume.open();
  ASSERT_OK(index->startBackground());
  // Of this thread's processor time: the machine may be busy.
  const auto now = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
  };
  const auto micros = [&](uint64_t times, const std::function<void(uint64_t)>& body) {
    const double begin = now();
    for (uint64_t i = 0; i < times; ++i) body(i);
    return (now() - begin) / static_cast<double>(times);
  };
  const uint64_t kTimes = test::rounds(uint64_t{40'000});
  const double apply = micros(kTimes, [&](uint64_t i) {
    IndexBatch batch;
    for (uint64_t k = 0; k < 4; ++k) batch.put(numberKey(i * 4 + k), std::string(70, 'v'));
    expectOk(index->apply(batch, {Lsn(++position_), 1}));
  });
  const double get = micros(kTimes, [&](uint64_t i) {
    EXPECT_EQ(valueOf(*index, numberKey(i * 7919 % kTimes)).size(), 70u);
  });
  const double absent = micros(
      kTimes, [&](uint64_t i) { EXPECT_EQ(valueOf(*index, orphanKey(InodeNo(i + 1))), "(none)"); });
  std::printf("  apply of 4 keys %.1f us, get %.1f us, get of nothing %.1f us\n", apply, get,
              absent);
  EXPECT_EQ(index->counters().batches, kTimes);
}

}  // namespace
}  // namespace ourfs
