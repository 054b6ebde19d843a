// Filesystem: rename.
#include <linux/fs.h>

#include "filesystem_fixture.h"

namespace ourfs::test {
namespace {

class RenameTest : public FilesystemTest {
 protected:
  // kind: "file", "dir" (empty), "full" (a directory with a file), "-" (nothing)
  InodeNo make(InodeNo parent, std::string_view name, const std::string& kind) {
    if (kind == "-") return InodeNo(0);
    if (kind == "file") return file(parent, name);
    InodeNo d = dir(parent, name);
    if (kind == "full") file(d, "inside");
    return d;
  }
};

TEST_F(RenameTest, WhatMayReplaceWhat) {
  struct {
    const char *source, *target;
    int plain, noReplace, exchange;
  } table[] = {
      {"file", "-", 0, 0, ENOENT},           {"dir", "-", 0, 0, ENOENT},
      {"full", "-", 0, 0, ENOENT},           {"-", "-", ENOENT, ENOENT, ENOENT},
      {"-", "file", ENOENT, ENOENT, ENOENT}, {"file", "file", 0, EEXIST, 0},
      {"file", "dir", EISDIR, EEXIST, 0},    {"file", "full", EISDIR, EEXIST, 0},
      {"dir", "file", ENOTDIR, EEXIST, 0},   {"dir", "dir", 0, EEXIST, 0},
      {"dir", "full", ENOTEMPTY, EEXIST, 0}, {"full", "file", ENOTDIR, EEXIST, 0},
      {"full", "dir", 0, EEXIST, 0},         {"full", "full", ENOTEMPTY, EEXIST, 0},
  };
  int round = 0;
  for (const auto& row : table) {
    for (bool crossing : {false, true}) {
      for (auto [flags, expected] :
           {std::pair(0u, row.plain), std::pair(unsigned{RENAME_NOREPLACE}, row.noReplace),
            std::pair(unsigned{RENAME_EXCHANGE}, row.exchange)}) {
        InodeNo a = dir(kRoot, "a" + std::to_string(round)), b = a;
        if (crossing) b = dir(kRoot, "b" + std::to_string(round));
        ++round;
        InodeNo source = make(a, "s", row.source), target = make(b, "t", row.target);
        SCOPED_TRACE(std::string(row.source) + " over " + row.target + " flags " +
                     std::to_string(flags));
        EXPECT_EQ(renameError(a, "s", b, "t", flags), expected);
        const bool swapped = expected == 0 && flags == RENAME_EXCHANGE,
                   moved = expected == 0 && !swapped;
        EXPECT_EQ(lookup(a, "s"), moved ? InodeNo(0) : swapped ? target : source);
        EXPECT_EQ(lookup(b, "t"), moved || swapped ? source : target);
      }
    }
  }
}

TEST_F(RenameTest, WrongFlagsAndNamesAreRefused) {
  file(kRoot, "a");
  EXPECT_EQ(renameError(kRoot, "a", kRoot, "b", 1u << 30), EINVAL);
  EXPECT_EQ(renameError(kRoot, "a", kRoot, "b", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
  EXPECT_EQ(renameError(kRoot, "a", kRoot, "b", RENAME_EXCHANGE | RENAME_WHITEOUT), EINVAL);
  EXPECT_EQ(renameError(kRoot, "a", kRoot, std::string(256, 'b')), ENAMETOOLONG);
  EXPECT_EQ(renameError(kRoot, "a", kRoot, "."), EBUSY);
  EXPECT_EQ(renameError(kRoot, "a", kRoot, ""), ENOENT);
  EXPECT_EQ(names(kRoot), std::set<std::string>{"a"});
}

TEST_F(RenameTest, ADirectoryCannotMoveIntoItself) {
  InodeNo a = dir(kRoot, "a"), b = dir(a, "b"), c = dir(b, "c");
  dir(kRoot, "other");
  EXPECT_EQ(renameError(kRoot, "a", a, "x"), EINVAL);
  EXPECT_EQ(renameError(kRoot, "a", c, "x"), EINVAL);
  EXPECT_EQ(renameError(kRoot, "a", b, "c"), EINVAL);
  EXPECT_EQ(renameError(b, "c", kRoot, "a"), ENOTEMPTY);
  EXPECT_EQ(renameError(b, "c", kRoot, "a", RENAME_EXCHANGE), EINVAL);
  EXPECT_EQ(renameError(kRoot, "a", b, "c", RENAME_EXCHANGE), EINVAL);
  EXPECT_EQ(renameError(a, "b", kRoot, "other"), 0);
  EXPECT_EQ(lookup(lookup(kRoot, "other"), "c"), c);
}

TEST_F(RenameTest, LinkCountsAndParentsFollowADirectory) {
  InodeNo a = dir(kRoot, "a"), b = dir(kRoot, "b"), d = dir(a, "d");
  EXPECT_EQ(renameError(a, "d", b, "e"), 0);
  EXPECT_EQ(links(a), 2u);
  EXPECT_EQ(links(b), 3u);
  EXPECT_EQ(lookup(d, ".."), b);
  InodeNo f = file(a, "f");
  EXPECT_EQ(renameError(a, "f", b, "e", RENAME_EXCHANGE), 0);
  EXPECT_EQ(links(a), 3u);
  EXPECT_EQ(links(b), 2u);
  EXPECT_EQ(lookup(d, ".."), a);
  EXPECT_EQ(lookup(b, "e"), f);
  InodeNo empty = dir(kRoot, "empty");
  EXPECT_EQ(renameError(a, "f", kRoot, "empty"), 0);
  EXPECT_EQ(links(a), 2u);
  EXPECT_EQ(links(empty), 0u);
  EXPECT_EQ(links(kRoot), 5u);
}

TEST_F(RenameTest, TwoNamesOfOneFileStayAsTheyAre) {
  InodeNo f = file(kRoot, "f");
  must(fs_->link(caller_, f, kRoot, "g"));
  EXPECT_EQ(renameError(kRoot, "f", kRoot, "g"), 0);
  EXPECT_EQ(renameError(kRoot, "f", kRoot, "f"), 0);
  EXPECT_EQ(names(kRoot), (std::set<std::string>{"f", "g"}));
  EXPECT_EQ(links(f), 2u);
}

TEST_F(RenameTest, AReplacedFileThatIsOpenStaysReadable) {
  InodeNo old = file(kRoot, "t");
  fill(old, "old");
  fill(file(kRoot, "s"), "new");
  OpenFilePtr open_ = open(old);
  EXPECT_EQ(renameError(kRoot, "s", kRoot, "t"), 0);
  EXPECT_EQ(read(*open_, 0, 10), "old");
  EXPECT_EQ(links(old), 0u);
  OpenFilePtr now = open(lookup(kRoot, "t"));
  EXPECT_EQ(read(*now, 0, 10), "new");
  fs_->release(std::move(now));
  fs_->release(std::move(open_));
}

TEST_F(RenameTest, AWhiteoutStaysWhereTheSourceWas) {
  InodeNo d = dir(kRoot, "d"), f = file(kRoot, "f");
  EXPECT_EQ(renameError(kRoot, "f", d, "f", RENAME_WHITEOUT), 0);
  const InodeRecord left = stat(lookup(kRoot, "f"));
  EXPECT_EQ(left.mode, uint32_t{S_IFCHR});
  EXPECT_EQ(left.rdev, 0u);
  EXPECT_EQ(left.nlink, 1u);
  EXPECT_EQ(lookup(d, "f"), f);
  EXPECT_EQ(renameError(d, "f", d, "g", RENAME_WHITEOUT | RENAME_NOREPLACE), 0);
  EXPECT_EQ(names(d), (std::set<std::string>{"f", "g"}));
}

TEST_F(RenameTest, NamesOfOneBucketMayReplaceEachOther) {
  unmount();
  ASSERT_TRUE(formatVolume(*device_, FormatOptions()).isOk());
  ScopedMutant few("directory.few_buckets");
  mount();
  for (int i = 0; i < 12; ++i) file(kRoot, std::to_string(i));
  for (int i = 0; i < 12; ++i) {
    EXPECT_EQ(renameError(kRoot, std::to_string(i), kRoot, "n" + std::to_string(i)), 0);
    EXPECT_EQ(renameError(kRoot, "n" + std::to_string(i), kRoot, std::to_string((i + 1) % 12)), 0);
  }
  EXPECT_EQ(names(kRoot), std::set<std::string>{"0"});
  unmount();
}

}  // namespace
}  // namespace ourfs::test
