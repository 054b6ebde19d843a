// The size of a file is stored although the data at its end never reaches the disk.
#include <linux/falloc.h>

#include "fs/filesystem_fixture.h"

namespace ourfs::test {
namespace {

class FileSizeTest : public FilesystemTest {
 protected:
  // A file whose size is known to the cache alone: `head` at 0, a byte at the very end.
  OpenFilePtr make(uint64_t size) {
    ino_ = file(kRoot, "f");
    OpenFilePtr handle = open(ino_);
    write(*handle, 0, "head");
    write(*handle, size - 1, "z");
    return handle;
  }
  // From `from` to behind the end.
  void clear(OpenFile& handle, int how, uint64_t from) {
    EXPECT_EQ(
        fs_->fallocate(handle, FALLOC_FL_KEEP_SIZE | how, FileOffset(from), ByteCount(64 * KiB))
            .errnum(),
        0);
  }
  void fsyncAndCrash(OpenFilePtr handle) {
    EXPECT_EQ(fs_->fsync(*handle, true).errnum(), 0);
    handle.reset();
    crash();
    mount();
    EXPECT_EQ(lookup(kRoot, "f"), ino_);
  }
  void expectContent(uint64_t size, uint64_t zeroFrom) {
    EXPECT_EQ(stat(ino_).size, size);
    OpenFilePtr handle = open(ino_);
    std::string expected = "head" + std::string(size - 4, '\0');
    if (zeroFrom >= size) expected.back() = 'z';
    if (zeroFrom < 4) expected.replace(0, 4, 4, '\0');
    EXPECT_EQ(read(*handle, 0, size), expected);
    fs_->release(std::move(handle));
  }
  InodeNo ino_;
};

TEST_F(FileSizeTest, IsStoredWhenTheDirtyEndIsPunchedOut) {
  OpenFilePtr handle = make(8704);
  clear(*handle, FALLOC_FL_PUNCH_HOLE, 4096);
  fsyncAndCrash(std::move(handle));
  expectContent(8704, 4096);
}

TEST_F(FileSizeTest, IsStoredWhenAllDirtyDataIsPunchedOut) {
  OpenFilePtr handle = make(8192);
  clear(*handle, FALLOC_FL_PUNCH_HOLE, 0);
  fsyncAndCrash(std::move(handle));
  expectContent(8192, 0);
}

TEST_F(FileSizeTest, IsStoredWhenTheDirtyEndBecomesZeroes) {
  OpenFilePtr handle = make(40 * KiB);
  clear(*handle, FALLOC_FL_ZERO_RANGE, 8192);
  fsyncAndCrash(std::move(handle));
  expectContent(40 * KiB, 8192);
}

TEST_F(FileSizeTest, IsStoredWhenTheFileIsCutInAHoleBehindItsDirtyData) {
  OpenFilePtr handle = make(90 * KiB);
  AttributeChange cut;
  cut.size = 50 * KiB + 100;
  must(fs_->setattr(caller_, ino_, cut));
  fsyncAndCrash(std::move(handle));
  expectContent(50 * KiB + 100, 4096);
}

TEST_F(FileSizeTest, SurvivesUnmountWithoutFsyncWhenTheDirtyEndIsPunchedOut) {
  OpenFilePtr handle = make(8704);
  clear(*handle, FALLOC_FL_PUNCH_HOLE, 0);
  fs_->release(std::move(handle));
  unmountClean();
  mount();
  expectContent(8704, 0);
}

}  // namespace
}  // namespace ourfs::test
