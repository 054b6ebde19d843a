// fsck: inodes, orphans, attributes and settings. Each damage is found, mended, and gone.
#include "check_fixture.h"
#include "common/codec.h"

namespace ourfs::test {
namespace {

class CheckInodesTest : public CheckTest {
 protected:
  void spoil(InodeNo ino) {
    damage([&](Transaction& t) {
      std::string value = encodeInode(ino, record(ino));
      value.back() = static_cast<char>(value.back() ^ 1);
      t.put(inodeKey(ino), value);
    });
  }
};

TEST_F(CheckInodesTest, ASoundVolumeIsCleanAndCounted) {
  const CheckReport report = look();
  expectLines(report, {});
  EXPECT_EQ(report.exitCode(), 0);
  EXPECT_EQ(report.inodes, 13u);
  EXPECT_EQ(report.files, 7u);
  EXPECT_EQ(report.directories, 4u);
  EXPECT_EQ(report.symlinks, 1u);
  EXPECT_EQ(report.others, 1u);
  EXPECT_EQ(report.names, 13u);
  EXPECT_EQ(report.attributes, 2u);
  EXPECT_EQ(report.orphans, 0u);
  const CheckReport mended = mend();
  EXPECT_EQ(mended.exitCode(), 0);
  EXPECT_EQ(mended.freeBlocks, report.freeBlocks);
  const Superblock superblock = SuperblockStore(*device_).load().value();
  EXPECT_TRUE(superblock.clean);
  EXPECT_NE(superblock.lastChecked.sec, 0);
  mount();
  expectSample();
}

TEST_F(CheckInodesTest, WhatDoesNotFitIntoTheMemoryLimitIsNotBegun) {
  changeRecord(ino_["file"], [](InodeRecord& r) { r.nlink = 7; });
  CheckOptions options;
  for (bool repair : {false, true}) {
    options.repair = repair;
    options.memoryLimit = ByteCount(13 * 100);  // 13 inodes
    const auto refused = checkVolume(*device_, options);
    EXPECT_EQ(refused.errnum(), ENOMEM);
    EXPECT_THAT(refused.status().message(), ::testing::HasSubstr("raise it with --memory-limit"));
    options.memoryLimit = ByteCount(1 * MiB);
    const auto checked = checkVolume(*device_, options);
    ASSERT_TRUE(checked.isOk()) << checked.status().message();
    EXPECT_EQ(checked->problemCount, 1u);
  }
  expectLines(look(), {});
}

TEST_F(CheckInodesTest, AWrongLinkCountIsSetRight) {
  changeRecord(ino_["file"], [](InodeRecord& r) { r.nlink = 7; });
  expectMended({"link count is 7, should be 2"});
  EXPECT_EQ(links(ino_["file"]), 2u);
  expectSample();
}

TEST_F(CheckInodesTest, CountsOfADirectoryAreSetRight) {
  changeRecord(ino_["dir"], [](InodeRecord& r) {
    r.nlink = 9;
    r.entries = 100;
    r.parent = 12345;
  });
  expectMended({"link count is 9, should be 3", "number of names is 100, should be 3",
                "parent is 12345, should be 1"});
  const InodeRecord dir = stat(ino_["dir"]);
  EXPECT_EQ(dir.nlink, 3u);
  EXPECT_EQ(dir.entries, 3u);
  EXPECT_EQ(dir.parent, 1u);
  expectSample();
}

TEST_F(CheckInodesTest, AWrongNumberOfAllocatedBytesIsSetRight) {
  changeRecord(ino_["file"], [](InodeRecord& r) { r.blocks = 512; });
  expectMended({"bytes allocated are 512, should be 40960"});
  EXPECT_EQ(stat(ino_["file"]).blocks, 10 * kBlock);
  expectSample();
}

TEST_F(CheckInodesTest, ASizeInFrontOfTheDataGrowsSoThatNoneIsLost) {
  changeRecord(ino_["file"], [](InodeRecord& r) { r.size = 5000; });
  expectMended({"size is 5000, should be 40960"});
  expectSample();
}

TEST_F(CheckInodesTest, ASizeThatNoFileCanHaveEndsWithTheData) {
  for (uint64_t size : {uint64_t{1} << 63, UINT64_MAX}) {
    changeRecord(ino_["file"], [&](InodeRecord& r) { r.size = size; });
    expectMended({"size is " + std::to_string(size) + ", should be 40960"});
    expectSample();
    unmount();
  }
}

TEST_F(CheckInodesTest, AnUnknownTypeBecomesAFile) {
  changeRecord(ino_["file"], [](InodeRecord& r) { r.mode = 0170644; });
  expectMended({"its type is unknown"});
  EXPECT_EQ(stat(ino_["file"]).mode, S_IFREG | 0644u);
  expectSample();
}

TEST_F(CheckInodesTest, ASymbolicLinkWithoutATargetGoes) {
  changeRecord(ino_["symlink"], [](InodeRecord& r) { r.symlink.clear(); });
  expectMended({"a symbolic link without a target", "\"symlink\" leads to inode",
                "number of names is 9, should be 8"});
  expectGone("symlink");
  expectSample({"symlink"});
}

TEST_F(CheckInodesTest, TheSizeOfASymbolicLinkIsThatOfItsTarget) {
  changeRecord(ino_["symlink"], [](InodeRecord& r) { r.size = 3; });
  expectMended({"a symbolic link of size 3 with a target of 9 bytes"});
  EXPECT_EQ(stat(ino_["symlink"]).size, 9u);
  expectSample();
}

// ---- records that cannot be read ----

TEST_F(CheckInodesTest, AnUnreadableFileIsRebuiltFromItsExtents) {
  spoil(ino_["file"]);
  expectMended({"wrong checksum: it was a file"});
  expectSample();
  EXPECT_EQ(stat(ino_["file"]).mode, S_IFREG | 0600u);
  EXPECT_EQ(links(ino_["file"]), 2u);
  EXPECT_EQ(stat(ino_["file"]).blocks, 10 * kBlock);
}

TEST_F(CheckInodesTest, AnUnreadableDirectoryIsRebuiltFromItsNames) {
  spoil(ino_["dir"]);
  expectMended({"wrong checksum: it was a directory"});
  EXPECT_EQ(links(ino_["dir"]), 3u);
  EXPECT_EQ(stat(ino_["dir"]).entries, 3u);
  expectSample();
}

TEST_F(CheckInodesTest, AnUnreadableRecordWithNothingBehindItGoesWithItsNames) {
  spoil(ino_["pipe"]);
  expectMended({"wrong checksum", "\"pipe\" leads to inode", "number of names is 9, should be 8"});
  expectGone("pipe");
  expectSample({"pipe"});
}

TEST_F(CheckInodesTest, AnUnreadableRootKeepsItsNames) {
  spoil(kRoot);
  expectMended({"wrong checksum: it was a directory"});
  EXPECT_EQ(stat(kRoot).mode, S_IFDIR | 0755u);
  EXPECT_EQ(stat(kRoot).parent, 1u);
  EXPECT_EQ(links(kRoot), 4u);
  expectSample();
}

TEST_F(CheckInodesTest, AMissingRootIsMadeAnew) {
  damage([](Transaction& t) { t.erase(inodeKey(kRoot)); });
  expectMended({"the root directory is missing"});
  EXPECT_EQ(stat(kRoot).entries, 9u);
  expectSample();
}

// ---- orphans ----

TEST_F(CheckInodesTest, AnOrphanWithoutAnInodeIsForgotten) {
  damage([](Transaction& t) { t.put(orphanKey(InodeNo(999)), ""); });
  expectMended({"orphan list: inode 999 does not exist"});
  expectSample();
}

TEST_F(CheckInodesTest, AFileWithNamesIsNoOrphan) {
  damage([&](Transaction& t) { t.put(orphanKey(ino_["file"]), ""); });
  expectMended({"still has names"});
  expectSample();
}

TEST_F(CheckInodesTest, AnOrphanThatANameLeadsToIsKept) {
  damage([&](Transaction& t) {
    InodeRecord r = record(ino_["file"]);
    r.nlink = 0;
    putRecord(t, ino_["file"], r);
    t.put(orphanKey(ino_["file"]), "");
  });
  expectMended({"orphan list: inode", "link count is 0, should be 2"});
  expectSample();
}

TEST_F(CheckInodesTest, ARemovedDirectoryWithNamesInItIsKept) {
  damage([&](Transaction& t) {
    InodeRecord r = record(ino_["dir"]), root = record(kRoot);
    r.nlink = 0;
    --root.nlink;
    --root.entries;
    putRecord(t, ino_["dir"], r);
    putRecord(t, kRoot, root);
    t.put(orphanKey(ino_["dir"]), "");
    eraseName(t, kRoot, "dir");
  });
  expectMended({"is a directory with names in it", "lost: no name leads to it",
                "link count is 0, should be 3"});
  const std::string found = "lost+found/#" + std::to_string(ino_["dir"].v);
  EXPECT_TRUE(contentOf(found + "/inner") == files_["dir/inner"]);
  EXPECT_TRUE(contentOf(found + "/sub/deep") == files_["dir/sub/deep"]);
  expectSample({"dir", "dir/inner", "dir/link", "dir/sub/deep"});
}

TEST_F(CheckInodesTest, AnUnlinkedFileThatIsNotOnTheOrphanListIsPutThere) {
  damage([&](Transaction& t) {
    InodeRecord r = record(ino_["other"]), root = record(kRoot);
    r.nlink = 0;
    --root.entries;
    putRecord(t, ino_["other"], r);
    putRecord(t, kRoot, root);
    eraseName(t, kRoot, "other");
  });
  const CheckReport before = look();
  expectMended({"unlinked, but not on the orphan list"});
  unmount();  // reclaims it
  EXPECT_EQ(look().orphans, 0u);
  EXPECT_EQ(look().freeBlocks.v, before.freeBlocks.v + 4);
  mount();
  expectSample({"other"});
}

// What a record denies is not looked for when the inode is reclaimed.
TEST_F(CheckInodesTest, OfAnUnlinkedFileWhoseRecordDeniesWhatItHasNothingStays) {
  damage([&](Transaction& t) {
    InodeRecord r = record(ino_["other"]), root = record(kRoot);
    r.nlink = 0;
    r.blocks = 0;
    r.flags = 0;
    --root.entries;
    putRecord(t, ino_["other"], r);
    putRecord(t, kRoot, root);
    eraseName(t, kRoot, "other");
    t.put(orphanKey(ino_["other"]), "");
  });
  const CheckReport before = look();
  expectMended({"bytes allocated are 0, should be 16384", "has attributes that its flags deny"});
  unmount();  // reclaims it
  const CheckReport after = look();
  EXPECT_EQ(after.orphans, 0u);
  EXPECT_EQ(after.freeBlocks.v, before.freeBlocks.v + 4);
  EXPECT_LT(after.attributes, before.attributes);
  mount();
  expectSample({"other"});
}

// ---- attributes ----

TEST_F(CheckInodesTest, AnAttributeWithoutAnInodeGoes) {
  damage([](Transaction& t) { t.put(xattrKey(InodeNo(999), "user.a"), "1"); });
  expectMended({"extended attribute \"user.a\" of inode 999, which does not exist"});
  expectSample();
}

TEST_F(CheckInodesTest, AttributesThatTheFlagsDenyAreFoundAgain) {
  for (const char* path : {"other", "dir"}) {
    changeRecord(ino_[path], [](InodeRecord& r) { r.flags = 0; });
    expectMended({"has attributes that its flags deny"});
    expectSample();
    unmount();
  }
  changeRecord(ino_["dir"], [](InodeRecord& r) { r.flags &= ~kInodeHasAcl; });
  expectMended({"has attributes that its flags deny"});
  expectSample();
}

TEST_F(CheckInodesTest, FlagsOfAttributesThatAreNotThereAreCleared) {
  changeRecord(ino_["file"],
               [](InodeRecord& r) { r.flags = kInodeHasXattr | kInodeHasCapability; });
  expectMended({"its flags tell of attributes that it does not have"});
  EXPECT_EQ(stat(ino_["file"]).flags, 0u);
  expectSample();
}

// ---- keys and settings ----

TEST_F(CheckInodesTest, KeysThatNoKindOfRecordHasGo) {
  const std::vector<std::string> keys = {"?",    "\xff\xff", "a",  "C",
                                         "I123", "Gx",       "Lx", "D12345678"};
  damage([&](Transaction& t) {
    for (const std::string& key : keys) t.put(key, "value");
  });
  expectMended(Lines(keys.size(), "index: a key that no kind of record has"));
  expectSample();
}

TEST_F(CheckInodesTest, TheNextInodeNumberIsBeyondAllThatExist) {
  uint64_t highest = 0;
  for (const auto& [path, ino] : ino_) highest = std::max(highest, ino.v);
  std::string low, high;
  Encoder(low).u64(highest);
  Encoder(high).u64(UINT64_MAX - 1);
  for (const std::string& value : {low, high, std::string("short")}) {
    damage([&](Transaction& t) { t.put(settingKey("next_inode"), value); });
    expectMended({"the next inode number"});
    EXPECT_GT(file(kRoot, "new").v, highest);
    EXPECT_TRUE(fs_->unlink(caller_, kRoot, "new").isOk());
    expectSample();
    unmount();
  }
  damage([&](Transaction& t) { t.erase(settingKey("next_inode")); });
  expectMended({"the next inode number (0) cannot be right"});
}

}  // namespace
}  // namespace ourfs::test
