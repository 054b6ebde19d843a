// Format, open, close, crash and open again; the free map and its snapshot; looking without
// touching.
#include "fs/volume.h"

#include <gmock/gmock.h>

#include <cstring>
#include <set>

#include "../../fs/src/free_snapshot.h"
#include "block/fault_device.h"
#include "block/record_device.h"
#include "mutant.h"
#include "volume_fixture.h"

namespace ourfs {
namespace {

using test::messageOf;
using test::VolumeTest;
using ::testing::HasSubstr;

std::vector<BlockRun> freeRuns(const Volume& volume) {
  std::vector<BlockRun> runs;
  const_cast<Volume&>(volume).space().forEachFree([&](BlockRun r) { runs.push_back(r); });
  return runs;
}

// The whole contents of a device, in pieces that differ from zero.
std::string contents(BlockDevice& device) {
  std::string all(device.size().v, '\0');
  EXPECT_TRUE(device.read(DeviceOffset(0), std::as_writable_bytes(std::span(all))).isOk());
  return all;
}

TEST_F(VolumeTest, AFreshVolumeHasARootDirectoryAndIsClean) {
  format();
  EXPECT_TRUE(onDisk().clean);
  open();
  EXPECT_TRUE(volume_->summary().wasClean);
  auto value = volume_->index().get(inodeKey(InodeNo(1)));
  ASSERT_OK(value);
  ASSERT_TRUE(value->has_value());
  auto root = decodeInode(InodeNo(1), **value);
  ASSERT_OK(root);
  EXPECT_EQ(root->mode, 040755u);
  EXPECT_EQ(root->nlink, 2u);
  EXPECT_EQ(root->parent, 1u);
  EXPECT_FALSE(onDisk().clean);
  close();
  EXPECT_TRUE(onDisk().clean);
}

struct Geometry {
  uint64_t size;
  uint32_t block, sector;
};
class VolumeGeometryTest : public VolumeTest, public ::testing::WithParamInterface<Geometry> {};

TEST_P(VolumeGeometryTest, FormatsOpensCommitsAndComesBack) {
  const Geometry& g = GetParam();
  format(ByteCount(g.size), g.block, g.sector);
  if (HasFatalFailure()) return;
  for (int mount = 0; mount < 3; ++mount) {
    open();
    if (HasFatalFailure()) return;
    EXPECT_TRUE(volume_->summary().wasClean);
    EXPECT_EQ(get("mount").value_or("-1"), std::to_string(mount - 1));
    put("mount", std::to_string(mount));
    putExtent(InodeNo(static_cast<uint64_t>(10 + mount)), 7);
    close();
  }
  open();
  EXPECT_TRUE(volume_->summary().snapshotUsed);
  EXPECT_EQ(volume_->superblock().mountCount, 4u);
}

std::vector<Geometry> geometries() {
  std::vector<Geometry> all;
  for (uint64_t size : {32 * MiB, 200 * MiB + 512, 10 * GiB, 1024 * GiB}) {
    for (uint32_t block = kMinBlockSize; block <= kMaxBlockSize; block *= 2) {
      if (size > GiB && block != 4096 && block != 65536) continue;
      for (uint32_t sector : {512u, 4096u}) {
        if (block >= sector && (size < GiB || sector == 512))
          all.push_back({roundDown(size, sector), block, sector});
      }
    }
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, VolumeGeometryTest, ::testing::ValuesIn(geometries()),
                         [](const auto& i) {
                           return std::to_string(i.param.size / MiB) + "MiB_" +
                                  std::to_string(i.param.block) + "_" +
                                  std::to_string(i.param.sector);
                         });

TEST_F(VolumeTest, WhatWasFlushedIsThereAfterACrash) {
  formatAndOpen();
  for (int i = 0; i < 50; ++i) put("k" + std::to_string(i), "v");
  flush(put("last", "flushed"));
  crash();
  open();
  EXPECT_FALSE(volume_->summary().wasClean);
  EXPECT_EQ(volume_->summary().replay.records, 51u);
  EXPECT_EQ(get("last"), "flushed");
  EXPECT_EQ(get("k0"), "v");
}

TEST_F(VolumeTest, WhatWasNotFlushedIsGoneAfterACrashAsIfItHadNeverBeen) {
  formatAndOpen();
  flush(put("a", "1"));
  put("a", "2");
  crash();
  open();
  EXPECT_EQ(get("a"), "1");
}

TEST_F(VolumeTest, ACheckpointEmptiesTheJournal) {
  formatAndOpen();
  put("a", "1");
  EXPECT_NE(volume_->log().journal().used(), ByteCount(0));
  ASSERT_OK(volume_->checkpoint());
  EXPECT_EQ(volume_->log().journal().used(), ByteCount(0));
  crash();
  open();
  EXPECT_EQ(volume_->summary().replay.records, 0u);
  EXPECT_EQ(get("a"), "1");
}

TEST_F(VolumeTest, TheJournalAsksForACheckpointBeforeItIsFull) {
  formatAndOpen();
  const uint64_t ring = volume_->superblock().journalSize.v;
  const std::string value(4000, 'x');
  for (uint64_t written = 0; written < 5 * ring; written += value.size()) {
    put("k" + std::to_string(written % 64), value);
    if (HasFailure()) return;
  }
  put("last", "1");
  flush(volume_->log().journal().head().end);
  crash();
  open();
  EXPECT_EQ(get("last"), "1");
}

TEST_F(VolumeTest, EveryMountThatWritesTakesANewGeneration) {
  formatAndOpen();
  const uint64_t first = volume_->superblock().generation;
  crash();
  open();
  EXPECT_EQ(volume_->superblock().generation, first + 1);
  close();
  openReadOnly();
  EXPECT_EQ(volume_->superblock().generation, first + 1);
}

// ---- free map ----

TEST_F(VolumeTest, ACleanMountTakesTheFreeMapFromTheSnapshot) {
  formatAndOpen();
  for (uint64_t i = 10; i < 60; ++i) putExtent(InodeNo(i), 1 + i % 5);
  freeExtent(InodeNo(500), putExtent(InodeNo(500), 9));
  flush(volume_->log().journal().head().end);
  close();
  open();
  EXPECT_TRUE(volume_->summary().snapshotUsed);
  const auto fromSnapshot = freeRuns(*volume_);
  crash();
  open();
  EXPECT_FALSE(volume_->summary().snapshotUsed) << "a crash makes it worthless";
  EXPECT_EQ(volume_->summary().extents, 50u);
  EXPECT_EQ(freeRuns(*volume_), fromSnapshot);
}

TEST_F(VolumeTest, ASnapshotOfAnEarlierMountIsNotTrusted) {
  formatAndOpen();
  close();
  open();
  const BlockRun run = putExtent(InodeNo(10), 20);
  flush(volume_->log().journal().head().end);
  crash();
  open();
  EXPECT_FALSE(volume_->space().markUsed(run)) << "the extent was found by the scan";
}

TEST_F(VolumeTest, AMountIsDirtyBeforeItsFirstAllocation) {
  for (const std::string mutant : {"", "volume.dirty_late"}) {
    formatAndOpen();
    close();  // leaves a snapshot
    if (!mutant.empty()) SyncPoints::instance().setMutant(mutant, true);
    open();
    const BlockRun run = putExtent(InodeNo(10), 20);
    ASSERT_OK(volume_->checkpoint());
    crash();
    SyncPoints::instance().reset();
    open();
    const bool givenTwice = volume_->space().markUsed(run);
    EXPECT_EQ(givenTwice, !mutant.empty());
    if (givenTwice) test::reportCaught(mutant, 1, "no old snapshot is trusted after a crash");
    volume_.reset();
  }
}

TEST_F(VolumeTest, ADamagedSnapshotIsReplacedByAScan) {
  formatAndOpen();
  putExtent(InodeNo(10), 20);
  close();
  // A header that is valid, but of other values: as if a group's value had been lost.
  open();
  const auto header = volume_->index().get(kFreeHeaderKey);
  ASSERT_OK(header);
  ASSERT_TRUE(header->has_value());
  const auto before = freeRuns(*volume_);
  close();
  open();
  const uint64_t generation = volume_->superblock().generation;
  close();
  {
    IndexOptions options;
    options.geometry = indexGeometry(onDisk());
    options.beforePersist = [] { return Status::ok(); };
    auto index = Index::open(*device_, options);
    ASSERT_OK(index);
    IndexBatch batch;
    batch.erase(freeGroupKey(0));
    ASSERT_OK((*index)->apply(batch, (*index)->applied()));
    ASSERT_OK((*index)->close());
  }
  ASSERT_EQ(onDisk().generation, generation);
  open();
  EXPECT_TRUE(volume_->summary().wasClean);
  EXPECT_FALSE(volume_->summary().snapshotUsed);
  EXPECT_EQ(freeRuns(*volume_), before);
}

// The first run of used blocks is one block further on: the counts are right, the blocks are not.
TEST_F(VolumeTest, ASnapshotWithAWrongChecksumIsNotUsed) {
  formatAndOpen();
  const BlockRun run = putExtent(InodeNo(10), 100);
  const uint64_t group = run.start.v / kGroupBlocks;
  close();
  {
    IndexOptions options;
    options.geometry = indexGeometry(onDisk());
    options.beforePersist = [] { return Status::ok(); };
    auto index = Index::open(*device_, options);
    ASSERT_OK(index);
    auto value = (*index)->get(freeGroupKey(group));
    ASSERT_TRUE(value.isOk() && *value);
    auto used = decodeGroup(**value);
    ASSERT_OK(used);
    for (auto& each : *used) each.start += each.start == run.start.v % kGroupBlocks ? 1 : 0;
    IndexBatch batch;
    batch.put(freeGroupKey(group), encodeGroup(*used));
    ASSERT_NE(encodeGroup(*used), **value);
    ASSERT_OK((*index)->apply(batch, (*index)->applied()));
    ASSERT_OK((*index)->close());
  }
  const auto damaged = device_->clone();
  open();
  EXPECT_FALSE(volume_->summary().snapshotUsed);
  EXPECT_FALSE(volume_->space().markUsed({run.start, BlockCount(1)}));
  crash();
  ScopedMutant mutant("space.skip_snapshot_checksum");
  ASSERT_OK(tryOpenOn(*damaged));
  EXPECT_TRUE(volume_->space().markUsed({run.start, BlockCount(1)})) << "a used block, given out";
  test::reportCaught("space.skip_snapshot_checksum", 1, "no used block is taken for a free one");
  volume_.reset();
}

TEST_F(VolumeTest, ABlockInTwoExtentsRefusesTheMountButNotTheCheck) {
  formatAndOpen();
  const BlockRun run = putExtent(InodeNo(10), 4);
  putExtentAt(InodeNo(11), {run.start + BlockCount(3), BlockCount(2)});
  flush(volume_->log().journal().head().end);
  crash();
  const Status refused = tryOpen();
  EXPECT_EQ(refused.errnum(), EUCLEAN);
  EXPECT_THAT(refused.message(), HasSubstr("run fsck.ourfs"));
  OpenOptions options;
  options.forCheck = true;
  open(options);
  EXPECT_FALSE(volume_->space().markUsed({run.start + BlockCount(4), BlockCount(1)}));
}

TEST_F(VolumeTest, AnExtentOutsideTheVolumeRefusesTheMount) {
  formatAndOpen();
  putExtentAt(InodeNo(10), {BlockNo(volume_->superblock().blocks().v - 1), BlockCount(2)});
  flush(volume_->log().journal().head().end);
  crash();
  EXPECT_EQ(tryOpen().errnum(), EUCLEAN);
  OpenOptions options;
  options.forCheck = true;
  open(options);
}

TEST_F(VolumeTest, FreedBlocksComeBackWhenTheirTransactionIsDurable) {
  formatAndOpen();
  const BlockRun run = putExtent(InodeNo(10), 50);
  const uint64_t free = volume_->space().counts().free.v;
  const Lsn lsn = freeExtent(InodeNo(10), run);
  EXPECT_EQ(volume_->space().counts().busy, BlockCount(50));
  EXPECT_EQ(volume_->space().counts().free.v, free);
  flush(lsn);
  EXPECT_EQ(volume_->space().counts().busy, BlockCount(0));
  EXPECT_EQ(volume_->space().counts().free.v, free + 50);
}

TEST_F(VolumeTest, AFullVolumeSaysSoFreesAndGoesOn) {
  formatAndOpen();
  for (int cycle = 0; cycle < 3; ++cycle) {
    std::vector<BlockRun> runs;
    while (true) {
      auto run = volume_->space().allocate(BlockCount(16), BlockNo(0), false);
      if (!run.isOk()) {
        EXPECT_EQ(run.errnum(), ENOSPC);
        break;
      }
      runs.push_back(*run);
      putExtentAt(InodeNo(100 + runs.size()), *run);
      if (HasFailure()) return;
    }
    EXPECT_GT(runs.size(), 100u);
    for (size_t i = 0; i < runs.size(); ++i) {
      Transaction t;
      t.erase(extentKey(InodeNo(101 + i), FileOffset(0)));
      t.freeBlocks(runs[i]);
      auto room = volume_->log().reserve(kAttributeRoom, Privilege::Freeing);
      ASSERT_OK(room);
      ASSERT_OK(volume_->log().commit(std::move(t), std::move(*room)));
    }
  }
  close();
  open();
  EXPECT_TRUE(volume_->summary().wasClean);
}

// ---- looking without touching ----

TEST_F(VolumeTest, AReadOnlyMountChangesNoByteEvenIfItHasToReplay) {
  formatAndOpen();
  ASSERT_OK(volume_->checkpoint());
  flush(put("a", "replayed"));
  crash();
  const std::string before = contents(*device_);
  openReadOnly();
  EXPECT_TRUE(volume_->readOnly());
  EXPECT_EQ(volume_->summary().replay.records, 1u);
  EXPECT_EQ(get("a"), "replayed");
  EXPECT_EQ(volume_->log().reserve(kAttributeRoom).errnum(), EROFS);
  ASSERT_OK(volume_->log().flush(volume_->log().journal().head().end, FlushScope::LogAndData));
  close();
  EXPECT_EQ(contents(*device_) == before, true);
  OpenOptions options;
  options.readOnly = options.noRecovery = true;
  open(options);
  EXPECT_EQ(get("a"), std::nullopt);
  close();
  EXPECT_EQ(contents(*device_) == before, true);
}

TEST_F(VolumeTest, ANoRecoveryMountMustBeReadOnly) {
  format();
  OpenOptions options;
  options.noRecovery = true;
  EXPECT_EQ(tryOpen(options).errnum(), EINVAL);
}

TEST_F(VolumeTest, UnknownRoCompatBitsMakeTheMountReadOnly) {
  format();
  Superblock s = onDisk();
  s.roCompat = 4;
  ASSERT_OK(SuperblockStore(*device_).storeBoth(s));
  const std::string before = contents(*device_);
  open();
  EXPECT_TRUE(volume_->readOnly());
  close();
  EXPECT_EQ(contents(*device_) == before, true);
}

TEST_F(VolumeTest, WhatIsNoVolumeIsRefusedWithOneLine) {
  device_ = MemoryDevice::create(ByteCount(32 * MiB));
  EXPECT_EQ(tryOpen().message(), "not an ourfs volume");
  device_ = MemoryDevice::create(ByteCount(512));
  EXPECT_EQ(tryOpen().message(), "not an ourfs volume");
}

TEST_F(VolumeTest, ATruncatedImageIsNamed) {
  format(ByteCount(64 * MiB));
  auto shorter = MemoryDevice::create(ByteCount(40 * MiB));
  const std::string bytes = contents(*device_).substr(0, 40 * MiB);
  ASSERT_OK(shorter->write(DeviceOffset(0), std::as_bytes(std::span(bytes))));
  device_ = std::move(shorter);
  EXPECT_THAT(tryOpen().message(), HasSubstr("truncated image?"));
}

// ---- LSN rules ----

TEST_F(VolumeTest, AnIndexOlderThanTheJournalIsRefused) {
  formatAndOpen();
  const auto old = device_->clone();
  const uint64_t ring = volume_->superblock().journalSize.v;
  for (uint64_t written = 0; written < 2 * ring; written += 4096) put("k", std::string(4000, 'x'));
  flush(volume_->log().journal().head().end);
  const Superblock s = volume_->superblock();
  crash();
  // The index of then with the journal of now.
  std::string journal(s.journalSize.v, '\0');
  auto span = std::as_writable_bytes(std::span(journal));
  ASSERT_OK(device_->read(s.journalStart, span));
  ASSERT_OK(old->write(s.journalStart, span));
  const Status refused = tryOpenOn(*old);
  EXPECT_EQ(refused.errnum(), EUCLEAN) << refused.message();
}

TEST_F(VolumeTest, AnIndexBeyondTheJournalIsRefused) {
  formatAndOpen();
  put("a", "1");
  ASSERT_OK(volume_->checkpoint());
  const Superblock s = volume_->superblock();
  crash();
  ASSERT_OK(tryOpen());
  crash();
  ASSERT_OK(eraseJournal(*device_, {s.journalStart, s.journalSize, s.journalSector}));
  const Status refused = tryOpen();
  EXPECT_EQ(refused.errnum(), EUCLEAN);
  EXPECT_THAT(refused.message(), HasSubstr("does not reach"));
  ScopedMutant mutant("volume.skip_reach");
  ASSERT_OK(tryOpen());
  test::reportCaught("volume.skip_reach", 1, "an index beyond the journal is refused");
}

// ---- failures ----

TEST_F(VolumeTest, AFailedJournalWriteIsFailStop) {
  format();
  auto faults = FaultDevice::wrap(*device_);
  ASSERT_OK(tryOpenOn(*faults));
  flush(put("a", "1"));
  FaultRule rule;
  rule.op = IoOp::Write;
  rule.cls = IoClass::Journal;
  faults->addRule(rule);
  const Lsn lsn = put("b", "1");
  EXPECT_FALSE(volume_->log().flush(lsn).isOk());
  EXPECT_TRUE(volume_->readOnly());
  EXPECT_FALSE(volume_->failure().isOk());
  EXPECT_FALSE(volume_->log().reserve(kAttributeRoom).isOk());
  EXPECT_FALSE(volume_->close().isOk());
  open();
  EXPECT_FALSE(volume_->summary().wasClean);
  EXPECT_EQ(get("a"), "1");
}

TEST_F(VolumeTest, AFailedIndexWriteIsFailStopAndTheJournalHasIt) {
  format();
  auto faults = FaultDevice::wrap(*device_);
  ASSERT_OK(tryOpenOn(*faults));
  FaultRule rule;
  rule.op = IoOp::Write;
  rule.cls = IoClass::Index;
  rule.times = UINT64_MAX;
  flush(put("a", "1"));
  faults->addRule(rule);
  EXPECT_FALSE(volume_->checkpoint().isOk());
  EXPECT_TRUE(volume_->readOnly());
  EXPECT_FALSE(volume_->log().reserve(kAttributeRoom).isOk());
  EXPECT_FALSE(volume_->close().isOk());
  open();
  EXPECT_EQ(get("a"), "1");
}

TEST_F(VolumeTest, ACrashInMkfsLeavesNoHalfVolume) {
  format();
  const auto base = device_->clone();
  auto record = RecordDevice::wrap(*device_);
  ASSERT_OK(formatVolume(*record, FormatOptions{}));
  const auto log = record->log();
  const uint64_t firstOther = [&] {
    for (const RecordedIo& io : log) {
      if (io.op == IoOp::Write && io.cls != IoClass::Superblock) return io.submitted;
    }
    return uint64_t{0};
  }();
  ASSERT_GT(firstOther, 0u);
  for (uint64_t point = 0; point <= record->clock(); point += 7) {
    auto image =
        crashImage(*base, log, point, [&](size_t, size_t sector) { return sector % 2 == 0; });
    auto opened = Volume::open(*image, OpenOptions{});
    if (point >= firstOther && !opened.isOk()) {
      EXPECT_THAT(opened.status().message(), HasSubstr("not an ourfs volume"));
    }
    EXPECT_TRUE(!opened.isOk() || (*opened)->index().get(inodeKey(InodeNo(1)))->has_value());
  }
}

// ---- inode numbers ----

TEST_F(VolumeTest, InodeNumbersAreNeverUsedTwice) {
  formatAndOpen();
  std::set<uint64_t> seen;
  const auto create = [&](bool durable) {
    Transaction t;
    const InodeNo ino = volume_->newInodeNumber(t);
    t.put(inodeKey(ino), encodeInode(ino, InodeRecord{}));
    const Lsn lsn = commit(std::move(t));
    if (durable) flush(lsn);
    return ino.v;
  };
  for (int mount = 0; mount < 4; ++mount) {
    uint64_t last = 0;
    for (int i = 0; i < 100; ++i) {
      last = create(false);
      ASSERT_TRUE(seen.insert(last).second) << last;
    }
    ASSERT_TRUE(seen.insert(create(true)).second);
    if (mount % 2 == 0) {
      crash();
    } else {
      close();
    }
    open();
  }
  EXPECT_GE(*seen.begin(), 2u);
}

TEST_F(VolumeTest, ANumberWhoseWatermarkWasNotCommittedBringsItAlong) {
  formatAndOpen();
  Transaction lost, kept;
  (void)volume_->newInodeNumber(lost);  // never committed
  const InodeNo ino = volume_->newInodeNumber(kept);
  kept.put(inodeKey(ino), encodeInode(ino, InodeRecord{}));
  flush(commit(std::move(kept)));
  Transaction later;
  (void)volume_->newInodeNumber(later);
  EXPECT_TRUE(later.empty()) << "the watermark is in the log now";
  crash();
  open();
  Transaction t;
  EXPECT_GT(volume_->newInodeNumber(t), ino);
}

}  // namespace
}  // namespace ourfs
