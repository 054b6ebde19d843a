// The size of a file is stored although the data at its end never reaches the disk; what an
// interrupted change of size, a removal and a dropped inode leave behind.
#include <linux/falloc.h>

#include <functional>

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
  void setSize(uint64_t size) {
    AttributeChange change;
    change.size = size;
    must(fs_->setattr(caller_, ino_, change));
  }
  std::string cutAndGrown(const std::string& name, const std::function<void(OpenFile&)>& grow);
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

// A file of 4096 times A, durable, is cut to 100 bytes, made longer by `grow`, and lost in a crash
// with only the log flushed, as another file's fsync does it. What it then holds.
std::string FileSizeTest::cutAndGrown(const std::string& name,
                                      const std::function<void(OpenFile&)>& grow) {
  ino_ = file(kRoot, name);
  OpenFilePtr handle = open(ino_);
  write(*handle, 0, std::string(4096, 'A'));
  EXPECT_EQ(fs_->fsync(*handle, false).errnum(), 0);
  setSize(100);
  grow(*handle);
  EXPECT_TRUE(volume_->log().flush(volume_->log().journal().head().end).isOk());
  handle.reset();
  crash();
  mount();
  ino_ = lookup(kRoot, name);
  handle = open(ino_);
  const std::string content = read(*handle, 0, 4096);
  fs_->release(std::move(handle));
  return content;
}

// The far end of a write may be on disk before the block in which the file was cut.
TEST_F(FileSizeTest, AFileThatIsCutShowsNothingFromBehindTheCutWhenItGrows) {
  const auto writeFar = [&](uint64_t pos) {
    return [this, pos](OpenFile& handle) {
      const AlignedBuffer far(4096);
      FileData::WriteFlags flags;
      flags.direct = true;  // if it is not aligned it is buffered, and flushed
      EXPECT_EQ(fs_->write(handle, FileOffset(pos), far.span(), flags).value(), ByteCount(4096));
    };
  };
  const std::map<std::string, std::function<void(OpenFile&)>> ways = {
      {"truncate", [&](OpenFile&) { setSize(5000); }},
      {"direct", writeFar(1 * MiB)},
      {"buffered", writeFar(1 * MiB + 1)}};
  for (const auto& [name, grow] : ways) {
    SCOPED_TRACE(name);
    const std::string right = std::string(100, 'A') + std::string(3996, '\0');
    EXPECT_TRUE(cutAndGrown(name, grow) == right);
    ScopedMutant mutant("data.cut_tail_unwritten");
    EXPECT_FALSE(cutAndGrown(name + "-mutant", grow) == right);
  }
}

TEST_F(FileSizeTest, OfAFileRemovedWhileItIsDirtyNothingStays) {
  ino_ = file(kRoot, "f");
  OpenFilePtr handle = open(ino_);
  for (uint64_t n = 0; n < 600; ++n) {
    if (n == 300) {
      EXPECT_EQ(fs_->fsync(*handle, false).errnum(), 0);
    }
    write(*handle, n * 8192, "x");  // an extent each, more than one step of a removal takes
  }
  EXPECT_TRUE(fs_->unlink(caller_, kRoot, "f").isOk());
  fs_->release(std::move(handle));
  fs_->forget(ino_, 1);
  EXPECT_EQ(fs_->stop().errnum(), 0);
  EXPECT_EQ(volume_->space().counts().reserved, BlockCount(0));
  fs_.reset();
  EXPECT_EQ(volume_->close().errnum(), 0);
  volume_.reset();
  expectSound(*device_);
}

TEST_F(FileSizeTest, TheFirstFsyncOfAFileFlushesWhatMayHaveBeenWrittenBeforeItWasDropped) {
  make(4096).reset();
  unmount();
  mount();
  const auto flushes = [&] { return volume_->log().journal().counters().dataFlushes; };
  OpenFilePtr handle = open(lookup(kRoot, "f"));
  const uint64_t before = flushes();
  EXPECT_EQ(fs_->fsync(*handle, true).errnum(), 0);
  EXPECT_GT(flushes(), before);
  EXPECT_EQ(read(*handle, 0, 4), "head");  // now there is a mapping
  EXPECT_EQ(fs_->fsync(*handle, true).errnum(), 0);
  const uint64_t known = flushes();
  EXPECT_EQ(fs_->fsync(*handle, true).errnum(), 0);
  EXPECT_EQ(flushes(), known);
  fs_->release(std::move(handle));
}

}  // namespace
}  // namespace ourfs::test
