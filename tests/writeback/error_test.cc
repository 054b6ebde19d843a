// What does not reach the disk: told once, space given back, never dirty without space.
#include <thread>

#include "writeback_fixture.h"

namespace ourfs::test {
namespace {

class ErrorTest : public WritebackFixture {
 protected:
  // The file is as if the data had never been written, and works.
  void expectLostCleanly(uint64_t freeBefore) {
    EXPECT_EQ(file->pages.folios(), 0u);
    EXPECT_EQ(volume->pool.dirty, 0u);
    EXPECT_EQ(volume->pool.writeback, 0u);
    EXPECT_THAT(volume->extents(*file), ::testing::IsEmpty());
    EXPECT_EQ(volume->freeBlocks(), freeBefore);
    EXPECT_EQ(file->storedSize, 0u);
    expectSound();
    write(0, pattern(2, 100000));
    EXPECT_TRUE(flush().isOk());
    EXPECT_EQ(volume->onDisk(*file), pattern(2, 100000));
    expectSound();
  }
};

TEST_F(ErrorTest, AFailedWriteIsToldOncePerCursorAndItsSpaceComesBack) {
  start();
  const uint64_t before = volume->freeBlocks();
  ErrSeq::Cursor one = file->errors.sample(), two = one;
  volume->failWrites(EIO);
  write(0, pattern(1, 100000));
  EXPECT_EQ(flush().errnum(), EIO);
  EXPECT_EQ(file->errors.checkAndAdvance(one), EIO);
  EXPECT_EQ(file->errors.checkAndAdvance(one), 0);
  EXPECT_EQ(file->errors.checkAndAdvance(two), EIO);
  EXPECT_EQ(volume->counters.writebackErrors, 1u);
  expectLostCleanly(before);
  EXPECT_EQ(file->errors.checkAndAdvance(two), 0);
}

TEST_F(ErrorTest, NoSpaceForThePromiseIsAnErrorOfTheFlush) {
  start();
  const uint64_t before = volume->freeBlocks();
  write(0, pattern(1, 100000));
  volume->failMaps(ENOSPC);
  EXPECT_EQ(flush().errnum(), ENOSPC);
  volume->failMaps(0);
  expectLostCleanly(before);
}

TEST_F(ErrorTest, AFailedReservationIsAnErrorOfTheFlush) {
  start();
  const uint64_t before = volume->freeBlocks();
  write(0, pattern(1, 100000));
  volume->failPrepare(EROFS);
  EXPECT_EQ(flush().errnum(), EROFS);
  EXPECT_THAT(volume->dataWrites(), ::testing::IsEmpty());
  volume->failPrepare(0);
  expectLostCleanly(before);
}

TEST_F(ErrorTest, AFailedCommitIsAnErrorOfTheFlush) {
  start();
  const uint64_t before = volume->freeBlocks();
  write(0, pattern(1, 100000));
  volume->failFinish(EIO);
  EXPECT_EQ(flush().errnum(), EIO);
  volume->failFinish(0);
  expectLostCleanly(before);
}

TEST_F(ErrorTest, AForcedErrorAtTheMapPointIsAnErrorOfTheFlush) {
  start();
  const uint64_t before = volume->freeBlocks();
  SyncPoints::instance().forceError("writeback.after_map", EIO);
  write(0, pattern(1, 4096));
  EXPECT_EQ(flush().errnum(), EIO);
  expectLostCleanly(before);
}

TEST_F(ErrorTest, AFailedOverwriteKeepsTheBlocksAndDropsTheFolios) {
  start();
  write(0, pattern(1, 8192));
  ASSERT_TRUE(flush().isOk());
  const auto extents = volume->extents(*file);
  volume->failWrites(EIO);
  write(0, pattern(2, 4096));
  EXPECT_EQ(flush().errnum(), EIO);
  EXPECT_EQ(volume->extents(*file), extents);
  EXPECT_EQ(volume->content(*file), pattern(1, 8192));
  EXPECT_FALSE(file->pages.lock(0));
  expectSound();
}

TEST_F(ErrorTest, ABlockThatIsDirtyAgainKeepsItsSpaceWhenItsWriteFails) {
  start();
  write(0, pattern(1, 8192));
  SyncPoints::instance().park("ioend.before_convert");
  std::thread flusher([this] { EXPECT_EQ(flush().errnum(), EIO); });
  ASSERT_TRUE(SyncPoints::instance().awaitParked("ioend.before_convert"));
  write(4096, pattern(2, 4096));
  volume->failFinish(EIO);
  SyncPoints::instance().release("ioend.before_convert");
  flusher.join();
  volume->failFinish(0);
  EXPECT_EQ(volume->dirtyWithoutSpace(*file), "");
  EXPECT_EQ(volume->extentAt(*file, 0).state, ExtentState::Hole);
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(volume->onDisk(*file), std::string(4096, '\0') + pattern(2, 4096));
  expectSound();
}

TEST_F(ErrorTest, OneFailedBlockOfAFolioIsDroppedAlone) {
  VolumeOptions o;
  o.blockSize = 1024;
  o.largestPiece = 1;
  start(o);
  volume->failWrites(EIO);
  write(0, pattern(1, 4096));
  EXPECT_EQ(flush().errnum(), EIO);
  const std::string expected = std::string(1024, '\0') + pattern(1, 4096).substr(1024);
  EXPECT_EQ(volume->onDisk(*file), expected);
  EXPECT_EQ(volume->content(*file), expected);
  expectSound();
}

TEST_F(ErrorTest, MutantFailedKeepsDirtyIsCaught) {
  start();
  {
    ScopedMutant mutant("writeback.failed_keeps_dirty");
    volume->failWrites(EIO);
    write(0, pattern(1, 4096));
    EXPECT_EQ(flush().errnum(), EIO);
  }
  EXPECT_NE(volume->dirtyWithoutSpace(*file), "");
}

}  // namespace
}  // namespace ourfs::test
