// Every change of an extent map bumps its sequence before anyone can see it, and blocks that are
// read past the cache stay what they are.
#include <gtest/gtest.h>

#include <thread>

#include "iomap/test_file.h"

namespace ourfs {
namespace {

using test::callOnce;
using test::TestFile;

// What the block may hold before and after a change.
constexpr ExtentState kStates[] = {ExtentState::Hole, ExtentState::Delalloc, ExtentState::Mapped,
                                   ExtentState::Unwritten};

Extent blockIn(ExtentState state) {
  return {FileOffset(0), ByteCount(4096), DeviceOffset(8192), state, state == ExtentState::Mapped};
}

// How many of the changes to `to` made no cookie stale.
int changesUnseen(ExtentState to) {
  int unseen = 0;
  for (const ExtentState from : kStates) {
    ExtentMap map(4096);
    MutexLock lock(map.mutex());
    (void)map.set(blockIn(from));
    const uint64_t cookie = map.sequence();
    (void)map.set(blockIn(to));
    if (map.sequence() == cookie) ++unseen;
  }
  return unseen;
}

TEST(MapChangeTest, EveryChangeMakesEveryCookieStale) {
  for (const ExtentState to : kStates) EXPECT_EQ(changesUnseen(to), 0);
  const std::pair<const char*, ExtentState> mutants[] = {
      {"iomap.remove_without_bump", ExtentState::Hole},
      {"iomap.insert_without_bump", ExtentState::Delalloc},
      {"iomap.insert_without_bump", ExtentState::Unwritten},
      {"iomap.convert_without_bump", ExtentState::Mapped}};
  for (const auto& [mutant, to] : mutants) {
    ScopedMutant rule(mutant);
    EXPECT_EQ(changesUnseen(to), 4) << mutant;
  }
}

class MapRaceTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  ~MapRaceTest() override { SyncPoints::instance().reset(); }
  static uint64_t blocks(uint64_t n) { return n * GetParam(); }
  static uint64_t indexOf(uint64_t block) {
    return blocks(block) / std::max<uint32_t>(4096, GetParam());
  }

  // A writer has its map when the block becomes Mapped and its folio is evicted.
  static std::string convertedUnderAWriter() {
    TestFile file(GetParam());
    file.truncate(blocks(8));
    file.preallocate(0, blocks(8));
    file.write(blocks(3) + 7, 100, 1);
    callOnce("write.before_folio_lock", [&] { EXPECT_TRUE(file.cleanOut(indexOf(3))); });
    EXPECT_EQ(file.write(blocks(3) + 300, 50, 2), 50);
    return file.verify();
  }
  // A reader past the cache has its map when the block moves.
  static bool movedUnderAReader() {
    TestFile file(GetParam());
    file.write(0, blocks(8), 1);
    file.flush();
    file.evictAll();
    callOnce("read.after_begin", [&] { file.relocate(3); });
    return file.read(0, blocks(8)) == file.model;
  }
  // A store has reserved space that a writer's map shows, and gives it back.
  static std::string removedUnderAWriter(TestFile& file) {
    SyncPoints& sync = SyncPoints::instance();
    const uint64_t page = std::max<uint64_t>(4096, GetParam());
    file.truncate(4 * page);
    sync.park("write.before_copy");
    sync.forceError("write.before_copy", EIO);
    std::thread store([&] { EXPECT_EQ(file.mmapStore(page, page, 1), -EIO); });
    EXPECT_TRUE(sync.awaitParked("write.before_copy"));
    sync.park("write.before_folio_lock");
    std::thread writer([&] { EXPECT_EQ(file.write(page + 100, 100, 2), 100); });
    EXPECT_TRUE(sync.awaitParked("write.before_folio_lock"));
    sync.release("write.before_copy");
    store.join();
    sync.release("write.before_folio_lock");
    writer.join();
    return file.verify();
  }
  static bool isFree(SharedMutex& mutex) {
    if (!mutex.try_lock()) return false;
    mutex.unlock();
    return true;
  }
  // A truncate comes while a read past the cache has its maps: at once if nothing keeps it out,
  // else after it. The blocks that it frees hold poison.
  static std::vector<std::byte> readAgainstTruncate(TestFile& file) {
    file.write(0, blocks(8), 1);
    file.flush();
    file.evictAll();
    std::thread truncate;
    callOnce("read.after_begin", [&] {
      const bool open = isFree(file.mapping.invalidateLock);
      truncate = std::thread([&] { EXPECT_EQ(file.truncate(0), 0); });
      if (open) truncate.join();
    });
    auto bytes = file.read(0, blocks(8));
    if (truncate.joinable()) truncate.join();
    EXPECT_EQ(file.space.used(), 0u);
    return bytes;
  }
};
INSTANTIATE_TEST_SUITE_P(Blocks, MapRaceTest, ::testing::Values(1024, 4096, 16384, 65536),
                         [](const auto& p) { return std::to_string(p.param / 1024) + "K"; });

TEST_P(MapRaceTest, AConversionMakesTheMapOfAWriterStale) {
  EXPECT_EQ(convertedUnderAWriter(), "");
  ScopedMutant mutant("iomap.convert_without_bump");
  EXPECT_NE(convertedUnderAWriter(), "");
}

TEST_P(MapRaceTest, AMoveMakesTheMapOfAReaderStale) {
  EXPECT_TRUE(movedUnderAReader());
  ScopedMutant mutant("iomap.convert_without_bump");
  EXPECT_FALSE(movedUnderAReader());
}

TEST_P(MapRaceTest, ARemovalMakesTheMapOfAWriterStale) {
  TestFile file(GetParam());
  EXPECT_EQ(removedUnderAWriter(file), "");
  EXPECT_EQ(file.counters.staleWrite, 1u);
  ScopedMutant mutant("iomap.remove_without_bump");
  TestFile without(GetParam());
  EXPECT_NE(removedUnderAWriter(without), "");
}

TEST_P(MapRaceTest, ATruncateWaitsUntilAReadPastTheCacheHasItsBytes) {
  const std::vector<std::byte> expected = test::pattern(1, blocks(8));
  TestFile file(GetParam());
  EXPECT_EQ(readAgainstTruncate(file), expected);
  EXPECT_EQ(file.counters.bypassReads, 1u);
  ScopedMutant lock("iomap.read_without_lock");
  TestFile unlocked(GetParam());
  EXPECT_NE(readAgainstTruncate(unlocked), expected);
  EXPECT_EQ(unlocked.counters.staleRead, 1u) << "the cookie keeps foreign bytes away";
  ScopedMutant cookie("iomap.read_without_cookie");
  TestFile foreign(GetParam());
  EXPECT_EQ(readAgainstTruncate(foreign), std::vector<std::byte>(blocks(8), test::kPoison));
}

}  // namespace
}  // namespace ourfs
