// Filesystem: making, finding and removing names; link counts and times.
#include <thread>

#include "filesystem_fixture.h"
#include "rounds.h"

namespace ourfs::test {
namespace {

class NamesTest : public FilesystemTest {
 protected:
  // Runs `change` and says whether mtime and ctime of `ino` moved.
  template <class Change>
  std::pair<bool, bool> moves(InodeNo ino, Change change) {
    const InodeRecord before = stat(ino);
    change();
    const InodeRecord after = stat(ino);
    return {after.mtime > before.mtime, after.ctime > before.ctime};
  }
  static constexpr std::pair<bool, bool> kBoth{true, true}, kCtime{false, true},
      kNone{false, false};
};

TEST_F(NamesTest, EveryTypeIsMadeAndFoundAgainAfterARemount) {
  caller_.uid = 1000;
  caller_.gid = 100;
  caller_.umask = 022;
  must(fs_->mknod(caller_, kRoot, "file", S_IFREG | 0666, 0));
  must(fs_->mknod(caller_, kRoot, "fifo", S_IFIFO | 0666, 7));
  must(fs_->mknod(caller_, kRoot, "socket", S_IFSOCK | 0666, 0));
  must(fs_->mknod(caller_, kRoot, "char", S_IFCHR | 0666, 0x501));
  must(fs_->mknod(caller_, kRoot, "block", S_IFBLK | 0666, 0x801));
  must(fs_->mkdir(caller_, kRoot, "dir", 0777));
  must(fs_->symlink(caller_, kRoot, "link", "a/target"));
  unmountClean();
  mount();
  struct {
    const char* name;
    uint32_t mode, rdev, nlink;
    uint64_t size;
  } table[] = {{"file", S_IFREG | 0644, 0, 1, 0},      {"fifo", S_IFIFO | 0644, 0, 1, 0},
               {"socket", S_IFSOCK | 0644, 0, 1, 0},   {"char", S_IFCHR | 0644, 0x501, 1, 0},
               {"block", S_IFBLK | 0644, 0x801, 1, 0}, {"dir", S_IFDIR | 0755, 0, 2, 0},
               {"link", S_IFLNK | 0777, 0, 1, 8}};
  for (const auto& row : table) {
    const InodeRecord r = stat(lookup(kRoot, row.name));
    EXPECT_EQ(r.mode, row.mode) << row.name;
    EXPECT_EQ(r.rdev, row.rdev) << row.name;
    EXPECT_EQ(r.nlink, row.nlink) << row.name;
    EXPECT_EQ(r.size, row.size) << row.name;
    EXPECT_EQ(r.uid, 1000u) << row.name;
    EXPECT_EQ(r.gid, 100u) << row.name;
    EXPECT_NE(r.btime.sec, 0) << row.name;
  }
  EXPECT_EQ(*fs_->readlink(lookup(kRoot, "link")), "a/target");
  EXPECT_EQ(names(kRoot).size(), std::size(table));
}

TEST_F(NamesTest, WrongNamesAndTypesAreRefused) {
  InodeNo f = file(kRoot, "f"), d = dir(kRoot, "d");
  file(d, "child");
  const std::string tooLong(256, 'x'), longest(255, 'x'), longTarget(4096, 't');
  EXPECT_EQ(fs_->lookup(kRoot, "none").errnum(), ENOENT);
  EXPECT_EQ(fs_->lookup(kRoot, "").errnum(), ENOENT);
  EXPECT_EQ(fs_->lookup(kRoot, tooLong).errnum(), ENAMETOOLONG);
  EXPECT_EQ(fs_->lookup(f, "x").errnum(), ENOTDIR);
  EXPECT_EQ(fs_->lookup(InodeNo(999), "x").errnum(), ENOENT);
  EXPECT_EQ(fs_->mkdir(caller_, kRoot, "d", 0755).errnum(), EEXIST);
  EXPECT_EQ(fs_->mkdir(caller_, kRoot, ".", 0755).errnum(), EEXIST);
  EXPECT_EQ(fs_->mkdir(caller_, kRoot, tooLong, 0755).errnum(), ENAMETOOLONG);
  EXPECT_EQ(fs_->mkdir(caller_, kRoot, "a/b", 0755).errnum(), EINVAL);
  EXPECT_EQ(fs_->mknod(caller_, f, "x", S_IFREG, 0).errnum(), ENOTDIR);
  EXPECT_EQ(fs_->mknod(caller_, kRoot, "x", S_IFDIR | 0755, 0).errnum(), EPERM);
  EXPECT_EQ(fs_->symlink(caller_, kRoot, "s", longTarget).errnum(), ENAMETOOLONG);
  EXPECT_EQ(fs_->symlink(caller_, kRoot, "s", "").errnum(), ENOENT);
  EXPECT_EQ(fs_->unlink(caller_, kRoot, "none").errnum(), ENOENT);
  EXPECT_EQ(fs_->unlink(caller_, kRoot, "d").errnum(), EISDIR);
  EXPECT_EQ(fs_->rmdir(caller_, kRoot, "f").errnum(), ENOTDIR);
  EXPECT_EQ(fs_->rmdir(caller_, kRoot, "d").errnum(), ENOTEMPTY);
  EXPECT_EQ(fs_->rmdir(caller_, d, ".").errnum(), EINVAL);
  EXPECT_EQ(fs_->rmdir(caller_, d, "..").errnum(), ENOTEMPTY);
  EXPECT_EQ(fs_->link(caller_, d, kRoot, "x").errnum(), EPERM);
  EXPECT_EQ(fs_->link(caller_, f, kRoot, "d").errnum(), EEXIST);
  EXPECT_EQ(fs_->readlink(f).errnum(), EINVAL);
  file(kRoot, longest);
  EXPECT_EQ(lookupError(kRoot, longest), 0);
  must(fs_->symlink(caller_, kRoot, "s", longTarget.substr(1)));
  EXPECT_EQ(*fs_->readlink(lookup(kRoot, "s")), longTarget.substr(1));
}

TEST_F(NamesTest, DotAndDotDotLeadToTheDirectoryAndItsParent) {
  InodeNo d = dir(kRoot, "d"), e = dir(d, "e");
  EXPECT_EQ(lookup(e, "."), e);
  EXPECT_EQ(lookup(e, ".."), d);
  EXPECT_EQ(lookup(d, ".."), kRoot);
  EXPECT_EQ(lookup(kRoot, ".."), kRoot);
}

TEST_F(NamesTest, LinkCountsFollowTheNames) {
  InodeNo d = dir(kRoot, "d"), f = file(kRoot, "f");
  EXPECT_EQ(links(kRoot), 3u);
  dir(d, "sub");
  EXPECT_EQ(links(d), 3u);
  must(fs_->link(caller_, f, d, "g"));
  EXPECT_EQ(links(f), 2u);
  EXPECT_EQ(lookup(d, "g"), f);
  EXPECT_TRUE(fs_->unlink(caller_, kRoot, "f").isOk());
  EXPECT_EQ(links(f), 1u);
  EXPECT_TRUE(fs_->rmdir(caller_, d, "sub").isOk());
  EXPECT_EQ(links(d), 2u);
  EXPECT_TRUE(fs_->unlink(caller_, d, "g").isOk());
  EXPECT_EQ(links(f), 0u);
  EXPECT_TRUE(fs_->rmdir(caller_, kRoot, "d").isOk());
  EXPECT_EQ(links(kRoot), 2u);
}

TEST_F(NamesTest, TimesMoveWhereTheyShould) {
  InodeNo d = dir(kRoot, "d"), f = file(d, "f");
  EXPECT_EQ(moves(d, [&] { file(d, "new"); }), kBoth);
  EXPECT_EQ(moves(d, [&] { dir(d, "sub"); }), kBoth);
  EXPECT_EQ(moves(d, [&] { must(fs_->link(caller_, f, d, "g")); }), kBoth);
  EXPECT_EQ(moves(f, [&] { must(fs_->link(caller_, f, d, "h")); }), kCtime);
  EXPECT_EQ(moves(d, [&] { (void)fs_->unlink(caller_, d, "g"); }), kBoth);
  EXPECT_EQ(moves(f, [&] { (void)fs_->unlink(caller_, d, "h"); }), kCtime);
  EXPECT_EQ(moves(d, [&] { (void)fs_->rmdir(caller_, d, "sub"); }), kBoth);
  EXPECT_EQ(moves(d, [&] { renameError(d, "new", d, "newer"); }), kBoth);
  EXPECT_EQ(moves(f, [&] { renameError(d, "f", d, "f2"); }), kCtime);
  EXPECT_EQ(moves(d, [&] { lookup(d, "f2"); }), kNone);
  EXPECT_EQ(moves(d, [&] { fs_->mkdir(caller_, d, "f2", 0755).errnum(); }), kNone);
}

TEST_F(NamesTest, AFileHasAtMost65000Names) {
  if (test::shortened()) GTEST_SKIP() << "64,999 calls of link() are left to the plain build";
  InodeNo f = file(kRoot, "f"), d = dir(kRoot, "d");
  for (int i = 1; i < 65000; ++i) {
    ASSERT_TRUE(fs_->link(caller_, f, d, std::to_string(i)).isOk()) << i;
  }
  EXPECT_EQ(fs_->link(caller_, f, d, "one more").errnum(), EMLINK);
  EXPECT_EQ(links(f), 65000u);
}

TEST_F(NamesTest, ASetgidDirectoryHandsItsGroupDown) {
  InodeNo d = dir(kRoot, "d", 02775);
  AttributeChange change;
  change.gid = 77;
  must(fs_->setattr(caller_, d, change));
  EXPECT_EQ(stat(d).mode & 07777, 02775u);
  caller_.uid = 5;
  caller_.gid = 6;
  InodeNo f = file(d, "f"), e = dir(d, "e", 0700);
  EXPECT_EQ(stat(f).gid, 77u);
  EXPECT_EQ(stat(f).uid, 5u);
  EXPECT_EQ(stat(f).mode & 07777, 0644u);
  EXPECT_EQ(stat(e).gid, 77u);
  EXPECT_EQ(stat(e).mode & 07777, 02700u);
}

TEST_F(NamesTest, NothingCanBeMadeInARemovedDirectory) {
  InodeNo d = dir(kRoot, "d"), e = dir(kRoot, "e"), f = file(kRoot, "f");
  EXPECT_TRUE(fs_->rmdir(caller_, kRoot, "d").isOk());
  EXPECT_EQ(fs_->mkdir(caller_, d, "x", 0755).errnum(), ENOENT);
  EXPECT_EQ(fs_->mknod(caller_, d, "x", S_IFREG, 0).errnum(), ENOENT);
  EXPECT_EQ(fs_->link(caller_, f, d, "x").errnum(), ENOENT);
  EXPECT_EQ(renameError(kRoot, "e", d, "x"), ENOENT);
  EXPECT_EQ(fs_->tmpfile(caller_, d, 0600, O_RDWR).errnum(), ENOENT);
  EXPECT_TRUE(names(d).empty());
  EXPECT_EQ(links(e), 2u);
}

TEST_F(NamesTest, CreateOpensWhatIsThereUnlessItMustNotBe) {
  auto made = fs_->create(caller_, kRoot, "f", 0600, O_RDWR);
  ASSERT_TRUE(made.isOk());
  write(*made->second, 0, "hello");
  fs_->release(std::move(made->second));
  EXPECT_EQ(fs_->create(caller_, kRoot, "f", 0600, O_RDWR | O_EXCL).errnum(), EEXIST);
  auto again = fs_->create(caller_, kRoot, "f", 0600, O_RDWR);
  ASSERT_TRUE(again.isOk());
  EXPECT_EQ(again->first.ino, made->first.ino);
  EXPECT_EQ(read(*again->second, 0, 100), "hello");
  fs_->release(std::move(again->second));
}

TEST_F(NamesTest, AnUnnamedFileGetsANameByLinkUnlessItIsExclusive) {
  auto made = fs_->tmpfile(caller_, kRoot, 0600, O_RDWR);
  auto exclusive = fs_->tmpfile(caller_, kRoot, 0600, O_RDWR | O_EXCL);
  ASSERT_TRUE(made.isOk() && exclusive.isOk());
  EXPECT_EQ(made->first.record.nlink, 0u);
  EXPECT_TRUE(names(kRoot).empty());
  write(*made->second, 0, "kept");
  EXPECT_EQ(fs_->link(caller_, exclusive->first.ino, kRoot, "x").errnum(), ENOENT);
  must(fs_->link(caller_, made->first.ino, kRoot, "f"));
  EXPECT_EQ(links(made->first.ino), 1u);
  fs_->release(std::move(made->second));
  fs_->release(std::move(exclusive->second));
  unmountClean();
  mount();
  EXPECT_EQ(names(kRoot), std::set<std::string>{"f"});
  OpenFilePtr f = open(lookup(kRoot, "f"));
  EXPECT_EQ(read(*f, 0, 10), "kept");
  fs_->release(std::move(f));
}

TEST_F(NamesTest, AReadOnlyMountChangesNothing) {
  InodeNo f = file(kRoot, "f");
  fill(f, "data");
  unmountClean();
  OpenOptions readOnly;
  readOnly.readOnly = true;
  mount(*device_, readOnly);
  EXPECT_EQ(fs_->mkdir(caller_, kRoot, "d", 0755).errnum(), EROFS);
  EXPECT_EQ(fs_->unlink(caller_, kRoot, "f").errnum(), EROFS);
  EXPECT_EQ(fs_->link(caller_, f, kRoot, "g").errnum(), EROFS);
  EXPECT_EQ(renameError(kRoot, "f", kRoot, "g"), EROFS);
  EXPECT_EQ(fs_->setattr(caller_, f, AttributeChange()).errnum(), EROFS);
  EXPECT_EQ(fs_->setxattr(caller_, f, "user.a", "b", 0).errnum(), EROFS);
  EXPECT_EQ(fs_->removexattr(caller_, f, "user.a").errnum(), EROFS);
  EXPECT_EQ(fs_->open(f, O_RDWR).errnum(), EROFS);
  EXPECT_EQ(fs_->tmpfile(caller_, kRoot, 0600, O_RDWR).errnum(), EROFS);
  OpenFilePtr file = open(f, O_RDONLY);
  EXPECT_EQ(read(*file, 0, 10), "data");
  EXPECT_EQ(fs_->write(*file, FileOffset(0), asBytes("x"), {}).errnum(), EROFS);
  EXPECT_TRUE(fs_->fsync(*file, false).isOk());
  fs_->release(std::move(file));
  EXPECT_TRUE(fs_->syncAll().isOk());
}

}  // namespace
}  // namespace ourfs::test
