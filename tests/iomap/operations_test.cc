#include "iomap/operations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "iomap/test_file.h"

namespace ourfs {
namespace {

using test::callOnce;
using test::TestFile;
using ::testing::Each;

class OperationsTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  ~OperationsTest() override { SyncPoints::instance().reset(); }
  uint64_t blocks(uint64_t n) const { return n * GetParam(); }
  void toDisk() {
    file_.flush();
    file_.evictAll();
  }
  TestFile file_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Blocks, OperationsTest, ::testing::Values(1024, 4096, 16384, 65536),
                         [](const auto& p) { return std::to_string(p.param / 1024) + "K"; });

TEST_P(OperationsTest, WhatIsWrittenIsReadAtAnyAlignment) {
  file_.write(10, blocks(20) + 77, 1);
  for (const bool cached : {true, false}) {
    if (!cached) toDisk();
    for (const uint64_t pos :
         {uint64_t{0}, uint64_t{1}, uint64_t{511}, uint64_t{512}, blocks(3), blocks(3) + 100}) {
      for (const uint64_t length :
           {uint64_t{1}, uint64_t{512}, uint64_t{700}, blocks(1), blocks(7) + 5}) {
        const auto at = file_.model.begin() + static_cast<ptrdiff_t>(pos);
        const std::vector<std::byte> expected(at, at + static_cast<ptrdiff_t>(length));
        ASSERT_EQ(file_.read(pos, length), expected)
            << pos << "+" << length << " cached " << cached;
      }
    }
  }
  EXPECT_GT(file_.counters.bypassReads, 0u);
  EXPECT_GT(file_.counters.cachedReads, 0u);
  EXPECT_EQ(file_.mapping.pages.folios(), 0u) << "a read past the cache caches nothing";
}

TEST_P(OperationsTest, ReadsEndAtTheEndOfTheFile) {
  file_.write(0, 1000, 1);
  EXPECT_EQ(file_.read(900, 500).size(), 100u);
  EXPECT_TRUE(file_.read(1000, 10).empty());
  EXPECT_TRUE(file_.read(5000, 10).empty());
}

TEST_P(OperationsTest, OneReadCoversManyMaps) {
  file_.truncate(blocks(100));
  for (uint64_t b = 0; b < 100; b += 3) file_.write(blocks(b) + 3, blocks(1) + 50, b);
  file_.preallocate(blocks(40), blocks(30));
  EXPECT_EQ(file_.verify(), "");
  EXPECT_EQ(file_.counters.staleRead, 0u);
}

TEST_P(OperationsTest, AWholeBlockIsNeitherReadNorZeroed) {
  file_.write(0, blocks(4), 1);
  toDisk();
  file_.counters.filledByRead = file_.counters.filledByZero = 0;
  file_.write(blocks(1), blocks(2), 2);
  EXPECT_EQ(file_.counters.filledByRead + file_.counters.filledByZero, 0u);
  file_.write(blocks(1) + 1, 1, 3);
  EXPECT_EQ(file_.counters.filledByRead + file_.counters.filledByZero, 0u) << "it was uptodate";
  EXPECT_EQ(file_.verify(), "");
  file_.write(1, blocks(2), 4);
  EXPECT_EQ(file_.counters.filledByRead, 2u) << "the first and the last block";
  EXPECT_EQ(file_.verify(), "");
  EXPECT_GT(file_.dirtiedCalls, 0u);
}

TEST_P(OperationsTest, AFailedReadOfAPartialBlockWritesNothing) {
  file_.write(0, blocks(2), 1);
  toDisk();
  file_.ops.afterBegin = [&](const Iomap&, IomapIntent) {};
  // A map to beyond the device makes the read fail.
  {
    MutexLock lock(file_.mapping.extents.mutex());
    Extent e = file_.mapping.extents.find(FileOffset(0));
    file_.space.free(e.address, e.length);
    e.address = DeviceOffset(TestFile::kDeviceSize);
    (void)file_.mapping.extents.set(e);
  }
  EXPECT_EQ(file_.write(10, 10, 2), -EINVAL);
  EXPECT_EQ(file_.mapping.pages.folios(), 0u);
  MutexLock lock(file_.mapping.extents.mutex());
  (void)file_.mapping.extents.set(
      {.offset = FileOffset(0), .length = ByteCount(blocks(2)), .address = {}});
}

TEST_P(OperationsTest, AFullVolumeMakesAShortWriteAndThenEnospc) {
  TestFile small(GetParam(), 64 * 65536);
  const uint64_t capacity = 64 * 65536 - GetParam();
  EXPECT_EQ(small.write(0, 64 * 65536 + 5, 1), static_cast<int64_t>(capacity));
  EXPECT_EQ(small.write(capacity + 3 * GetParam(), 10, 2), -ENOSPC);
  EXPECT_EQ(small.write(100, 10, 3), 10) << "space that is there already";
  EXPECT_EQ(small.verify(), "");
}

TEST_P(OperationsTest, AFailureBeforeTheFirstByteIsAnErrorAndLeaksNothing) {
  SyncPoints::instance().forceError("write.before_copy", EIO);
  EXPECT_EQ(file_.write(100, blocks(8), 1), -EIO);
  EXPECT_EQ(file_.mapping.size, 0u);
  EXPECT_EQ(file_.space.reserved(), 0u);
  EXPECT_EQ(file_.mapping.pages.folios(), 0u);
}

TEST_P(OperationsTest, BytesBehindTheEndAreZerosWhenTheFileGrowsOverThem) {
  const std::function<void()> growth[] = {
      [&] { file_.write(blocks(5) + 9, 10, 2); }, [&] { file_.write(blocks(1) - 1, 1, 2); },
      [&] { file_.truncate(blocks(3)); }, [&] { file_.cacheWrite(blocks(2) + 9, 10, 2); },
      [&] { file_.direct(blocks(2), blocks(1), 2); }};
  for (const auto& grow : growth) {
    for (const bool cached : {false, true}) {
      file_.truncate(0);
      file_.write(0, 700, 1);
      toDisk();
      file_.polluteTail();
      // A read under the folio lock leaves a clean folio whose tail hides what is on disk.
      if (cached) file_.mapping.pages.lockOrCreate(0).unlock(), file_.read(0, 700);
      grow();
      ASSERT_EQ(file_.verify(), "") << "cached " << cached;
    }
  }
}

TEST_P(OperationsTest, ShrinkingZeroesTheTailAndGivesSpaceBack) {
  file_.write(0, blocks(10), 1);
  file_.flush();
  file_.write(blocks(6), blocks(8), 2);
  file_.submit(blocks(7) / file_.pool.folioSize());
  std::thread ioend([&] { file_.ioend(); });
  EXPECT_EQ(file_.truncate(blocks(3) + 100), 0);
  ioend.join();
  EXPECT_LE(file_.mapping.storedSize, file_.mapping.size);
  EXPECT_EQ(file_.verify(), "");
  EXPECT_EQ(file_.space.used(), 4u);
  EXPECT_EQ(file_.truncate(blocks(9)), 0);
  EXPECT_EQ(file_.verify(), "");
}

TEST_P(OperationsTest, ShrinkingWaitsForTheFolioThatStays) {
  file_.write(0, 900, 1);
  file_.submit(0);
  SyncPoints::instance().count("truncate.after_cache_drop");
  std::thread truncate([&] { EXPECT_EQ(file_.truncate(100), 0); });
  // The ioend of the longer file is stored before the truncate's own size, never after it.
  while (file_.mapping.size != 100) std::this_thread::yield();
  EXPECT_EQ(SyncPoints::instance().hits("truncate.after_cache_drop"), 0u);
  file_.ioend();
  truncate.join();
  EXPECT_EQ(file_.mapping.storedSize, 100u);
  EXPECT_EQ(file_.verify(), "");
}

TEST_P(OperationsTest, HolesReadAsZerosAndFreeTheirBlocks) {
  file_.write(0, blocks(16), 1);
  file_.punch(blocks(2) + 5, blocks(3));
  EXPECT_EQ(file_.verify(), "");
  EXPECT_EQ(file_.space.used(), 14u);
  file_.write(blocks(2), blocks(6), 2);
  file_.punch(blocks(3), blocks(2));
  file_.punch(blocks(9) + 1, 5);
  EXPECT_EQ(file_.verify(), "");
}

TEST_P(OperationsTest, AStoreOfTheKernelsCacheEndsAtTheEndOfTheFile) {
  file_.write(0, 6000, 1);
  const uint64_t page = 4096;
  EXPECT_EQ(file_.mmapStore(page, page, 2), static_cast<int64_t>(page))
      << "what is beyond is dropped";
  EXPECT_EQ(file_.mapping.size, 6000u);
  EXPECT_EQ(file_.mmapStore(10 * page, page, 3), static_cast<int64_t>(page));
  EXPECT_EQ(file_.verify(), "");
  EXPECT_EQ(file_.cacheWrite(10 * page, page, 3), static_cast<int64_t>(page));
  EXPECT_EQ(file_.mapping.size, 11 * page);
  EXPECT_EQ(file_.verify(), "");
}

TEST_P(OperationsTest, DirectWritesReplaceWhatIsCached) {
  file_.write(0, blocks(16) + 5, 1);
  EXPECT_EQ(file_.direct(blocks(2), blocks(4), 2), static_cast<int64_t>(blocks(4)));
  EXPECT_EQ(file_.compare(), "");
  EXPECT_EQ(file_.direct(blocks(40), blocks(3), 3), static_cast<int64_t>(blocks(3)));
  file_.preallocate(blocks(50), blocks(6));
  EXPECT_EQ(file_.direct(blocks(52), blocks(2), 4), static_cast<int64_t>(blocks(2)));
  EXPECT_EQ(file_.verify(), "");
  EXPECT_EQ(file_.mapping.storedSize, blocks(54));
  EXPECT_EQ(file_.direct(1, blocks(1), 5), -EINVAL);
  EXPECT_EQ(file_.direct(0, 100, 5), -EINVAL);
}

TEST_P(OperationsTest, ADirectWriteThatCannotConvertGivesItsSpaceBack) {
  file_.truncate(blocks(8));
  SyncPoints::instance().forceError("test.convert", EIO);
  EXPECT_EQ(file_.direct(blocks(2), blocks(2), 1), -EIO);
  EXPECT_EQ(file_.space.used(), 0u);
  EXPECT_EQ(file_.verify(), "");
}

TEST_P(OperationsTest, AFolioThatBecameDirtyUnderADirectWriteIsReportedByTheNextFsync) {
  file_.write(0, blocks(8), 1);
  toDisk();
  ErrSeq::Cursor cursor = file_.mapping.errors.sample();
  const bool exclusive = GetParam() > 4096;
  callOnce("direct.after_end_io", [&] {
    EXPECT_EQ(file_.mapping.invalidateLock.try_lock(), false);
    if (!exclusive) file_.mmapStore(0, 4096, 2);
  });
  file_.direct(0, std::max<uint64_t>(4096, GetParam()), 3);
  EXPECT_EQ(file_.mapping.errors.checkAndAdvance(cursor), exclusive ? 0 : EIO);
  EXPECT_EQ(file_.accounts(), "");
}

TEST_P(OperationsTest, SeekFindsDataThatIsOnlyInTheCache) {
  const uint64_t folio = std::max<uint64_t>(4096, GetParam());
  file_.truncate(64 * folio);
  file_.preallocate(8 * folio, 24 * folio);
  file_.write(10 * folio, folio, 1);      // dirty over Unwritten
  file_.write(40 * folio, 2 * folio, 2);  // dirty over Delalloc
  file_.write(20 * folio, folio, 3);
  file_.submit(20);  // in writeback
  const auto data = [&](uint64_t from) {
    auto r = seekData(file_.mapping, file_.io, FileOffset(from * folio));
    return r ? static_cast<int64_t>(r->v / folio) : -r.errnum();
  };
  const auto hole = [&](uint64_t from) {
    auto r = seekHole(file_.mapping, file_.io, FileOffset(from * folio));
    return r ? static_cast<int64_t>(r->v / folio) : -r.errnum();
  };
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(data(0), 10);
    EXPECT_EQ(data(10), 10);
    EXPECT_EQ(hole(10), 11);
    EXPECT_EQ(data(11), 20);
    EXPECT_EQ(data(21), 40);
    EXPECT_EQ(hole(40), 42);
    EXPECT_EQ(data(42), -ENXIO);
    EXPECT_EQ(hole(0), 0);
    EXPECT_EQ(hole(50), 50);
    EXPECT_EQ(data(64), -ENXIO);
    EXPECT_EQ(hole(64), -ENXIO);
    toDisk();  // and the same when it is Mapped
  }
  file_.write(63 * folio, folio, 4);
  EXPECT_EQ(hole(63), 64) << "the end of the file is a hole";
}

TEST_P(OperationsTest, SeekSeesDataThatIsWrittenBackUnderIt) {
  const uint64_t folio = std::max<uint64_t>(4096, GetParam());
  file_.truncate(16 * folio);
  file_.preallocate(0, 16 * folio);
  file_.write(5 * folio, folio, 1);
  bool struck = false;
  file_.ops.afterBegin = [&](const Iomap&, IomapIntent) {
    if (!std::exchange(struck, true)) file_.cleanOut(5);
  };
  EXPECT_EQ(seekData(file_.mapping, file_.io, FileOffset(0))->v, 5 * folio);
  file_.ops.afterBegin = nullptr;
}

TEST_P(OperationsTest, PositionsBeyondTheLimitAreEfbig) {
  EXPECT_EQ(file_.write(kFileEnd.v - 1, 2, 1), -EFBIG);
  EXPECT_EQ(file_.direct(kFileEnd.v, GetParam(), 1), -EFBIG);
}

}  // namespace
}  // namespace ourfs
