// Filesystem: open files, durability of what was asked to be durable, unlinked files.
#include "block/record_device.h"
#include "filesystem_fixture.h"

namespace ourfs::test {
namespace {

class OpenFilesTest : public FilesystemTest {
 protected:
  // Waits until nothing unlinked is left that nobody uses. statfs waits for that itself, a bounded
  // time.
  uint64_t inodes() {
    const StatfsReply s = fs_->statfs();
    return s.files - s.filesFree;
  }
};

TEST_F(OpenFilesTest, WrongOpensAreRefused) {
  must(fs_->mknod(caller_, kRoot, "fifo", S_IFIFO, 0));
  must(fs_->symlink(caller_, kRoot, "l", "x"));
  EXPECT_EQ(fs_->open(kRoot, O_RDONLY).errnum(), EISDIR);
  EXPECT_EQ(fs_->open(lookup(kRoot, "fifo"), O_RDONLY).errnum(), ENXIO);
  EXPECT_EQ(fs_->open(lookup(kRoot, "l"), O_RDONLY).errnum(), ELOOP);
  EXPECT_EQ(fs_->open(InodeNo(999), O_RDONLY).errnum(), ENOENT);
  EXPECT_EQ(fs_->openDirectory(lookup(kRoot, "l")).errnum(), ENOTDIR);
}

TEST_F(OpenFilesTest, TruncatingAtOpenEmptiesTheFile) {
  InodeNo f = file(kRoot, "f");
  fill(f, "hello");
  const Timestamp before = stat(f).mtime;
  fs_->release(open(f, O_WRONLY | O_TRUNC));
  EXPECT_EQ(stat(f).size, 0u);
  EXPECT_GT(stat(f).mtime, before);
}

TEST_F(OpenFilesTest, AppendWritesAtTheEndWhateverThePosition) {
  InodeNo f = file(kRoot, "f");
  OpenFilePtr file = open(f);
  FileData::WriteFlags append;
  append.append = true;
  for (const char* text : {"one ", "two ", "three"}) {
    EXPECT_TRUE(fs_->write(*file, FileOffset(0), asBytes(text), append).isOk());
  }
  EXPECT_EQ(read(*file, 0, 100), "one two three");
  fs_->release(std::move(file));
}

TEST_F(OpenFilesTest, SeekFindsDataAndHoles) {
  InodeNo f = file(kRoot, "f");
  OpenFilePtr file = open(f);
  write(*file, 64 * KiB, std::string(4096, 'x'));
  EXPECT_EQ(*fs_->lseek(*file, FileOffset(0), SEEK_DATA), FileOffset(64 * KiB));
  EXPECT_EQ(*fs_->lseek(*file, FileOffset(0), SEEK_HOLE), FileOffset(0));
  EXPECT_EQ(fs_->lseek(*file, FileOffset(68 * KiB), SEEK_DATA).errnum(), ENXIO);
  EXPECT_EQ(fs_->lseek(*file, FileOffset(0), SEEK_SET).errnum(), EINVAL);
  fs_->release(std::move(file));
}

TEST_F(OpenFilesTest, CopyRangeCopiesUpToTheEnd) {
  InodeNo a = file(kRoot, "a"), b = file(kRoot, "b");
  OpenFilePtr from = open(a), to = open(b), append = open(b, O_RDWR | O_APPEND);
  std::string text(3 * MiB + 17, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 26);
  write(*from, 0, text);
  auto copy = [&](OpenFile& s, uint64_t at, OpenFile& d, uint64_t to_, uint64_t n) {
    return fs_->copyRange(s, FileOffset(at), d, FileOffset(to_), ByteCount(n));
  };
  EXPECT_EQ(copy(*from, 7, *to, 1, 1 * GiB)->v, text.size() - 7);
  EXPECT_EQ(read(*to, 1, text.size()), text.substr(7));
  EXPECT_EQ(copy(*from, text.size(), *to, 0, 10)->v, 0u);
  EXPECT_EQ(copy(*from, 0, *from, 10, 20).errnum(), EINVAL);
  EXPECT_EQ(copy(*from, 0, *from, 10, 10)->v, 10u);
  EXPECT_EQ(copy(*from, 0, *append, 0, 10).errnum(), EBADF);
  EXPECT_EQ(copy(*from, 0, *to, (uint64_t{1} << 63) - 5, 10).errnum(), EFBIG);
  fs_->release(std::move(from));
  fs_->release(std::move(to));
  fs_->release(std::move(append));
}

TEST_F(OpenFilesTest, AnUnlinkedFileLivesWhileItIsOpenAndIsFreedAfterwards) {
  InodeNo f = file(kRoot, "f");
  OpenFilePtr file = open(f);
  write(*file, 0, std::string(1 * MiB, 'x'));
  EXPECT_TRUE(fs_->fsync(*file, false).isOk());
  const uint64_t available = fs_->statfs().available;
  EXPECT_TRUE(fs_->unlink(caller_, kRoot, "f").isOk());
  EXPECT_EQ(read(*file, 0, 5), "xxxxx");
  write(*file, 3, "abc");
  EXPECT_EQ(inodes(), 2u);
  fs_->release(std::move(file));
  EXPECT_EQ(inodes(), 2u) << "the kernel still knows it";
  fs_->forget(f, 1);
  EXPECT_EQ(inodes(), 1u);
  EXPECT_EQ(fs_->statfs().available, available + 256);
  EXPECT_EQ(fs_->getattr(f).errnum(), ENOENT);
}

TEST_F(OpenFilesTest, UnlinkedFilesAreFreedAfterACrash) {
  OpenFilePtr file = open(this->file(kRoot, "f"));
  write(*file, 0, std::string(64 * KiB, 'x'));
  EXPECT_TRUE(fs_->fsync(*file, false).isOk());
  auto unnamed = fs_->tmpfile(caller_, kRoot, 0600, O_RDWR);
  ASSERT_TRUE(unnamed.isOk());
  InodeNo d = dir(kRoot, "d");
  EXPECT_TRUE(fs_->unlink(caller_, kRoot, "f").isOk());
  EXPECT_TRUE(fs_->rmdir(caller_, kRoot, "d").isOk());
  EXPECT_TRUE(fs_->syncAll().isOk());
  EXPECT_EQ(stat(d).nlink, 0u);
  file.reset();
  unnamed->second.reset();
  crash();
  mount();
  EXPECT_EQ(fs_->stop().errnum(), 0);
  fs_.reset();
  EXPECT_EQ(volume_->close().errnum(), 0);
  volume_.reset();
  auto report = checkVolume(*device_, CheckOptions());
  ASSERT_TRUE(report.isOk());
  EXPECT_TRUE(report->clean());
  EXPECT_EQ(report->inodes, 1u);
  EXPECT_EQ(report->orphans, 0u);
  EXPECT_EQ(report->extents, 0u);
}

TEST_F(OpenFilesTest, WithoutAnOrphanKeyACrashLosesTheSpace) {
  ScopedMutant mutant("names.no_orphan_key");
  InodeNo f = file(kRoot, "f");
  EXPECT_TRUE(fs_->unlink(caller_, kRoot, "f").isOk());
  EXPECT_TRUE(fs_->syncAll().isOk());
  EXPECT_EQ(links(f), 0u);
  crash();
  auto report = checkVolume(*device_, CheckOptions());
  ASSERT_TRUE(report.isOk());
  EXPECT_FALSE(report->clean());
}

TEST_F(OpenFilesTest, AWriterWithoutSpaceWaitsForWhatWasUnlinkedBefore) {
  InodeNo big = file(kRoot, "big"), small = file(kRoot, "small");
  OpenFilePtr file = open(big);
  uint64_t size = 0;
  const std::string chunk(1 * MiB, 'x');
  for (;; size += chunk.size()) {
    auto done = fs_->write(*file, FileOffset(size), asBytes(chunk), {});
    if (done.errnum() == ENOSPC) break;
    ASSERT_TRUE(done.isOk()) << done.status().message();
    if (done->v < chunk.size()) break;
  }
  EXPECT_TRUE(fs_->fsync(*file, false).isOk());
  EXPECT_GT(size, 16 * MiB);
  fs_->release(std::move(file));
  EXPECT_TRUE(fs_->unlink(caller_, kRoot, "big").isOk());
  SyncPoints::instance().delay("reclaimer.before_reclaim", std::chrono::milliseconds(200));
  fs_->forget(big, 1);
  OpenFilePtr next = open(small);
  for (uint64_t pos = 0; pos < size / 2; pos += chunk.size()) write(*next, pos, chunk);
  fs_->release(std::move(next));
}

class DurabilityTest : public FilesystemTest {
 protected:
  // Does `act`, crashes right behind it in the worst way, and mounts what is left.
  template <class Act>
  void crashAfter(Act act) {
    unmount();
    std::unique_ptr<MemoryDevice> base = device_->clone();
    std::unique_ptr<RecordDevice> recorder = RecordDevice::wrap(*device_);
    mount(*recorder);
    act();
    const uint64_t point = recorder->mark();
    const std::vector<RecordedIo> log = recorder->log();
    crash();
    device_ = crashImage(*base, log, point, [](size_t, size_t) { return false; });
    mount();
  }
};

TEST_F(DurabilityTest, FsyncOfADirectoryKeepsItsNames) {
  crashAfter([&] {
    file(kRoot, "f");
    auto root = fs_->openDirectory(kRoot);
    EXPECT_TRUE(fs_->fsyncDirectory(**root).isOk());
    fs_->release(std::move(*root));
  });
  EXPECT_EQ(names(kRoot), std::set<std::string>{"f"});
}

TEST_F(DurabilityTest, FsyncOfAFileKeepsItsNameAndItsRename) {
  crashAfter([&] {
    OpenFilePtr f = open(file(kRoot, "f"));
    write(*f, 0, "kept");
    EXPECT_EQ(renameError(kRoot, "f", kRoot, "g"), 0);
    EXPECT_TRUE(fs_->fsync(*f, false).isOk());
    fs_->release(std::move(f));
  });
  EXPECT_EQ(names(kRoot), std::set<std::string>{"g"});
  OpenFilePtr g = open(lookup(kRoot, "g"));
  EXPECT_EQ(read(*g, 0, 10), "kept");
  fs_->release(std::move(g));
}

TEST_F(DurabilityTest, AWriteToASynchronousFileIsThereAtOnce) {
  for (int flags : {O_SYNC, O_DSYNC}) {
    crashAfter([&] {
      InodeNo ino = file(kRoot, "f" + std::to_string(flags));
      OpenFilePtr f = open(ino, O_RDWR | flags);
      write(*f, 0, "kept");
      fs_->release(std::move(f));
    });
    OpenFilePtr f = open(lookup(kRoot, "f" + std::to_string(flags)));
    EXPECT_EQ(read(*f, 0, 10), "kept");
    fs_->release(std::move(f));
  }
}

TEST_F(DurabilityTest, ADirsyncMountKeepsEveryName) {
  options_.dirsync = true;
  crashAfter([&] {
    InodeNo d = dir(kRoot, "d");
    file(d, "a");
    must(fs_->link(caller_, lookup(d, "a"), kRoot, "b"));
    EXPECT_EQ(renameError(d, "a", d, "c"), 0);
    EXPECT_TRUE(fs_->unlink(caller_, kRoot, "b").isOk());
  });
  EXPECT_EQ(names(kRoot), std::set<std::string>{"d"});
  EXPECT_EQ(names(lookup(kRoot, "d")), std::set<std::string>{"c"});
}

TEST_F(DurabilityTest, TheCommitIntervalBringsChangesToDisk) {
  options_.commitInterval = std::chrono::seconds(1);
  crashAfter([&] {
    file(kRoot, "f");
    Journal& journal = volume_->log().journal();
    const Lsn end = journal.head().end;
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (journal.durable() < end && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    EXPECT_GE(journal.durable(), end);
  });
  EXPECT_EQ(names(kRoot), std::set<std::string>{"f"});
}

TEST_F(DurabilityTest, AfterAFailureEveryFsyncFailsAndNothingChanges) {
  OpenFilePtr f = open(file(kRoot, "f"));
  volume_->failStop(Status::error(EIO, "the test says so"));
  EXPECT_EQ(fs_->fsync(*f, false).errnum(), EIO);
  EXPECT_EQ(fs_->fsync(*f, true).errnum(), EIO);
  EXPECT_EQ(fs_->syncAll().errnum(), EIO);
  EXPECT_EQ(fs_->mkdir(caller_, kRoot, "d", 0755).errnum(), EROFS);
  auto root = fs_->openDirectory(kRoot);
  EXPECT_EQ(fs_->fsyncDirectory(**root).errnum(), EIO);
  fs_->release(std::move(*root));
  fs_->release(std::move(f));
  EXPECT_NE(fs_->stop().errnum(), 0);
  crash();
}

}  // namespace
}  // namespace ourfs::test
