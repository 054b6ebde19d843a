// One file, one flush: what reaches the disk, in how many writes, and in which order.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "writeback_fixture.h"

namespace ourfs::test {
namespace {

using FlushTest = WritebackFixture;

TEST_F(FlushTest, ADirtyRunIsAllocatedInOnePieceAndWrittenInOneWrite) {
  start();
  const std::string data = pattern(1, MiB);
  write(0, data);
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(volume->dataWrites().size(), 1u);
  EXPECT_EQ(volume->dataWrites()[0].bytes.size(), MiB);
  EXPECT_EQ(volume->extents(*file).size(), 1u);
  EXPECT_EQ(volume->onDisk(*file), data);
  EXPECT_EQ(file->storedSize, MiB);
  EXPECT_EQ(writeback->dirtyFiles(), 0u);
  expectSound();
}

TEST_F(FlushTest, AFileOfEveryBlockSizeReadsBackWhatWasWritten) {
  for (const uint32_t block : {1024u, 2048u, 4096u, 16384u, 65536u}) {
    for (const uint64_t piece : {uint64_t{1}, uint64_t{3}, UINT64_MAX}) {
      VolumeOptions o;
      o.blockSize = block;
      o.largestPiece = piece;
      start(o);
      const std::string data = pattern(block + piece, 300000);
      write(0, data.substr(0, 100));
      write(5000, data.substr(5000));
      ASSERT_TRUE(flush().isOk());
      std::string expected = data;
      std::fill(expected.begin() + 100, expected.begin() + 5000, '\0');
      EXPECT_EQ(volume->onDisk(*file), expected) << block << " in pieces of " << piece;
      EXPECT_EQ(file->storedSize, data.size());
      expectSound();
    }
  }
}

TEST_F(FlushTest, AnOverwriteOfMappedBlocksTakesNoTransaction) {
  start();
  write(0, pattern(1, 64 * KiB));
  ASSERT_TRUE(flush().isOk());
  const size_t before = volume->finished().size();
  write(4096, pattern(2, 8192));
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(volume->finished().size(), before);
  EXPECT_EQ(volume->onDisk(*file), volume->content(*file));
  expectSound();
}

TEST_F(FlushTest, WritesEndAtTheirLargestSize) {
  WritebackOptions w = quiet();
  w.ioSize = ByteCount(128 * KiB);
  start({}, w);
  write(0, pattern(3, MiB));
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(volume->dataWrites().size(), 8u);
  EXPECT_EQ(volume->extents(*file).size(), 1u);
}

TEST_F(FlushTest, OnlyTheRangeThatWasAskedForIsWritten) {
  start();
  write(0, pattern(4, MiB));
  ASSERT_TRUE(writeback->flush(file, FileOffset(64 * KiB), FileOffset(128 * KiB)).isOk());
  ASSERT_EQ(volume->dataWrites().size(), 1u);
  EXPECT_EQ(volume->dataWrites()[0].bytes.size(), 64 * KiB);
  EXPECT_EQ(writeback->dirtyFiles(), 1u);
  ASSERT_TRUE(flush().isOk());
}

class EofTest : public FlushTest {
 protected:
  // The last block on disk when the folio's memory beyond i_size was not zero.
  std::string tailOnDisk() {
    start();
    write(0, pattern(5, 1000));
    LockedFolio folio = file->pages.lock(0);
    std::fill_n(folio->data() + 1000, folio->size() - 1000, std::byte{'x'});
    folio.unlock();
    EXPECT_TRUE(flush().isOk());
    const auto bytes = volume->dataWrites().at(0).bytes;
    return std::string(asChars(bytes).substr(1000));
  }
  static std::string_view asChars(const std::vector<std::byte>& b) {
    return {reinterpret_cast<const char*>(b.data()), b.size()};
  }
  // The size that was stored when the file grew while its first write was in flight.
  uint64_t sizeStoredFirst() {
    start();
    const int rule = volume->holdWrites();
    write(0, pattern(6, 1000));
    std::thread flusher([this] { EXPECT_TRUE(flush().isOk()); });
    volume->waitForHeld(1);
    write(1000, pattern(7, 2000));
    volume->fault->removeRule(rule);
    flusher.join();
    return volume->finished().at(0).newSize.v;
  }
};

TEST_F(EofTest, WhatLiesBeyondTheEndIsZeroedOnDisk) {
  EXPECT_EQ(tailOnDisk(), std::string(3096, '\0'));
}
TEST_F(EofTest, MutantNoEofZeroIsCaught) {
  ScopedMutant mutant("writeback.no_eof_zero");
  EXPECT_NE(tailOnDisk(), std::string(3096, '\0'));
}
TEST_F(EofTest, TheStoredSizeAdvancesOnlyToTheSizeAtSubmission) {
  EXPECT_EQ(sizeStoredFirst(), 1000u);
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(file->storedSize, 3000u);
}
TEST_F(EofTest, MutantSizeUnclampedIsCaught) {
  ScopedMutant mutant("writeback.size_unclamped");
  EXPECT_EQ(sizeStoredFirst(), 3000u);
}
TEST_F(EofTest, BlocksWhollyBeyondTheEndAreDropped) {
  VolumeOptions o;
  o.blockSize = 1024;
  start(o);
  write(0, pattern(8, 4096));
  file->size = 1500;  // as truncate does first
  ASSERT_TRUE(flush().isOk());
  ASSERT_EQ(volume->dataWrites().size(), 1u);
  EXPECT_EQ(volume->dataWrites()[0].bytes.size(), 2048u);
  EXPECT_EQ(file->pages.dirtyFolios(), 0u);
}

class OrderTest : public FlushTest {
 protected:
  std::vector<std::string> violationsOfOneFlush() {
    start();
    write(0, pattern(9, 64 * KiB));
    EXPECT_TRUE(flush().isOk());
    return volume->violations();
  }
};

TEST_F(OrderTest, DataThenConversionThenSizeThenEndOfWriteback) {
  std::vector<std::string> seen;
  std::mutex mutex;
  for (const char* point : {"writeback.after_submit", "ioend.before_convert", "ioend.before_size",
                            "ioend.after_convert", "ioend.before_end_writeback"}) {
    SyncPoints::instance().call(point, [&, point] {
      std::lock_guard lock(mutex);
      seen.push_back(point);
    });
  }
  EXPECT_THAT(violationsOfOneFlush(), ::testing::IsEmpty());
  SyncPoints::instance().reset();
  std::erase(seen,
             "writeback.after_submit");  // the ioend may be faster than the submitter's return
  EXPECT_EQ(seen, (std::vector<std::string>{"ioend.before_convert", "ioend.before_size",
                                            "ioend.after_convert", "ioend.before_end_writeback"}));
}
TEST_F(OrderTest, MutantEndBeforeConvertIsCaught) {
  ScopedMutant mutant("writeback.end_before_convert");
  EXPECT_THAT(violationsOfOneFlush(),
              ::testing::Contains("a folio left writeback before its conversion"));
}
TEST_F(OrderTest, MutantPublishMappedEarlyIsCaught) {
  ScopedMutant mutant("writeback.publish_mapped_early");
  EXPECT_THAT(violationsOfOneFlush(), ::testing::Contains("Mapped before its data was on disk"));
}

TEST_F(FlushTest, AFolioOfSeveralBlocksEndsWritebackWithItsLastWrite) {
  VolumeOptions o;
  o.blockSize = 1024;
  o.largestPiece = 1;
  start(o);
  write(0, pattern(10, 4096));
  ASSERT_TRUE(flush().isOk());
  ASSERT_EQ(volume->dataWrites().size(), 4u);
  write(0, pattern(11, 4096));
  const DeviceOffset at = volume->extentAt(*file, 2048).address;
  const int rule = volume->holdWrites(1, at);
  std::thread flusher([this] { EXPECT_TRUE(flush().isOk()); });
  while (volume->fault->held() == 0 || volume->counters.ioends < 7) std::this_thread::yield();
  EXPECT_TRUE(file->pages.lock(0)->inWriteback());
  volume->fault->removeRule(rule);
  flusher.join();
  EXPECT_FALSE(file->pages.lock(0)->inWriteback());
  EXPECT_EQ(volume->onDisk(*file), pattern(11, 4096));
  expectSound();
}

class PartialFolioTest : public FlushTest {
 protected:
  // A folio of four blocks on disk, and not in the cache; then one of them is written in part.
  bool othersStayAsTheyAre(const char* mutant = nullptr) {
    VolumeOptions o;
    o.blockSize = 1024;
    start(o);
    std::optional<ScopedMutant> rule;
    if (mutant != nullptr) rule.emplace(mutant);
    std::string expected = pattern(1, 4096);
    write(0, expected);
    EXPECT_TRUE(flush().isOk());
    writeback->reclaim(o.cacheLimit);
    EXPECT_EQ(file->pages.folios(), 0u);
    std::byte* const memory = volume->pool.allocate();  // that the folio gets next
    std::memset(memory, 0xEE, 4096);
    volume->pool.free(memory);
    write(1024 + 10, pattern(2, 20));
    expected.replace(1024 + 10, 20, pattern(2, 20));
    EXPECT_TRUE(flush().isOk());
    written = volume->dataWrites().back().bytes.size();
    return volume->onDisk(*file) == expected;
  }
  uint64_t written = 0;
};

TEST_F(PartialFolioTest, OnlyTheDirtyBlocksOfAFolioAreWritten) {
  EXPECT_TRUE(othersStayAsTheyAre());
  EXPECT_EQ(written, 1024u);
  EXPECT_FALSE(othersStayAsTheyAre("writeback.whole_folio"));
}

TEST_F(FlushTest, AFlushWaitsForTheWritesOfOthers) {
  start();
  const int rule = volume->holdWrites();
  write(0, pattern(12, 8192));
  std::thread first([this] { EXPECT_TRUE(flush().isOk()); });
  volume->waitForHeld(1);
  EXPECT_EQ(file->pages.dirtyFolios(), 0u);
  std::atomic<bool> done{false};
  SyncPoints::instance().delay("ioend.before_convert", std::chrono::milliseconds(20));
  SyncPoints::instance().call("ioend.before_convert", [&] { EXPECT_FALSE(done); });
  std::thread second([&] {
    EXPECT_TRUE(flush().isOk());
    done = true;
    EXPECT_EQ(file->storedSize, 8192u);
  });
  volume->fault->removeRule(rule);
  first.join();
  second.join();
}

TEST_F(FlushTest, WritesThatWaitTogetherShareOneTransaction) {
  WritebackOptions w = quiet();
  w.ioSize = ByteCount(4096);
  start({}, w);
  const int rule = volume->holdWrites(16);
  write(0, pattern(13, 16 * 4096));
  std::thread flusher([this] { EXPECT_TRUE(flush().isOk()); });
  volume->waitForHeld(16);
  SyncPoints::instance().park("ioend.before_convert");
  volume->fault->removeRule(rule);  // all complete while the first one is parked
  ASSERT_TRUE(SyncPoints::instance().awaitParked("ioend.before_convert"));
  SyncPoints::instance().release("ioend.before_convert");
  flusher.join();
  EXPECT_LE(volume->finished().size(), 3u);
  EXPECT_EQ(file->storedSize, 16u * 4096);
  EXPECT_EQ(volume->onDisk(*file), pattern(13, 16 * 4096));
  expectSound();
}

TEST_F(FlushTest, FlushesDoNotWaitInACircleForTheLastReservation) {
  VolumeOptions o;
  o.reservations = 1;
  o.blockSize = 1024;
  o.largestPiece = 2;
  start(o);
  std::vector<std::shared_ptr<Mapping>> files;
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    files.push_back(volume->newFile());
    ASSERT_TRUE(volume->store(*files.back(), 0, pattern(14, 50000)).isOk());
    writeback->dirtied(files.back());
  }
  for (const auto& one : files)
    threads.emplace_back(
        [&, one] { EXPECT_TRUE(writeback->flush(one, FileOffset(0), kFileEnd).isOk()); });
  for (auto& t : threads) t.join();
  for (const auto& one : files) EXPECT_EQ(volume->onDisk(*one), pattern(14, 50000));
  expectSound();
}

class CircleTest : public FlushTest {
 protected:
  // There is one reservation, and a flush that holds it waits for another one. How many writes that
  // could give it back are with the device by then.
  uint64_t writesUnderWay(const char* mutant = nullptr) {
    VolumeOptions o;
    o.reservations = 1;
    o.largestPiece = 1;
    start(o);
    std::optional<ScopedMutant> rule;
    if (mutant != nullptr) rule.emplace(mutant);
    write(0, pattern(15, 8192));
    const int hold = volume->holdWrites();
    std::thread flusher([this] { EXPECT_TRUE(flush().isOk()); });
    while (volume->reservationsHeld() == 0) std::this_thread::yield();
    volume->waitForReserver();
    const uint64_t underWay = volume->fault->held();
    volume->allowReservations(1);
    volume->fault->removeRule(hold);
    flusher.join();
    EXPECT_EQ(volume->onDisk(*file), pattern(15, 8192));
    return underWay;
  }
};

TEST_F(CircleTest, WhatHoldsAReservationIsUnderWayBeforeTheNextIsWaitedFor) {
  EXPECT_EQ(writesUnderWay(), 1u);
}
TEST_F(CircleTest, MutantReserveBeforeSubmitIsCaught) {
  EXPECT_EQ(writesUnderWay("writeback.reserve_before_submit"), 0u);  // it would wait for itself
}

TEST_F(FlushTest, FlushAllWritesEveryFile) {
  start();
  std::vector<std::shared_ptr<Mapping>> files;
  for (uint64_t i = 0; i < 100; ++i) {
    files.push_back(volume->newFile());
    ASSERT_TRUE(volume->store(*files.back(), 0, pattern(i, 100 + i)).isOk());
    writeback->dirtied(files.back());
  }
  EXPECT_EQ(writeback->dirtyFiles(), 100u);
  ASSERT_TRUE(writeback->flushAll().isOk());
  EXPECT_EQ(writeback->dirtyFiles(), 0u);
  for (uint64_t i = 0; i < 100; ++i) EXPECT_EQ(volume->onDisk(*files[i]), pattern(i, 100 + i));
}

// Truncate and reuse of a block between the map and the folio that it was made for.
class StaleMapTest : public FlushTest {
 protected:
  void truncateUnderTheMap() {
    start();
    write(0, pattern(15, 8 * 4096));
    SyncPoints::instance().park("writeback.after_map");
    std::thread flusher([this] { (void)flush(); });
    ASSERT_TRUE(SyncPoints::instance().awaitParked("writeback.after_map"));
    volume->truncate(*file, 4096);  // the first folio is locked by the flush
    victim = volume->newFile();
    ASSERT_TRUE(volume->store(*victim, 0, pattern(16, 7 * 4096)).isOk());
    ASSERT_TRUE(writeback->flush(victim, FileOffset(0), kFileEnd).isOk());
    write(4096, pattern(17, 7 * 4096));
    SyncPoints::instance().release("writeback.after_map");
    flusher.join();
    ASSERT_TRUE(flush().isOk());
  }
  std::shared_ptr<Mapping> victim;
};

TEST_F(StaleMapTest, AMapIsNotUsedAfterATruncate) {
  truncateUnderTheMap();
  EXPECT_EQ(volume->onDisk(*victim), pattern(16, 7 * 4096));
  EXPECT_EQ(volume->onDisk(*file), pattern(15, 8 * 4096).substr(0, 4096) + pattern(17, 7 * 4096));
  EXPECT_GE(volume->counters.staleWriteback, 1u);
  expectSound();
}
TEST_F(StaleMapTest, MutantSkipMapCheckIsCaught) {
  ScopedMutant mutant("writeback.skip_map_check");
  truncateUnderTheMap();
  EXPECT_NE(volume->onDisk(*victim), pattern(16, 7 * 4096));
}

}  // namespace
}  // namespace ourfs::test
