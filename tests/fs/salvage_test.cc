// What --salvage copies out of a volume that cannot be mounted.
#include "fs/salvage.h"

#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <filesystem>
#include <fstream>

#include "../../index/src/file_table.h"
#include "block/fault_device.h"
#include "check_fixture.h"

namespace ourfs::test {
namespace {

namespace files = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SalvageFilesTest : public DamagedDeviceTest {
 protected:
  void SetUp() override {
    DamagedDeviceTest::SetUp();
    if (IsSkipped()) return;
    char name[] = "/var/tmp/ourfs-salvage-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    scratch_ = name;
  }
  void TearDown() override {
    if (!scratch_.empty()) files::remove_all(scratch_);
    DamagedDeviceTest::TearDown();
  }

  Status trySalvage(BlockDevice& device) {
    to_ = scratch_ / std::to_string(++runs_);
    files::create_directory(to_);
    told_.clear();
    SalvageOptions options;
    options.directory = to_;
    options.report = [&](const std::string& line) { told_.push_back(line); };
    TRY_ASSIGN(report_, salvageVolume(device, options));
    EXPECT_EQ(report_.problemCount, told_.size());
    return Status::ok();
  }
  // And nothing on the device has changed.
  void salvage() {
    const auto before = device_->clone();
    const Status done = trySalvage(*device_);
    ASSERT_TRUE(done.isOk()) << done.message();
    std::vector<std::byte> was(MiB), is(MiB);
    for (uint64_t at = 0; at < device_->size().v; at += MiB) {
      ASSERT_TRUE(before->read(DeviceOffset(at), was).isOk());
      ASSERT_TRUE(device_->read(DeviceOffset(at), is).isOk());
      ASSERT_TRUE(was == is) << "salvage has written to the volume";
    }
  }
  std::string copyOf(const std::string& path) {
    std::ifstream in(to_ / path, std::ios::binary);
    EXPECT_TRUE(in.good()) << path << " was not copied";
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void expectCopies(const std::set<std::string>& except = {}) {
    for (const auto& [path, content] : files_) {
      EXPECT_TRUE(except.contains(path) || copyOf(path) == content) << path << " differs";
    }
  }
  struct stat statOf(const std::string& path) {
    struct stat st {};
    EXPECT_EQ(::lstat((to_ / path).c_str(), &st), 0) << path;
    return st;
  }
  void overwrite(uint64_t at, uint64_t length) {
    const std::vector<std::byte> garbage(length, std::byte{0x5a});
    ASSERT_TRUE(device_->write(DeviceOffset(at), garbage).isOk());
  }
  void changeTable(const std::function<Status(FileTable&)>& how) {
    auto table = FileTable::load(*device_, indexGeometry(superblock_), false);
    ASSERT_TRUE(table.isOk()) << table.status().message();
    ASSERT_TRUE(how(**table).isOk());
    ASSERT_TRUE((*table)->sync().isOk());
  }
  std::vector<TableFile> indexFiles() {
    auto table = FileTable::load(*device_, indexGeometry(superblock_), true);
    EXPECT_TRUE(table.isOk()) << table.status().message();
    return table.isOk() ? (*table)->files() : std::vector<TableFile>();
  }
  void removeIndexFile(const std::string& prefix) {
    for (const TableFile& file : indexFiles()) {
      if (file.name.starts_with(prefix))
        changeTable([&](FileTable& table) { return table.remove(file.id); });
    }
  }
  void remake(uint32_t blockSize, ByteCount journalSize = ByteCount(0)) {
    FormatOptions options;
    options.blockSize = blockSize;
    options.journalSize = journalSize;
    makeVolume(options);
    superblock_ = SuperblockStore(*device_).load().value();
  }
  void expectBlocksOf(uint32_t blockSize) {
    EXPECT_THAT(told_, Contains(HasSubstr("the file table is lost")));
    EXPECT_THAT(told_, Contains(HasSubstr("the volume has blocks of " + std::to_string(blockSize) +
                                          " bytes")));
  }
  // Changes that only the journal has.
  void leaveForReplay() {
    mount();
    for (int i = 0; i < 20; ++i) {
      const std::string name = "new" + std::to_string(i);
      fill(file(kRoot, name), name);
      EXPECT_TRUE(fs_->syncAll().isOk());
    }
    crash();
  }
  void expectReplayed() {
    for (int i = 0; i < 20; ++i) {
      const std::string name = "new" + std::to_string(i);
      EXPECT_EQ(copyOf(name), name);
    }
  }
  std::string lostName(const std::string& path) {
    return "lost+found/#" + std::to_string(ino_[path].v);
  }

  files::path scratch_, to_;
  int runs_ = 0;
  std::vector<std::string> told_;
  SalvageReport report_;
};

TEST_F(SalvageFilesTest, ASoundVolumeIsCopiedAsItIs) {
  mount();
  AttributeChange change;
  change.mode = 04751;
  change.uid = 1234;
  change.gid = 4321;
  change.mtime = Timestamp{1000000000, 123456789};
  change.atime = Timestamp{1100000000, 5};
  must(fs_->setattr(caller_, ino_["other"], change));
  change.mode = 01777;
  must(fs_->setattr(caller_, ino_["dir/sub"], change));
  must(fs_->mknod(caller_, kRoot, "device", S_IFCHR | 0600, 0x12305));
  unmount();
  salvage();
  EXPECT_THAT(told_, IsEmpty());
  EXPECT_EQ(report_.files, files_.size() - 1);  // one is a link
  EXPECT_EQ(report_.links, 1u);
  EXPECT_EQ(report_.directories, 3u);
  EXPECT_EQ(report_.symlinks, 1u);
  EXPECT_EQ(report_.others, 2u);

  EXPECT_EQ(statOf("file").st_ino, statOf("dir/link").st_ino);
  EXPECT_EQ(files::read_symlink(to_ / "symlink"), "dir/inner");
  EXPECT_TRUE(S_ISFIFO(statOf("pipe").st_mode));
  for (const char* path : {"other", "dir/sub"}) {
    const struct stat st = statOf(path);
    EXPECT_EQ(st.st_uid, 1234u) << path;
    EXPECT_EQ(st.st_gid, 4321u) << path;
    EXPECT_EQ(st.st_mtim.tv_sec, 1000000000) << path;
    EXPECT_EQ(st.st_mtim.tv_nsec, 123456789) << path;
    EXPECT_EQ(st.st_atim.tv_sec, 1100000000) << path;
  }
  EXPECT_EQ(statOf("other").st_mode, S_IFREG | 04751u);
  EXPECT_EQ(statOf("dir/sub").st_mode, S_IFDIR | 01777u);
  EXPECT_EQ(statOf("device").st_rdev, makedev(0x123, 5));
  char value[100];
  ASSERT_EQ(::getxattr((to_ / "other").c_str(), "user.color", value, sizeof(value)), 4);
  EXPECT_EQ(std::string(value, 4), "blue");
  EXPECT_GT(::getxattr((to_ / "dir").c_str(), "system.posix_acl_access", value, sizeof(value)), 0);
  // Of 23 blocks three have data.
  EXPECT_LT(statOf("holes").st_blocks * 512, 10 * 4096);
  expectCopies();  // which changes access times
}

TEST_F(SalvageFilesTest, ADirectoryWithSomethingInItIsRefused) {
  std::ofstream(scratch_ / "file") << "mine";
  SalvageOptions options;
  options.directory = scratch_;
  EXPECT_EQ(salvageVolume(*device_, options).errnum(), ENOTEMPTY);
  options.directory = scratch_ / "missing";
  EXPECT_EQ(salvageVolume(*device_, options).errnum(), ENOENT);
}

TEST_F(SalvageFilesTest, WithoutSuperblocksTheFileTableSaysWhatTheVolumeIs) {
  overwrite(kSuperblockSlotA, kSuperblockSize);
  salvage();
  EXPECT_THAT(told_, IsEmpty());
  expectCopies();
  overwrite(0, kSuperblockRegion);
  EXPECT_EQ(Volume::open(*device_, {}).errnum(), EINVAL);
  salvage();
  EXPECT_THAT(told_, Contains(HasSubstr("both superblocks are lost")));
  EXPECT_EQ(told_.size(), 1u);
  expectCopies();
}

TEST_F(SalvageFilesTest, WithoutSuperblocksTheJournalIsReplayed) {
  leaveForReplay();
  overwrite(0, kSuperblockRegion);
  salvage();
  expectCopies();
  expectReplayed();
}

// As after dd, or another mkfs: nothing is left in front of the files.
TEST_F(SalvageFilesTest, AVolumeIsFoundWithoutItsHead) {
  for (const uint32_t blockSize : {1024u, 2048u, 4096u, 16384u, 65536u}) {
    SCOPED_TRACE(blockSize);
    remake(blockSize);
    overwrite(0, superblock_.dataStart.v);
    salvage();
    expectBlocksOf(blockSize);
    EXPECT_EQ(told_.size(), 2u);
    EXPECT_EQ(report_.directories, 3u);
    EXPECT_EQ(report_.links, 1u);
    expectCopies();
  }
}

TEST_F(SalvageFilesTest, TheJournalBehindALostHeadIsReplayed) {
  for (const uint32_t blockSize : {1024u, 4096u, 65536u}) {
    for (const uint64_t journal : {uint64_t{0}, 3 * MiB}) {
      SCOPED_TRACE(std::to_string(blockSize) + ", " + std::to_string(journal));
      remake(blockSize, ByteCount(journal));
      leaveForReplay();
      overwrite(0, superblock_.journalStart.v);
      salvage();
      expectBlocksOf(blockSize);
      expectCopies();
      expectReplayed();
    }
  }
}

// All that the index holds is the root directory: what the blocks are, the journal tells.
TEST_F(SalvageFilesTest, AVolumeThatWasMountedOnceIsFoundWithoutItsHead) {
  device_ = MemoryDevice::create(ByteCount(32 * MiB));
  FormatOptions options;
  options.blockSize = 65536;
  ASSERT_TRUE(formatVolume(*device_, options).isOk());
  leaveForReplay();
  overwrite(0, superblock_.journalStart.v);
  salvage();
  expectBlocksOf(65536);
  expectReplayed();
}

TEST_F(SalvageFilesTest, WithoutTheFileTableItsFilesAreFound) {
  for (const uint32_t blockSize : {1024u, 4096u, 65536u}) {
    SCOPED_TRACE(blockSize);
    remake(blockSize);
    overwrite(superblock_.tableStart.v, 2 * superblock_.tableSlotSize.v);
    EXPECT_EQ(Volume::open(*device_, {}).errnum(), EUCLEAN);
    salvage();
    EXPECT_THAT(told_, Contains(HasSubstr("the file table is lost")));
    EXPECT_EQ(told_.size(), 1u);
    expectCopies();
  }
}

TEST_F(SalvageFilesTest, WhatIsNoVolumeIsToldSo) {
  const auto blank = MemoryDevice::create(ByteCount(32 * MiB));
  const Status why = trySalvage(*blank);
  EXPECT_EQ(why.errnum(), EUCLEAN);
  EXPECT_THAT(why.message(), HasSubstr("both superblocks and the index file table are lost"));
}

TEST_F(SalvageFilesTest, AJournalThatCannotBeReplayedWholeIsReplayedAsFarAsItGoes) {
  leaveForReplay();
  const uint64_t records = look().mount.replay.records;
  ASSERT_GT(records, 20u);
  // Everything behind the first records: it shows that something is lost.
  std::vector<std::byte> sector(4096);
  std::vector<uint64_t> places;
  for (uint64_t at = 0; at < superblock_.journalSize.v; at += 4096) {
    ASSERT_TRUE(device_->read(superblock_.journalStart + ByteCount(at), sector).isOk());
    if (std::memcmp(sector.data(), "OURJ", 4) == 0) places.push_back(at);
  }
  ASSERT_GT(places.size(), 12u);
  overwrite(superblock_.journalStart.v + places[places.size() - 8], 512);
  EXPECT_EQ(Volume::open(*device_, {}).errnum(), EUCLEAN);
  salvage();
  EXPECT_THAT(told_, Contains(HasSubstr("was durable, but the records end")));
  expectCopies();
  EXPECT_EQ(copyOf("new0"), "new0");
  EXPECT_FALSE(files::exists(to_ / "new19"));
}

TEST_F(SalvageFilesTest, AnIndexThatHasLostItsPositionGetsAllOfTheJournal) {
  leaveForReplay();
  removeIndexFile("0");  // all tables: what is left is the journal, which was never full
  salvage();
  EXPECT_THAT(told_, Contains(HasSubstr("the index has lost where the journal begins")));
  EXPECT_EQ(copyOf("new19"), "new19");
}

TEST_F(SalvageFilesTest, WithoutAManifestTheTablesAreReadAllTheSame) {
  const auto sound = device_->clone();
  for (const std::string name : {"CURRENT", "MANIFEST-"}) {
    device_ = sound->clone();
    removeIndexFile(name);
    for (const bool repair : {false, true}) {
      const auto before = device_->clone();
      CheckOptions options;
      options.repair = repair;
      const auto checked = checkVolume(*device_, options);
      EXPECT_EQ(checked.errnum(), EUCLEAN) << checked.status().message();
      EXPECT_EQ(checked.status().message().find('\n'), std::string::npos);
    }
    salvage();
    EXPECT_THAT(told_, Contains(HasSubstr("is missing: what had been removed last may be back")));
    expectCopies();
  }
}

TEST_F(SalvageFilesTest, AMissingTableOfTheIndexCostsWhatItHeld) {
  size_t tables = 0;
  const auto sound = device_->clone();
  for (const TableFile& file : indexFiles()) {
    if (!file.name.ends_with(".sst")) continue;
    ++tables;
    device_ = sound->clone();
    changeTable([&](FileTable& table) { return table.remove(file.id); });
    CheckOptions options;
    options.repair = true;
    EXPECT_EQ(checkVolume(*device_, options).errnum(), EUCLEAN);
    salvage();
    EXPECT_THAT(told_, Contains(HasSubstr("is missing")));
  }
  EXPECT_GT(tables, 0u);
}

TEST_F(SalvageFilesTest, EachDamagedBlockOfTheIndexCostsLittle) {
  const auto sound = device_->clone();
  size_t damaged = 0, copies = 0;
  for (const TableFile& file : indexFiles()) {
    if (file.isInline) continue;
    for (const BlockRun& run : file.runs) {
      for (uint64_t i = 0; i < run.count.v; ++i) {
        device_ = sound->clone();
        overwrite((run.start.v + i) * kBlock + 512, 512);
        salvage();
        if (HasFatalFailure()) return;
        damaged += told_.empty() ? 0 : 1;
        for (const auto& [path, content] : files_) {
          std::ifstream in(to_ / path, std::ios::binary);
          const std::string copy{std::istreambuf_iterator<char>(in), {}};
          copies += copy == content ? 1 : 0;
        }
        files::remove_all(to_);
      }
    }
  }
  EXPECT_GT(damaged, 0u);
  EXPECT_GT(copies, 0u);
}

TEST_F(SalvageFilesTest, WhatHasLostItsNameOrRecordIsFoundByItsNumber) {
  damage([&](Transaction& t) {
    eraseName(t, kRoot, "small");      // its name
    t.erase(inodeKey(ino_["other"]));  // its record; the name stays
    t.put(inodeKey(ino_["holes"]), "?");
    eraseName(t, kRoot, "dir");            // a tree
    t.erase(inodeKey(ino_["dir/sub"]));    // a directory in it
    t.erase(inodeKey(ino_["pipe"]));       // nothing hangs on it
    t.put(direntKey(kRoot, 256), "\x77");  // a name that cannot be read
    auto [offset, extent] = *extents(ino_["file"]).begin();
    extent.block = 1;  // data that is no data
    putExtent(t, ino_["file"], offset, extent);
  });
  salvage();
  EXPECT_EQ(copyOf(lostName("small")), "a few bytes");
  EXPECT_TRUE(copyOf(lostName("dir") + "/inner") == files_["dir/inner"]);
  EXPECT_TRUE(copyOf(lostName("dir") + "/sub/deep") == files_["dir/sub/deep"]);
  // Without a record files end with their last block.
  EXPECT_TRUE(copyOf("other").substr(0, files_["other"].size()) == files_["other"]);
  EXPECT_TRUE(copyOf("holes") == files_["holes"]);
  EXPECT_FALSE(files::exists(to_ / "pipe"));
  EXPECT_EQ(copyOf("file"), std::string(files_["file"].size(), '\0'));
  for (const char* line :
       {"a name cannot be read", "\"pipe\": inode", "owner, permissions and times are lost",
        "blocks that lie outside of the data area", "no name leads to it"})
    EXPECT_THAT(told_, Contains(HasSubstr(line)));
  expectCopies({"small", "other", "file", "dir/inner", "dir/sub/deep", "dir/link"});
}

TEST_F(SalvageFilesTest, CirclesAndSecondNamesOfDirectoriesEnd) {
  damage([&](Transaction& t) {
    putName(t, ino_["dir/sub"], "again", ino_["dir"], DT_DIR);
    putName(t, kRoot, "second", ino_["dir/sub"], DT_DIR);
    putName(t, ino_["dir"], "top", kRoot, DT_DIR);
  });
  salvage();
  EXPECT_EQ(told_.size(), 3u);
  for (const std::string& line : told_)
    EXPECT_THAT(line, HasSubstr("it is another name of a directory"));
  EXPECT_EQ(report_.directories, 3u);
  // Which of its names a directory gets is chance; everything is there once.
  std::multiset<std::string> expected, found;
  for (const auto& [path, content] : files_) expected.insert(content);
  for (const auto& each : files::recursive_directory_iterator(to_)) {
    if (each.is_regular_file() && !each.is_symlink())
      found.insert(copyOf(files::relative(each.path(), to_)));
  }
  EXPECT_TRUE(found == expected);
}

TEST_F(SalvageFilesTest, BlocksThatCannotBeReadAreHoles) {
  openRaw();
  const uint64_t bad = extents(ino_["file"]).begin()->second.block + 3;
  closeRaw();
  auto faulty = FaultDevice::wrap(*device_);
  FaultRule rule;
  rule.op = IoOp::Read;
  rule.cls = IoClass::Data;
  rule.at = DeviceOffset(bad * kBlock + 5);
  rule.times = UINT64_MAX;
  faulty->addRule(rule);
  ASSERT_TRUE(trySalvage(*faulty).isOk());
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_THAT(told_[0], HasSubstr("\": 4096 bytes from 12288 on cannot be read"));
  std::string expected = files_["file"];
  expected.replace(3 * kBlock, kBlock, kBlock, '\0');
  EXPECT_TRUE(copyOf("file") == expected);
  expectCopies({"file", "dir/link"});
}

TEST_F(SalvageFilesTest, ATruncatedImageGivesWhatItHas) {
  auto shorter = MemoryDevice::create(ByteCount(24 * MiB));
  std::vector<std::byte> bytes(24 * MiB);
  ASSERT_TRUE(device_->read(DeviceOffset(0), bytes).isOk());
  ASSERT_TRUE(shorter->write(DeviceOffset(0), bytes).isOk());
  ASSERT_TRUE(trySalvage(*shorter).isOk());
  EXPECT_THAT(told_, Contains(HasSubstr("what lay behind it is lost")));
  EXPECT_EQ(copyOf("file").size(), files_["file"].size());
}

}  // namespace
}  // namespace ourfs::test
