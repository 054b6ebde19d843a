// Filesystem: stat, setattr, xattrs, statfs, stats.
#include <sys/xattr.h>

#include <nlohmann/json.hpp>

#include "filesystem_fixture.h"

namespace ourfs::test {
namespace {

class AttributesTest : public FilesystemTest {
 protected:
  int change(InodeNo ino, const std::function<void(AttributeChange&)>& edit) {
    AttributeChange c;
    edit(c);
    return fs_->setattr(caller_, ino, c).errnum();
  }
  int set(InodeNo ino, std::string_view name, std::string_view value, int flags = 0) {
    return fs_->setxattr(caller_, ino, name, value, flags).errnum();
  }
  std::string get(InodeNo ino, std::string_view name) {
    auto value = fs_->getxattr(ino, name);
    return value.isOk() ? *value : "errno " + std::to_string(value.errnum());
  }
};

const std::string kNoData = "errno " + std::to_string(ENODATA);

TEST_F(AttributesTest, ChangesAreThereAfterARemount) {
  InodeNo f = file(kRoot, "f");
  EXPECT_EQ(change(f, [](auto& c) { c.mode = 04711; }), 0);
  EXPECT_EQ(change(f, [](auto& c) { c.atime = Timestamp{-1, 999999999}; }), 0);
  EXPECT_EQ(change(f, [](auto& c) { c.mtime = Timestamp{INT64_MAX, 1}; }), 0);
  EXPECT_EQ(change(f, [](auto& c) { c.size = 12345; }), 0);
  EXPECT_EQ(change(f, [](auto& c) { c.mtime = Timestamp{INT64_MIN, 1}; }), 0);
  unmountClean();
  mount();
  const InodeRecord r = stat(f);
  EXPECT_EQ(r.mode, S_IFREG | 04711u);
  EXPECT_EQ(r.atime, (Timestamp{-1, 999999999}));
  EXPECT_EQ(r.mtime, (Timestamp{INT64_MIN, 1}));
  EXPECT_EQ(r.size, 12345u);
  EXPECT_EQ(r.blocks, 0u);
}

TEST_F(AttributesTest, EveryChangeMovesCtime) {
  InodeNo f = file(kRoot, "f");
  const std::vector<std::function<void(AttributeChange&)>> changes = {
      [](auto& c) { c.mode = 0600; },     [](auto& c) { c.uid = 3; },
      [](auto& c) { c.gid = 3; },         [](auto& c) { c.size = 10; },
      [](auto& c) { c.atimeNow = true; }, [](auto& c) { c.mtime = Timestamp{5, 5}; }};
  for (const auto& edit : changes) {
    const Timestamp before = stat(f).ctime;
    EXPECT_EQ(change(f, edit), 0);
    EXPECT_GT(stat(f).ctime, before);
  }
  EXPECT_EQ(change(f, [](auto& c) { c.ctime = Timestamp{7, 7}; }), 0);
  EXPECT_EQ(stat(f).ctime, (Timestamp{7, 7}));
}

TEST_F(AttributesTest, OwnerChangesTakePrivilegesAway) {
  struct {
    uint32_t before, after;
  } table[] = {{06755, 0755}, {06745, 02745}, {04644, 0644}, {01755, 01755}};
  for (const auto& row : table) {
    InodeNo f = file(kRoot, "f" + std::to_string(row.before));
    EXPECT_EQ(change(f, [&](auto& c) { c.mode = row.before; }), 0);
    EXPECT_EQ(set(f, "security.capability", "cap"), 0);
    EXPECT_EQ(change(f, [](auto& c) { c.uid = 9; }), 0);
    EXPECT_EQ(stat(f).mode & 07777, row.after);
    EXPECT_EQ(get(f, "security.capability"), kNoData);
  }
  InodeNo d = dir(kRoot, "d", 02755);
  EXPECT_EQ(change(d, [](auto& c) { c.gid = 9; }), 0);
  EXPECT_EQ(stat(d).mode & 07777, 02755u);
}

TEST_F(AttributesTest, TruncateByTheUnprivilegedTakesPrivilegesAway) {
  InodeNo f = file(kRoot, "f", 06755);
  EXPECT_EQ(change(f, [](auto& c) { c.size = 1; }), 0);
  EXPECT_EQ(stat(f).mode & 07777, 06755u);
  EXPECT_EQ(change(f, [](auto& c) { c.size = 0, c.killPrivileges = true; }), 0);
  EXPECT_EQ(stat(f).mode & 07777, 0755u);
}

TEST_F(AttributesTest, WrongChangesAreRefused) {
  InodeNo f = file(kRoot, "f"), d = dir(kRoot, "d");
  EXPECT_EQ(change(d, [](auto& c) { c.size = 0; }), EISDIR);
  EXPECT_EQ(change(f, [](auto& c) { c.size = uint64_t{1} << 63; }), EFBIG);
  EXPECT_EQ(change(f, [](auto& c) { c.size = (uint64_t{1} << 63) - 1; }), 0);
  EXPECT_EQ(change(f, [](auto& c) { c.size = 0; }), 0);
  EXPECT_EQ(change(f, [](auto& c) { c.atime = Timestamp{0, 1000000000}; }), EINVAL);
  EXPECT_EQ(change(InodeNo(999), [](auto& c) { c.mode = 0; }), ENOENT);
  must(fs_->mknod(caller_, kRoot, "fifo", S_IFIFO, 0));
  EXPECT_EQ(change(lookup(kRoot, "fifo"), [](auto& c) { c.size = 0; }), EINVAL);
}

TEST_F(AttributesTest, XattrsAreSetReplacedListedAndRemoved) {
  InodeNo f = file(kRoot, "f");
  EXPECT_EQ(get(f, "user.a"), kNoData);
  EXPECT_EQ(set(f, "user.a", "1", XATTR_REPLACE), ENODATA);
  EXPECT_EQ(set(f, "user.a", "1", XATTR_CREATE), 0);
  EXPECT_EQ(set(f, "user.a", "2", XATTR_CREATE), EEXIST);
  EXPECT_EQ(set(f, "user.a", "", XATTR_REPLACE), 0);
  EXPECT_EQ(get(f, "user.a"), "");
  const std::string big(65536, 'v'), longName = "user." + std::string(250, 'n');
  EXPECT_EQ(set(f, "trusted.b", big), 0);
  EXPECT_EQ(set(f, longName, "x"), 0);
  EXPECT_EQ(set(f, "security.capability", "cap"), 0);
  unmountClean();
  mount();
  EXPECT_EQ(get(f, "trusted.b"), big);
  EXPECT_EQ(get(f, longName), "x");
  EXPECT_EQ(get(f, "security.capability"), "cap");
  EXPECT_EQ(fs_->listxattr(f)->size(), 7 + 10 + 256 + 20u);
  EXPECT_EQ(fs_->removexattr(caller_, f, "user.a").errnum(), 0);
  EXPECT_EQ(fs_->removexattr(caller_, f, "user.a").errnum(), ENODATA);
  for (const std::string& name :
       {std::string("trusted.b"), longName, std::string("security.capability")}) {
    EXPECT_EQ(fs_->removexattr(caller_, f, name).errnum(), 0);
  }
  EXPECT_EQ(*fs_->listxattr(f), "");
  EXPECT_EQ(stat(f).flags, 0u);
}

TEST_F(AttributesTest, XattrsOutOfBoundsAreRefused) {
  InodeNo f = file(kRoot, "f");
  EXPECT_EQ(set(f, "user." + std::string(251, 'n'), "x"), ERANGE);
  EXPECT_EQ(set(f, "", "x"), ERANGE);
  EXPECT_EQ(set(f, "user.", "x"), EINVAL);
  EXPECT_EQ(set(f, "other.a", "x"), EOPNOTSUPP);
  EXPECT_EQ(set(f, "system.other", "x"), EOPNOTSUPP);
  EXPECT_EQ(set(f, "user.a", std::string(65537, 'v')), E2BIG);
  EXPECT_EQ(set(f, "user.a", "x", 64), EINVAL);
  int kept = 0, errnum = 0;
  while (errnum == 0 && kept < 1000) {
    errnum = set(f, "user." + std::string(240, 'n') + std::to_string(1000 + kept), "x");
    if (errnum == 0) ++kept;
  }
  EXPECT_EQ(errnum, ENOSPC);
  EXPECT_EQ(kept, 65536 / 250);
  EXPECT_LE(fs_->listxattr(f)->size(), 65536u);
}

TEST_F(AttributesTest, AtimeFollowsTheMountOption) {
  InodeNo f = file(kRoot, "f");
  fill(f, "x");
  for (AtimeMode mode : {AtimeMode::None, AtimeMode::Relative, AtimeMode::Strict}) {
    unmount();
    options_.atime = mode;
    mount();
    OpenFilePtr file = open(f);
    const Timestamp old{100, 0};
    EXPECT_EQ(change(f, [&](auto& c) { c.atime = old; }), 0);
    read(*file, 0, 1);
    const Timestamp first = stat(f).atime;
    EXPECT_EQ(first == old, mode == AtimeMode::None);
    read(*file, 0, 1);
    EXPECT_EQ(stat(f).atime == first, mode != AtimeMode::Strict);
    fs_->release(std::move(file));
  }
  const Timestamp last = stat(f).atime;
  unmount();
  mount();
  EXPECT_EQ(stat(f).atime, last);
}

TEST_F(AttributesTest, SizeAndBlocksCountWhatIsNotOnDiskYet) {
  InodeNo f = file(kRoot, "f");
  OpenFilePtr file = open(f);
  write(*file, 0, std::string(100000, 'x'));
  EXPECT_EQ(stat(f).size, 100000u);
  EXPECT_EQ(stat(f).blocks, roundUp(100000, 4096));
  EXPECT_TRUE(fs_->fsync(*file, false).isOk());
  EXPECT_EQ(stat(f).blocks, roundUp(100000, 4096));
  fs_->release(std::move(file));
}

TEST_F(AttributesTest, StatfsCountsPromisedSpaceAndInodes) {
  const StatfsReply before = fs_->statfs();
  InodeNo f = file(kRoot, "f");
  OpenFilePtr open_ = open(f);
  write(*open_, 0, std::string(1 * MiB, 'x'));
  const StatfsReply after = fs_->statfs();
  EXPECT_EQ(before.available - after.available, 256u);
  EXPECT_EQ(after.files - after.filesFree, before.files - before.filesFree + 1);
  EXPECT_EQ(before.files - before.filesFree, 1u);
  EXPECT_LE(after.available, after.free);
  EXPECT_LE(after.free, after.blocks);
  fs_->release(std::move(open_));
  unmountClean();
  mount();
  EXPECT_EQ(fs_->statfs().files - fs_->statfs().filesFree, 2u);
}

TEST_F(AttributesTest, StatsAreTextAndJson) {
  fill(file(kRoot, "f"), "x");
  const auto json = nlohmann::json::parse(fs_->stats(true));
  EXPECT_EQ(json["volume"]["inodes"], 2);
  EXPECT_GE(json["journal"]["appends"], 1);
  const std::string text = fs_->stats(false);
  EXPECT_NE(text.find("volume.inodes 2\n"), text.npos);
  EXPECT_NE(text.find("cache.dirty_bytes 4096\n"), text.npos);
}

}  // namespace
}  // namespace ourfs::test
