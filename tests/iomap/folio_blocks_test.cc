// Folios of several blocks: each block is dirty and uptodate for itself.
#include <gtest/gtest.h>

#include "iomap/test_file.h"

namespace ourfs {
namespace {

using test::TestFile;

class FolioBlocksTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  static uint64_t blocks(uint64_t n) { return n * GetParam(); }
  // A folio's worth of bytes on disk. The memory that its folio gets next holds poison.
  static void onDisk(TestFile& file) {
    file.write(0, 4096, 1);
    file.flush();
    file.evictAll();
    std::byte* const memory = file.pool.allocate();
    std::memset(memory, std::to_integer<int>(test::kPoison), 4096);
    file.pool.free(memory);
  }
  static bool othersAreReadAfterAPartialFill() {
    TestFile file(GetParam());
    onDisk(file);
    file.write(blocks(1) + 10, 20, 2);
    EXPECT_EQ(file.counters.filledByRead, 1u);
    return file.compare().empty();
  }
  static bool othersAreReadAfterAZeroRange() {
    TestFile file(GetParam());
    onDisk(file);
    file.zero(blocks(1) + 10, 20);
    return file.compare().empty();
  }
  static bool eachWriteIntoAFolioReachesTheDisk() {
    TestFile file(GetParam());
    onDisk(file);
    file.write(10, 20, 2);
    file.write(4096 - 20, 20, 3);
    return file.verify().empty();
  }
};
INSTANTIATE_TEST_SUITE_P(Blocks, FolioBlocksTest, ::testing::Values(1024, 2048),
                         [](const auto& p) { return std::to_string(p.param / 1024) + "K"; });

TEST_P(FolioBlocksTest, OnlyWhatWasFilledIsUptodate) {
  EXPECT_TRUE(othersAreReadAfterAPartialFill());
  EXPECT_TRUE(othersAreReadAfterAZeroRange());
  ScopedMutant mutant("iomap.uptodate_whole_folio");
  EXPECT_FALSE(othersAreReadAfterAPartialFill());
  EXPECT_FALSE(othersAreReadAfterAZeroRange());
}

TEST_P(FolioBlocksTest, ABlockOfADirtyFolioBecomesDirtyToo) {
  EXPECT_TRUE(eachWriteIntoAFolioReachesTheDisk());
  ScopedMutant mutant("iomap.one_dirty_bit");
  EXPECT_FALSE(eachWriteIntoAFolioReachesTheDisk());
}

}  // namespace
}  // namespace ourfs
