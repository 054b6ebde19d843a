// fsck: every kind of damage of docs/fsck.md that the index can hold, each alone and several at
// once. After a mend a second run finds nothing, and all that is there can be read.
#include <algorithm>

#include "check_fixture.h"
#include "random_seed.h"
#include "rounds.h"

namespace ourfs::test {
namespace {

class DamageTest;

struct Damage {
  const char* name;
  void (*inject)(DamageTest& v, Transaction& t);
  std::vector<std::string> lines;  // a part of each problem that fsck must find, and of no other
};

void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.name; }

class DamageTest : public CheckTest, public ::testing::WithParamInterface<Damage> {
 public:
  // ---- what the table is written with ----
  using CheckTest::record;
  InodeNo ino(const char* path) { return ino_.at(path); }
  static void put(Transaction& t, std::string key, std::string value) {
    t.put(std::move(key), std::move(value));
  }
  void change(Transaction& t, const char* path, const std::function<void(InodeRecord&)>& how) {
    changeAt(t, *path == '\0' ? kRoot : ino(path), how);
  }
  void changeAt(Transaction& t, InodeNo number, const std::function<void(InodeRecord&)>& how) {
    InodeRecord changed = record(number);
    how(changed);
    putRecord(t, number, changed);
  }
  static void newInode(Transaction& t, InodeNo number, uint32_t mode, uint32_t nlink) {
    InodeRecord made;
    made.mode = mode;
    made.nlink = nlink;
    t.put(inodeKey(number), encodeInode(number, made));
  }
  void name(Transaction& t, InodeNo dir, std::string_view text, InodeNo to, uint8_t type = DT_REG) {
    putName(t, dir, text, to, type);
  }
  void slot(Transaction& t, std::string_view text, uint64_t number, const DirentRecord& r) {
    t.put(direntKey(kRoot, cookieOf(text) + number), encodeDirent(r));
  }
  DirentRecord dirent(std::string_view text, const char* to, bool more = false) {
    DirentRecord r = direntTo(text, ino(to));
    r.more = more;
    return r;
  }
  void noName(Transaction& t, InodeNo dir, const char* text) { eraseName(t, dir, text); }
  void extent(Transaction& t, InodeNo number, uint64_t offset, uint64_t block, uint64_t blocks,
              StoredExtentState state = StoredExtentState::Unwritten) {
    putExtent(t, number, offset, {block, blocks, state});
  }
  uint64_t blockOf(const char* path) { return extents(ino(path)).begin()->second.block; }
  uint64_t poolBlock() { return volume_->index().ownedBlocks().front().start.v; }
  uint64_t generation() { return volume_->superblock().generation; }
  static constexpr uint64_t kLast = 32 * MiB / kBlock - 1;  // block

 protected:
  void injectAll(const std::vector<const Damage*>& kinds) {
    damage([&](Transaction& t) {
      for (const Damage* kind : kinds) kind->inject(*this, t);
    });
  }
  // Reads everything from the root.
  void readAll(InodeNo dir) {
    auto opened = fs_->openDirectory(dir);
    ASSERT_TRUE(opened.isOk()) << opened.status().message();
    const std::vector<Listed> found = list(**opened, 0, SIZE_MAX);
    fs_->release(std::move(*opened));
    for (const Listed& each : found) {
      if (each.name == "." || each.name == "..") continue;
      ASSERT_EQ(lookup(dir, each.name), each.ino) << each.name;
      const InodeRecord r = stat(each.ino);
      EXPECT_EQ(IFTODT(r.mode), each.type) << each.name;
      EXPECT_TRUE(fs_->listxattr(each.ino).isOk());
      if (S_ISDIR(r.mode)) readAll(each.ino);
      EXPECT_TRUE(!S_ISLNK(r.mode) || fs_->readlink(each.ino).isOk()) << each.name;
      if (!S_ISREG(r.mode) || r.size > MiB) continue;
      OpenFilePtr file = open(each.ino, O_RDONLY);
      EXPECT_EQ(read(*file, 0, r.size).size(), r.size) << each.name;
      fs_->release(std::move(file));
    }
  }
};

const std::string kCount = "number of names is";
const std::string kLost = "lost: no name leads to it";
const std::string kSnapshot = "the free-space snapshot calls";
const std::string kKey = "a key that no kind of record has";

const Damage kKinds[] = {
    // ---- inodes ----
    {"LinkCount",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.nlink = 7; }); },
     {"link count is 7, should be 2"}},
    {"LinkCountZero",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.nlink = 0; }); },
     {"link count is 0, should be 2"}},
    {"DirectoryCounts",
     [](auto& v, auto& t) {
       v.change(t, "dir", [](auto& r) { r.nlink = 9, r.entries = 100, r.parent = 12345; });
     },
     {"link count is 9", "number of names is 100", "parent is 12345, should be 1"}},
    {"RootParent",
     [](auto& v, auto& t) { v.change(t, "", [](auto& r) { r.parent = 7; }); },
     {"parent is 7, should be 1"}},
    {"AllocatedBytes",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.blocks = 512; }); },
     {"bytes allocated are 512, should be 40960"}},
    {"AllocatedBytesOfALink",
     [](auto& v, auto& t) { v.change(t, "symlink", [](auto& r) { r.blocks = 4096; }); },
     {"bytes allocated are 4096, should be 0"}},
    {"SizeInFrontOfTheData",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.size = 5000; }); },
     {"size is 5000, should be 40960"}},
    {"SizeBeyondAnyFile",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.size = UINT64_MAX; }); },
     {"size is 18446744073709551615, should be 40960"}},
    {"SizeOfADirectory",
     [](auto& v, auto& t) { v.change(t, "empty", [](auto& r) { r.size = 77; }); },
     {"a size, but it is neither a file nor a link"}},
    {"SizeOfAPipe",
     [](auto& v, auto& t) { v.change(t, "pipe", [](auto& r) { r.size = 77; }); },
     {"a size, but it is neither a file nor a link"}},
    {"UnknownType",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.mode = 0170644; }); },
     {"its type is unknown"}},
    {"UnknownFlags",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.flags |= 1u << 20; }); },
     {"unknown flags"}},
    {"DeviceNumberOfAFile",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.rdev = 0x801; }); },
     {"a device number, but it is no device"}},
    {"TargetOfAFile",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.symlink = "x"; }); },
     {"a target, but it is no symbolic link"}},
    {"ParentOfAFile",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.parent = 1; }); },
     {"names or a parent, but it is no directory"}},
    {"NamesInAFile",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.entries = 3; }); },
     {"names or a parent, but it is no directory"}},
    {"LinkWithoutTarget",
     [](auto& v, auto& t) { v.change(t, "symlink", [](auto& r) { r.symlink.clear(); }); },
     {"a symbolic link without a target", "\"symlink\" leads to inode", kCount}},
    {"LinkSize",
     [](auto& v, auto& t) { v.change(t, "symlink", [](auto& r) { r.size = 3; }); },
     {"a symbolic link of size 3 with a target of 9 bytes"}},
    {"LinkWithANul",
     [](auto& v, auto& t) { v.change(t, "symlink", [](auto& r) { r.symlink[3] = '\0'; }); },
     {"the target of a symbolic link has a NUL"}},
    {"LinkTooLong",  // no record with such a target can be read
     [](auto& v, auto& t) { v.change(t, "symlink", [](auto& r) { r.symlink.resize(4096, 'x'); }); },
     {"a field is out of range", "\"symlink\" leads to inode", kCount}},
    {"UnreadableFile",
     [](auto& v, auto& t) { v.put(t, inodeKey(v.ino("file")), "?"); },
     {"wrong checksum: it was a file"}},
    {"UnreadableDirectory",
     [](auto& v, auto& t) { v.put(t, inodeKey(v.ino("dir")), ""); },
     {"wrong checksum: it was a directory"}},
    {"UnreadablePipe",
     [](auto& v, auto& t) { v.put(t, inodeKey(v.ino("pipe")), "??????????"); },
     {"wrong checksum", "\"pipe\" leads to inode", kCount}},
    {"UnreadableRoot",
     [](auto& v, auto& t) { v.put(t, inodeKey(kRoot), "?"); },
     {"wrong checksum: it was a directory"}},
    {"InodeUnderAnotherNumber",  // its checksum covers the key
     [](auto& v, auto& t) {
       v.put(t, inodeKey(v.ino("file")), encodeInode(v.ino("other"), v.record(v.ino("other"))));
     },
     {"wrong checksum: it was a file"}},
    {"NoRoot", [](auto&, auto& t) { t.erase(inodeKey(kRoot)); }, {"the root directory is missing"}},
    {"RootIsAFile",
     [](auto& v, auto& t) {
       v.change(t, "", [](auto& r) { r.mode = S_IFREG | 0644, r.nlink = 0, r.entries = 0, r.parent = 0; });
     },
     {"the root directory is missing"}},
    {"MissingFile",
     [](auto& v, auto& t) { t.erase(inodeKey(v.ino("small"))); },
     {"\"small\" leads to inode", kCount, "belongs to no regular file", kSnapshot}},
    {"ImpossibleNumber",
     [](auto& v, auto& t) { v.newInode(t, InodeNo(UINT64_MAX), S_IFREG | 0644, 1); },
     {"no inode can have that number"}},
    {"UnreadableImpossibleNumber",
     [](auto& v, auto& t) { v.put(t, inodeKey(InodeNo(UINT64_MAX)), "?"); },
     {"inode 18446744073709551615: wrong checksum"}},
    // ---- orphans ----
    {"OrphanWithoutInode",
     [](auto& v, auto& t) { v.put(t, orphanKey(InodeNo(999)), ""); },
     {"orphan list: inode 999 does not exist"}},
    {"OrphanWithNames",
     [](auto& v, auto& t) { v.put(t, orphanKey(v.ino("file")), ""); },
     {"still has names"}},
    {"OrphanWithAValue",
     [](auto& v, auto& t) {
       v.newInode(t, InodeNo(60000), S_IFREG | 0644, 0);
       v.put(t, orphanKey(InodeNo(60000)), "x");
     },
     {"orphan list: inode 60000 has a value"}},
    {"RootIsAnOrphan",
     [](auto& v, auto& t) {
       v.put(t, orphanKey(kRoot), "");
       v.change(t, "", [](auto& r) { r.nlink = 0; });
     },
     {"orphan list: the root directory is on it", "link count is 0, should be 4"}},
    {"UnlinkedButNoOrphan",
     [](auto& v, auto& t) { v.newInode(t, InodeNo(60001), S_IFREG | 0644, 0); },
     {"inode 60001: unlinked, but not on the orphan list"}},
    // ---- names ----
    {"NameOfNothing",
     [](auto& v, auto& t) { v.name(t, v.ino("dir"), "ghost", InodeNo(999)); },
     {"name \"ghost\" leads to inode 999, which does not exist"}},
    {"NameWithControlCharacters",
     [](auto& v, auto& t) { v.name(t, v.ino("dir"), "\x1b[2J\"\n", InodeNo(999)); },
     {R"(name "\x1b[2J\x22\x0a" leads to inode 999)"}},
    {"NameOfTheWrongType",
     [](auto& v, auto& t) { v.name(t, kRoot, "file", v.ino("file"), DT_DIR); },
     {"name \"file\" has the wrong type"}},
    {"NameUnderAnotherHash",
     [](auto& v, auto& t) {
       v.noName(t, kRoot, "other");
       v.slot(t, "elsewhere", 0, v.dirent("other", "other"));
     },
     {"name \"other\" lies under the hash of another name"}},
    {"NameTwice",
     [](auto& v, auto& t) {
       v.slot(t, "file", 0, v.dirent("file", "file", true));
       v.slot(t, "file", 1, v.dirent("file", "other"));
     },
     {"name \"file\" appears twice"}},
    {"GapInAChain",
     [](auto& v, auto& t) {
       v.noName(t, kRoot, "holes");
       v.slot(t, "holes", 1, v.dirent("holes", "holes"));
     },
     {"a chain of names with one hash has a gap"}},
    {"ChainPromisesMore",
     [](auto& v, auto& t) { v.slot(t, "file", 0, v.dirent("file", "file", true)); },
     {"a chain of names with one hash has a gap"}},
    {"UnreadableName",
     [](auto& v, auto& t) { v.put(t, direntKey(v.ino("dir"), 256), "\x77"); },
     {"a name cannot be read"}},
    {"NameIsADot",
     [](auto& v, auto& t) { v.put(t, direntKey(v.ino("dir"), 512), "\x11\x08\x05."); },
     {"a name cannot be read"}},
    {"NameWithASlash",
     [](auto& v, auto& t) { v.put(t, direntKey(v.ino("dir"), 768), "\x11\x08\x05" "a/b"); },
     {"a name cannot be read"}},
    {"NameInAFile",
     [](auto& v, auto& t) { v.name(t, v.ino("file"), "a", v.ino("other")); },
     {"name \"a\" belongs to inode"}},
    {"NameInNothing",
     [](auto& v, auto& t) { v.name(t, InodeNo(999), "b", v.ino("other")); },
     {"name \"b\" belongs to inode 999, which is no directory"}},
    {"SecondNameOfADirectory",
     [](auto& v, auto& t) { v.name(t, kRoot, "again", v.ino("dir/sub"), DT_DIR); },
     {"is a second name of a directory"}},
    {"NameOfTheRoot",
     [](auto& v, auto& t) { v.name(t, v.ino("dir"), "top", kRoot, DT_DIR); },
     {"name \"top\" is a second name of a directory"}},
    {"LostFile",
     [](auto& v, auto& t) {
       v.noName(t, kRoot, "other");
       v.change(t, "", [](auto& r) { --r.entries; });
     },
     {kLost}},
    {"LostDirectory",
     [](auto& v, auto& t) {
       v.noName(t, kRoot, "dir");
       v.change(t, "", [](auto& r) { --r.entries, --r.nlink; });
     },
     {kLost}},
    {"Circle",  // dir lies in its own sub
     [](auto& v, auto& t) {
       v.noName(t, kRoot, "dir");
       v.change(t, "", [](auto& r) { --r.entries, --r.nlink; });
       v.change(t, "dir", [&](auto& r) { r.parent = v.ino("dir/sub").v; });
       v.change(t, "dir/sub", [](auto& r) { ++r.entries, ++r.nlink; });
       v.name(t, v.ino("dir/sub"), "dir", v.ino("dir"), DT_DIR);
     },
     {"a directory in a circle that the root does not reach"}},
    // ---- attributes ----
    {"AttributeWithoutInode",
     [](auto& v, auto& t) { v.put(t, xattrKey(InodeNo(999), "user.a"), "1"); },
     {"extended attribute \"user.a\" of inode 999, which does not exist"}},
    {"AttributeOfNoNamespace",
     [](auto& v, auto& t) { v.put(t, xattrKey(v.ino("other"), "none.a"), "1"); },
     {"\"none.a\": no attribute has such a name"}},
    {"AttributeWithANul",
     [](auto& v, auto& t) {
       v.put(t, xattrKey(v.ino("other"), std::string("user.a\0b", 8)), "1");
     },
     {R"("user.a\x00b": no attribute has such a name)"}},
    {"AttributeTooLarge",
     [](auto& v, auto& t) {
       v.put(t, xattrKey(v.ino("other"), "user.big"), std::string(65537, 'x'));
     },
     {"\"user.big\": its value is larger than 64 KiB"}},
    {"AttributesTooMany",
     [](auto& v, auto& t) {
       for (int i = 0; i < 262; ++i)
         v.put(t, xattrKey(v.ino("other"), "user." + std::string(240, 'm') + std::to_string(1000 + i)), "");
       v.put(t, xattrKey(v.ino("other"), "user.z" + std::string(249, 'z')), "");
     },
     {"the names of its inode take more than 64 KiB"}},
    {"NoAccessList",
     [](auto& v, auto& t) {
       v.put(t, xattrKey(v.ino("dir"), "system.posix_acl_access"), "\x02garbage");
     },
     {"\"system.posix_acl_access\": it is no access list", "its flags tell of attributes"}},
    {"EmptyAccessList",
     [](auto& v, auto& t) { v.put(t, xattrKey(v.ino("dir"), "system.posix_acl_access"), ""); },
     {"it is no access list", "its flags tell of attributes"}},
    {"AccessListOfALink",
     [](auto& v, auto& t) {
       v.put(t, xattrKey(v.ino("symlink"), "system.posix_acl_access"), aclOf("u::rwx,g::r-x,o::---"));
     },
     {"a symbolic link has no access list"}},
    {"DefaultListOfAFile",
     [](auto& v, auto& t) {
       v.put(t, xattrKey(v.ino("other"), "system.posix_acl_default"), aclOf("u::rwx,g::r-x,o::---"));
     },
     {"it is for directories"}},
    {"AccessListAgainstTheMode",
     [](auto& v, auto& t) { v.change(t, "dir", [](auto& r) { r.mode = S_IFDIR | 0707; }); },
     {"it does not agree with the mode"}},
    {"FlagsDenyAttributes",
     [](auto& v, auto& t) { v.change(t, "other", [](auto& r) { r.flags = 0; }); },
     {"has attributes that its flags deny"}},
    {"FlagsTellOfAttributes",
     [](auto& v, auto& t) { v.change(t, "file", [](auto& r) { r.flags = 3; }); },
     {"its flags tell of attributes that it does not have"}},
    // ---- extents ----
    {"ExtentOverTheSuperblock",
     [](auto& v, auto& t) { v.extent(t, v.ino("file"), MiB, 0, 1); },
     {"lies outside the volume"}},
    {"ExtentOverTheJournal",
     [](auto& v, auto& t) {
       v.extent(t, v.ino("file"), MiB, v.poolBlock() - 1, 1, StoredExtentState::Mapped);
     },
     {"lies outside the volume"}},
    {"ExtentBeyondTheVolume",
     [](auto& v, auto& t) { v.extent(t, v.ino("file"), MiB, v.kLast, 2); },
     {"lies outside the volume"}},
    {"ExtentThatOverflows",
     [](auto& v, auto& t) { v.extent(t, v.ino("file"), MiB, 100, UINT64_MAX - 100); },
     {"lies outside the volume"}},
    {"ExtentMisaligned",
     [](auto& v, auto& t) { v.extent(t, v.ino("file"), MiB + 512, v.kLast, 1); },
     {"is misaligned or lies behind the end of any file", kSnapshot}},
    {"ExtentBehindAnyFile",
     [](auto& v, auto& t) { v.extent(t, v.ino("file"), uint64_t{1} << 63, v.kLast - 1, 1); },
     {"is misaligned or lies behind the end of any file", kSnapshot}},
    {"ExtentsOfAFileOverlap",
     [](auto& v, auto& t) { v.extent(t, v.ino("file"), 9 * 4096, v.kLast - 5, 3); },
     {"overlaps the extent before it", kSnapshot}},
    {"ExtentOfADirectory",
     [](auto& v, auto& t) { v.extent(t, v.ino("empty"), 0, v.kLast - 6, 1); },
     {"belongs to no regular file", kSnapshot}},
    {"ExtentOfNothing",
     [](auto& v, auto& t) { v.extent(t, InodeNo(999), 0, v.kLast - 7, 1); },
     {"inode 999: extent at 0 belongs to no regular file", kSnapshot}},
    {"UnreadableExtent",
     [](auto& v, auto& t) { v.put(t, extentKey(v.ino("file"), FileOffset(MiB)), "?"); },
     {"at 1048576: wrong checksum"}},
    {"BlockOfTwoFiles",
     [](auto& v, auto& t) { v.extent(t, v.ino("nothing"), 0, v.blockOf("other"), 2); },
     {"is used twice: by inode", "bytes allocated are 0, should be 8192"}},
    {"BlockOfTheIndex",
     [](auto& v, auto& t) { v.extent(t, v.ino("nothing"), MiB, v.poolBlock() + 3, 2); },
     {"is used twice: by the index", "bytes allocated are 0, should be 8192"}},
    // ---- keys and settings ----
    {"KeyOfNoKind",
     [](auto& v, auto& t) {
       for (const char* key : {"?", "\xff\xff", "C", "I123", "Gx", "X12345678"}) v.put(t, key, "v");
     },
     {kKey, kKey, kKey, kKey, kKey, kKey}},
    {"KeyOfInodeZero",
     [](auto& v, auto& t) { v.put(t, inodeKey(InodeNo(0)), "v"); },
     {kKey}},
    {"NextInodeTooLow",
     [](auto& v, auto& t) { v.put(t, settingKey("next_inode"), std::string(8, '\1').replace(1, 7, 7, '\0')); },
     {"the next inode number (1) cannot be right"}},
    {"NextInodeImpossible",
     [](auto& v, auto& t) { v.put(t, settingKey("next_inode"), std::string(8, '\xff')); },
     {"the next inode number (18446744073709551615) cannot be right"}},
    {"NextInodeUnreadable",
     [](auto& v, auto& t) { v.put(t, settingKey("next_inode"), "short"); },
     {"the next inode number (0) cannot be right"}},
    {"NextInodeMissing",
     [](auto&, auto& t) { t.erase(settingKey("next_inode")); },
     {"the next inode number (0) cannot be right"}},
    {"NumberOfInodes",
     [](auto& v, auto& t) {
       std::string value;
       Encoder e(value);
       e.u64(v.generation() + 1);  // that of the unmount which the damage is followed by
       e.u64(12345);
       v.put(t, settingKey("inodes"), value);
     },
     {"the number of inodes is 12345, should be 13"}},
    {"NumberOfInodesUnreadable",
     [](auto& v, auto& t) { v.put(t, settingKey("inodes"), "short"); },
     {"the number of inodes cannot be read"}},
};

TEST_P(DamageTest, IsFoundAndMendedAtOnce) {
  injectAll({&GetParam()});
  expectMended(GetParam().lines);
  readAll(kRoot);
  unmount();
  expectLines(look(), {});
}

INSTANTIATE_TEST_SUITE_P(Kinds, DamageTest, ::testing::ValuesIn(kKinds),
                         [](const auto& kind) { return std::string(kind.param.name); });

using SeveralTest = DamageTest;

// In twos to fives, in any combination. What one mend uncovers, the same run mends.
TEST_F(SeveralTest, KindsAtOnceAreMendedAtOnce) {
  const uint64_t seed = randomSeed("SeveralTest");
  const auto sound = device_->clone();
  const int combinations = fullRun() ? 1000 : rounds(80);
  for (int i = 0; i < combinations; ++i) {
    Random random(seed + static_cast<uint64_t>(i));
    std::vector<const Damage*> kinds;
    std::string names = "OURFS_SEED=" + std::to_string(seed + static_cast<uint64_t>(i)) + ":";
    for (uint64_t n = random.between(2, 5); kinds.size() < n;) {
      const Damage* kind = &kKinds[random.below(std::size(kKinds))];
      if (std::find(kinds.begin(), kinds.end(), kind) != kinds.end()) continue;
      kinds.push_back(kind);
      names += std::string(" ") + kind->name;
    }
    SCOPED_TRACE(names);
    device_ = sound->clone();
    injectAll(kinds);
    EXPECT_FALSE(look().clean());
    const CheckReport mended = mend();
    EXPECT_EQ(mended.exitCode(), 1) << mended.repaired << " of " << mended.problemCount;
    const CheckReport again = look();
    expectLines(again, {});
    ASSERT_EQ(again.exitCode(), 0);
    mount();
    readAll(kRoot);
    unmount();
    expectLines(look(), {});
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace ourfs::test
