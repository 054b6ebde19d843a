// fsck: extents, doubly used blocks, the free map and its snapshot.
#include "check_fixture.h"

namespace ourfs::test {
namespace {

class CheckSpaceTest : public CheckTest {
 protected:
  // The first extent of `path`'s file now says `block`.
  void pointAt(Transaction& t, const std::string& path, uint64_t block) {
    auto [offset, extent] = *extents(ino_[path]).begin();
    extent.block = block;
    putExtent(t, ino_[path], offset, extent);
  }
  // The blocks of all files: none is there twice.
  void expectNothingShared() {
    std::set<uint64_t> used;
    for (const auto& [path, ino] : ino_) {
      if (path == "dir/link") continue;
      for (const auto& [offset, extent] : extents(ino)) {
        for (uint64_t i = 0; i < extent.blocks; ++i)
          EXPECT_TRUE(used.insert(extent.block + i).second) << path << " at " << offset;
      }
    }
    for (const BlockRun& run : volume_->index().ownedBlocks()) {
      for (uint64_t i = 0; i < run.count.v; ++i)
        EXPECT_FALSE(used.contains(run.start.v + i)) << "block of the index";
    }
  }
};

TEST_F(CheckSpaceTest, TwoFilesOnTheSameBlocksBothKeepTheBytes) {
  damage([&](Transaction& t) {
    const ExtentRecord shared = extents(ino_["other"]).begin()->second;
    pointAt(t, "dir/sub/deep", shared.block);  // longer by a block, which is another file's
  });
  expectMended({"is used twice: by inode"});
  expectSample({"dir/sub/deep"});
  const std::string deep = contentOf("dir/sub/deep");
  EXPECT_EQ(deep.size(), 5 * kBlock - 1);
  EXPECT_TRUE(deep.substr(0, 3 * kBlock + 100) == files_["other"]);
  expectNothingShared();
  // They are two files: what is written to one is not in the other.
  fill(ino_["dir/sub/deep"], std::string(4 * kBlock, 'X'));
  unmount();
  mount();
  expectSample({"dir/sub/deep"});
}

TEST_F(CheckSpaceTest, BlocksThatOverlapInPartAreCopied) {
  damage([&](Transaction& t) {
    const ExtentRecord shared = extents(ino_["file"]).begin()->second;
    pointAt(t, "other", shared.block + 2);
    pointAt(t, "dir/inner", shared.block + 3);  // on both
  });
  expectMended({"is used twice", "is used twice"});
  expectSample({"other", "dir/inner"});
  EXPECT_TRUE(contentOf("other") == files_["file"].substr(2 * kBlock, 3 * kBlock + 100));
  EXPECT_TRUE(contentOf("dir/inner") == files_["file"].substr(3 * kBlock, 2 * kBlock));
  expectNothingShared();
}

TEST_F(CheckSpaceTest, OneFileThatUsesABlockTwiceGetsACopy) {
  damage([&](Transaction& t) {
    auto found = extents(ino_["holes"]);
    found[20 * kBlock].block = found[0].block;
    putExtent(t, ino_["holes"], 20 * kBlock, found[20 * kBlock]);
  });
  expectMended({"is used twice"});
  expectSample({"holes"});
  EXPECT_TRUE(contentOf("holes").substr(0, kBlock) == files_["holes"].substr(0, kBlock));
  EXPECT_TRUE(contentOf("holes").substr(20 * kBlock, kBlock) == files_["holes"].substr(0, kBlock));
  expectNothingShared();
}

TEST_F(CheckSpaceTest, ACopyThatFitsInNoFreeRunIsMadeOfPieces) {
  damage([&](Transaction& t) {  // free space is single blocks: every other one is used
    constexpr uint64_t kTeeth = 300;
    uint64_t offset = 0;
    const auto use = [&](uint64_t block, uint64_t count) {
      putExtent(t, ino_["nothing"], offset, {block, count, StoredExtentState::Unwritten});
      offset += count * kBlock;
    };
    volume_->space().forEachFree([&](BlockRun run) {
      const uint64_t whole = run.count.v > 2 * kTeeth ? run.count.v - 2 * kTeeth : 0;
      if (whole != 0) use(run.start.v, whole);
      for (uint64_t b = whole; b < run.count.v; b += 2) use(run.start.v + b, 1);
    });
    use(extents(ino_["other"]).begin()->second.block, 4);  // it leaves them
    InodeRecord r = record(ino_["nothing"]);
    r.blocks = offset;
    putRecord(t, ino_["nothing"], r);
    pointAt(t, "other", extents(ino_["file"]).begin()->second.block);
  });
  expectMended({"is used twice"});
  expectSample({"other", "nothing"});
  EXPECT_EQ(extents(ino_["other"]).size(), 4u);
  expectNothingShared();
  EXPECT_TRUE(contentOf("other") == files_["file"].substr(0, 3 * kBlock + 100));
}

TEST_F(CheckSpaceTest, WithoutRoomForACopyTheProblemStaysAndNothingIsLost) {
  openRaw();
  std::vector<BlockRun> free;
  volume_->space().forEachFree([&](BlockRun run) { free.push_back(run); });
  closeRaw();
  damage([&](Transaction& t) {
    uint64_t offset = 0;
    for (const BlockRun& run : free) {
      putExtent(t, ino_["nothing"], offset,
                {run.start.v, run.count.v, StoredExtentState::Unwritten});
      offset += run.count.v * kBlock;
    }
    InodeRecord r = record(ino_["nothing"]);
    r.blocks = offset;
    putRecord(t, ino_["nothing"], r);
    pointAt(t, "other", extents(ino_["file"]).begin()->second.block);
  });
  expectLines(look(), {"is used twice"});
  const CheckReport mended = mend();
  EXPECT_EQ(mended.exitCode(), 4);
  EXPECT_EQ(mended.repaired, 0u);
  expectLines(look(), {"is used twice"});

  // With room, it goes on from there.
  damage([&](Transaction& t) {
    for (const auto& [offset, extent] : extents(ino_["nothing"]))
      t.erase(extentKey(ino_["nothing"], FileOffset(offset)));
    InodeRecord r = record(ino_["nothing"]);
    r.blocks = 0;
    putRecord(t, ino_["nothing"], r);
  });
  expectMended({"is used twice"});
  expectSample({"other"});
  EXPECT_TRUE(contentOf("other") == files_["file"].substr(0, 3 * kBlock + 100));
}

TEST_F(CheckSpaceTest, AFileOnTheIndexesBlocksLeavesThem) {
  damage(
      [&](Transaction& t) { pointAt(t, "other", volume_->index().ownedBlocks().front().start.v); });
  expectMended({"is used twice: by the index and by inode"});
  EXPECT_EQ(contentOf("other").size(), files_["other"].size());
  expectNothingShared();
  expectSample({"other"});
}

TEST_F(CheckSpaceTest, AFileThatReachesIntoTheIndexesBlocksLeavesThem) {
  damage([&](Transaction& t) {  // begins before them
    const uint64_t first = volume_->index().ownedBlocks().front().start.v;
    ASSERT_EQ(first, volume_->superblock().dataStart.v / kBlock);
    const BlockRun last = volume_->index().ownedBlocks().back();
    auto [offset, extent] = *extents(ino_["file"]).begin();
    extent.block = last.start.v + last.count.v - 1;
    putExtent(t, ino_["file"], offset, extent);
  });
  const CheckReport found = look();
  EXPECT_FALSE(found.clean());
  EXPECT_EQ(mend().exitCode(), 1);
  expectLines(look(), {});
  mount();
  EXPECT_EQ(contentOf("file").size(), files_["file"].size());
  expectNothingShared();
}

TEST_F(CheckSpaceTest, AMountRefusesWhatFsckOpens) {
  damage([&](Transaction& t) { pointAt(t, "other", extents(ino_["file"]).begin()->second.block); });
  crash();
  openRaw();  // without a snapshot, as after a crash
  volume_.reset();
  const auto refused = Volume::open(*device_, {});
  EXPECT_EQ(refused.errnum(), EUCLEAN);
  EXPECT_THAT(refused.status().message(), ::testing::HasSubstr("run fsck.ourfs"));
  expectMended({"is used twice"});
  expectSample({"other"});
}

// ---- extents that cannot be right by themselves ----

TEST_F(CheckSpaceTest, ExtentsOutsideOfTheVolumeGo) {
  const uint64_t end = 32 * MiB / kBlock;
  const std::vector<ExtentRecord> wrong = {{0, 1, {}},
                                           {1, 1, {}},
                                           {end, 1, {}},
                                           {end - 1, 2, {}},
                                           {end * 2, 3, {}},
                                           {100, UINT64_MAX - 100, {}},
                                           {UINT64_MAX - 10, 10, {}}};
  damage([&](Transaction& t) {
    uint64_t offset = MiB;
    for (ExtentRecord extent : wrong) {
      extent.state = StoredExtentState::Unwritten;
      putExtent(t, ino_["file"], offset += MiB, extent);
    }
  });
  expectMended(Lines(wrong.size(), "lies outside the volume"));
  expectSample();
}

TEST_F(CheckSpaceTest, ExtentsAtOffsetsThatNoFileHasGo) {
  damage([&](Transaction& t) {
    const uint64_t block = 32 * MiB / kBlock - 1;
    putExtent(t, ino_["file"], MiB + 512, {block, 1, StoredExtentState::Unwritten});
    putExtent(t, ino_["file"], uint64_t{1} << 63, {block, 1, StoredExtentState::Unwritten});
    putExtent(t, ino_["file"], 0 - kBlock, {block, 1, StoredExtentState::Mapped});
  });
  const std::string line = "is misaligned or lies behind the end of any file";
  expectMended({line, line, line, "the free-space snapshot calls 1 free blocks used"});
  EXPECT_EQ(stat(ino_["file"]).size, 10 * kBlock);
  expectSample();
}

TEST_F(CheckSpaceTest, OfExtentsThatOverlapInAFileTheFirstWins) {
  damage([&](Transaction& t) {
    const uint64_t block = 32 * MiB / kBlock - 8;
    putExtent(t, ino_["file"], 9 * kBlock, {block, 3, StoredExtentState::Unwritten});
    putExtent(t, ino_["other"], kBlock, {block + 4, 1, StoredExtentState::Mapped});
  });
  expectMended({"overlaps the extent before it", "overlaps the extent before it",
                "the free-space snapshot"});
  expectSample();
  const auto file = extents(ino_["file"]);
  ASSERT_TRUE(file.contains(10 * kBlock));
  EXPECT_EQ(file.at(10 * kBlock).blocks, 2u);
  EXPECT_FALSE(extents(ino_["other"]).contains(kBlock));
  EXPECT_EQ(stat(ino_["file"]).blocks, 12 * kBlock);
}

TEST_F(CheckSpaceTest, ExtentsOfNoRegularFileAndUnreadableOnesGo) {
  damage([&](Transaction& t) {
    const uint64_t block = 32 * MiB / kBlock - 8;
    const FileOffset offset(MiB);
    putExtent(t, ino_["dir"], 0, {block, 1, StoredExtentState::Mapped});
    putExtent(t, InodeNo(999), 0, {block, 1, StoredExtentState::Mapped});
    const ExtentRecord extent{block, 1, StoredExtentState::Mapped};
    t.put(extentKey(ino_["file"], offset), encodeExtent(ino_["file"], FileOffset(0), extent));
  });
  expectMended({"extent at 0 belongs to no regular file", "inode 999: extent at 0 belongs to no",
                "at 1048576: wrong checksum", "the free-space snapshot"});
  expectSample();
}

TEST_F(CheckSpaceTest, WhatAnExtentThatGoesHadUsedIsFreeAfterwards) {
  const BlockCount free = look().freeBlocks;
  damage([&](Transaction& t) {
    const uint64_t block = 32 * MiB / kBlock - 100;
    putExtent(t, InodeNo(999), 0, {block, 100, StoredExtentState::Mapped});
  });
  EXPECT_EQ(look().freeBlocks.v, free.v - 100);
  expectMended({"belongs to no regular file", "calls 100 free blocks used"});
  EXPECT_EQ(volume_->space().counts().free, free);
}

// ---- the snapshot ----

TEST_F(CheckSpaceTest, ASnapshotThatDeniesUsedBlocksIsFound) {
  openRaw();  // the extent comes behind the back of the free map that close() stores
  Transaction t;
  const uint64_t block = 32 * MiB / kBlock - 8;
  putExtent(t, ino_["nothing"], 0, {block, 3, StoredExtentState::Unwritten});
  InodeRecord r = record(ino_["nothing"]);
  r.blocks = 3 * kBlock;
  putRecord(t, ino_["nothing"], r);
  auto room = volume_->log().reserve(kNamespaceRoom);
  ASSERT_TRUE(room.isOk() && volume_->log().commit(std::move(t), std::move(*room)).isOk());
  closeRaw();
  expectMended({"calls 3 used blocks free, the first is " + std::to_string(block)});
  expectSample();
}

TEST_F(CheckSpaceTest, ASnapshotThatKeepsFreeBlocksIsFound) {
  openRaw();
  const auto run = volume_->space().allocate(BlockCount(5), BlockNo(0), false);
  ASSERT_TRUE(run.isOk());
  closeRaw();
  expectMended({"calls 5 free blocks used, the first is " + std::to_string(run->start.v)});
  expectSample();
}

TEST_F(CheckSpaceTest, AnUnreadableSnapshotIsFoundAndWrittenAnew) {
  const auto sound = device_->clone();
  const auto spoilHeader = [](IndexBatch& batch) { batch.put("G", "garbage"); };
  const auto spoilGroup = [](IndexBatch& batch) { batch.put(freeGroupKey(0), "garbage"); };
  const auto loseGroup = [](IndexBatch& batch) { batch.erase(freeGroupKey(0)); };
  const auto strayGroup = [](IndexBatch& batch) {
    batch.put(freeGroupKey(UINT64_MAX), std::string("\x01\0\0\0\0", 5));
  };
  const std::function<void(IndexBatch&)> kinds[] = {spoilHeader, spoilGroup, loseGroup, strayGroup};
  for (const auto& kind : kinds) {
    device_ = sound->clone();
    damageIndex(kind);
    expectMended({"the free-space snapshot cannot be read"});
    expectSample();
    unmount();
  }
}

}  // namespace
}  // namespace ourfs::test
