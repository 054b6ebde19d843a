// The mount option discard: when freed blocks go back to the device, and when they can be used
// again.
#include <gtest/gtest.h>

#include <algorithm>

#include "block/fault_device.h"
#include "block/record_device.h"
#include "filesystem_fixture.h"
#include "volume_fixture.h"

namespace ourfs {
namespace {

using test::messageOf;

constexpr InodeNo kFile(10), kOther(11), kThird(12);
constexpr const char* kBeforeSubmit = "discard.before_submit";

class DiscardTest : public test::VolumeTest {
 protected:
  void TearDown() override {
    SyncPoints::instance().reset();  // nobody is parked any more
    VolumeTest::TearDown();
  }
  void openDiscarding() {
    if (!record_) base_ = device_->clone(), record_ = RecordDevice::wrap(*device_);
    ASSERT_OK(tryOpenOn(*record_, discarding()));
  }
  static OpenOptions discarding() {
    OpenOptions options;
    options.discard = true;
    return options;
  }
  void formatAndOpenDiscarding(ByteCount size = ByteCount(32 * MiB), uint32_t blockSize = 4096) {
    format(size, blockSize);
    if (!HasFatalFailure()) openDiscarding();
  }
  std::vector<RecordedIo> discards() {
    std::vector<RecordedIo> found;
    for (RecordedIo& io : record_->log()) {
      if (io.op == IoOp::Discard) found.push_back(std::move(io));
    }
    return found;
  }
  BlockRun runOf(const RecordedIo& io) {
    const uint64_t size = volume_ ? volume_->blockSize() : onDisk().blockSize;
    return {BlockNo(io.offset.v / size), BlockCount(io.length.v / size)};
  }
  // A crash when `io` is submitted, that loses all that is not certain: is the extent there?
  bool extentSurvivesACrashAt(const RecordedIo& io) {
    volume_.reset();
    auto image = crashImage(*base_, record_->log(), io.submitted, [](auto, auto) { return false; });
    auto volume = Volume::open(*image, {});
    EXPECT_TRUE(volume.isOk()) << messageOf(volume);
    if (!volume.isOk()) return false;
    auto extent = (*volume)->index().get(extentKey(kFile, FileOffset(0)));
    EXPECT_TRUE(extent.isOk()) << messageOf(extent);
    return extent.isOk() && *extent;
  }
  // Parks the discarder with a durably freed run in its hand.
  BlockRun freeAndParkTheDiscard(uint64_t blocks) {
    const BlockRun run = putExtent(kFile, blocks);
    SyncPoints::instance().park(kBeforeSubmit);
    const Lsn lsn = freeExtent(kFile, run);
    EXPECT_TRUE(volume_->log().flush(lsn).isOk());
    EXPECT_TRUE(SyncPoints::instance().awaitParked(kBeforeSubmit));
    return run;
  }
  bool bytesWrittenDuringADiscardAreLost();

  std::unique_ptr<MemoryDevice> base_;
  std::unique_ptr<RecordDevice> record_;
};

TEST_F(DiscardTest, FreedBlocksAreDiscardedOnceTheirTransactionIsDurable) {
  formatAndOpenDiscarding();
  const BlockRun run = putExtent(kFile, 50);
  const uint64_t free = volume_->space().counts().free.v;
  flush(freeExtent(kFile, run));
  close();
  ASSERT_EQ(discards().size(), 1u);
  EXPECT_EQ(runOf(discards()[0]), run);
  EXPECT_FALSE(extentSurvivesACrashAt(discards()[0]));
  open();
  EXPECT_TRUE(volume_->summary().snapshotUsed);
  EXPECT_EQ(volume_->space().counts().free.v, free + 50);
}

TEST_F(DiscardTest, WhatIsNotDurableIsNotDiscarded) {
  formatAndOpenDiscarding();
  const BlockRun run = putExtent(kFile, 50);
  flush(volume_->log().journal().head().end);
  freeExtent(kFile, run);
  EXPECT_EQ(volume_->space().counts().busy, BlockCount(50));
  crash();
  EXPECT_EQ(discards().size(), 0u);
}

TEST_F(DiscardTest, DiscardingBeforeItIsDurableIsNoticed) {
  formatAndOpenDiscarding();
  const BlockRun run = putExtent(kFile, 50);
  flush(volume_->log().journal().head().end);
  ScopedMutant mutant("space.discard_early");
  SyncPoints::instance().park(kBeforeSubmit);
  freeExtent(kFile, run);
  ASSERT_TRUE(SyncPoints::instance().awaitParked(kBeforeSubmit));
  SyncPoints::instance().release(kBeforeSubmit);
  crash();
  ASSERT_EQ(discards().size(), 1u);
  EXPECT_TRUE(extentSurvivesACrashAt(discards()[0])) << "a file whose blocks are gone";
}

// Asks for the very blocks that are being discarded, and writes to what it gets.
bool DiscardTest::bytesWrittenDuringADiscardAreLost() {
  const BlockRun parked = freeAndParkTheDiscard(50);
  auto got = volume_->space().allocate(BlockCount(50), parked.start, false);
  EXPECT_TRUE(got.isOk()) << messageOf(got);
  if (!got.isOk()) return false;
  const DeviceOffset at(got->start.v * 4096);
  const std::vector<std::byte> written(got->count.v * 4096, std::byte{0x5a});
  EXPECT_TRUE(record_->write(at, written, IoClass::Data).isOk());
  SyncPoints::instance().release(kBeforeSubmit);
  crash();  // waits for the discard
  EXPECT_EQ(discards().size(), 1u);
  std::vector<std::byte> read(written.size());
  EXPECT_TRUE(device_->read(at, read).isOk());
  return read != written;
}

TEST_F(DiscardTest, BlocksAreNotHandedOutWhileTheirDiscardIsUnderWay) {
  formatAndOpenDiscarding();
  EXPECT_FALSE(bytesWrittenDuringADiscardAreLost());
}

TEST_F(DiscardTest, HandingThemOutWhenTheDiscardIsSubmittedIsNoticed) {
  formatAndOpenDiscarding();
  ScopedMutant mutant("space.free_before_discard");
  EXPECT_TRUE(bytesWrittenDuringADiscardAreLost()) << "the rule is switched off";
}

TEST_F(DiscardTest, BlocksAreBusyUntilTheDiscardHasCompleted) {
  formatAndOpenDiscarding();
  const uint64_t free = volume_->space().counts().free.v;
  const BlockRun run = freeAndParkTheDiscard(50);
  EXPECT_EQ(volume_->space().counts().busy, BlockCount(50));
  volume_->space().forEachFree([&](BlockRun r) {
    EXPECT_TRUE(r.start + r.count <= run.start || run.start + run.count <= r.start);
  });
  SyncPoints::instance().release(kBeforeSubmit);
  close();
  open();
  EXPECT_EQ(volume_->space().counts().free.v, free);
}

TEST_F(DiscardTest, NeighboursThatWaitAreMergedIntoOneDiscard) {
  formatAndOpenDiscarding();
  auto space = volume_->space().allocate(BlockCount(30), BlockNo(0), false);
  ASSERT_OK(space);
  const BlockRun first = freeAndParkTheDiscard(5);
  Transaction t;
  for (uint64_t at : {20, 0, 10}) t.freeBlocks({space->start + BlockCount(at), BlockCount(10)});
  t.put(settingKey("something"), "changes");
  flush(commit(std::move(t)));
  SyncPoints::instance().release(kBeforeSubmit);
  close();
  const auto done = discards();
  ASSERT_EQ(done.size(), 2u);
  EXPECT_EQ(runOf(done[0]), first);
  EXPECT_EQ(runOf(done[1]), *space);
  EXPECT_GT(done[1].submitted, done[0].completed) << "one at a time";
}

TEST_F(DiscardTest, LongRunsAreDiscardedInPieces) {
  formatAndOpenDiscarding(ByteCount(256 * MiB));
  const BlockRun run = putExtent(kFile, 30000);
  ASSERT_GT(run.count.v, 20000u);
  flush(freeExtent(kFile, run));
  close();
  uint64_t next = run.start.v;
  for (const RecordedIo& io : discards()) {
    EXPECT_LE(io.length.v, 64 * MiB);
    EXPECT_EQ(runOf(io).start.v, next);
    next += runOf(io).count.v;
  }
  EXPECT_EQ(next, run.start.v + run.count.v);
  EXPECT_GT(discards().size(), 1u);
}

TEST_F(DiscardTest, OnlyWholePhysicalSectorsAreDiscarded) {
  formatAndOpenDiscarding(ByteCount(32 * MiB), 1024);
  auto space = volume_->space().allocate(BlockCount(32), BlockNo(0), false);
  ASSERT_OK(space);
  const BlockNo aligned(roundUp(space->start.v, 4));
  const uint64_t free = volume_->space().counts().free.v;
  Transaction t;
  t.freeBlocks({aligned + BlockCount(1), BlockCount(10)});  // 3 blocks, 4 that are whole, 3 blocks
  t.freeBlocks({aligned + BlockCount(13), BlockCount(2)});
  t.put(settingKey("something"), "changes");
  flush(commit(std::move(t)));
  close();
  ASSERT_EQ(discards().size(), 1u);
  EXPECT_EQ(runOf(discards()[0]), (BlockRun{aligned + BlockCount(4), BlockCount(4)}));
  open();
  EXPECT_GE(volume_->space().counts().free.v, free + 12);
}

TEST_F(DiscardTest, ADiscardThatFailsHarmsNothing) {
  format();
  auto faults = FaultDevice::wrap(*device_);
  FaultRule rule;
  rule.op = IoOp::Discard;
  rule.times = UINT64_MAX;
  const int number = faults->addRule(rule);
  ASSERT_OK(tryOpenOn(*faults, discarding()));
  const uint64_t free = volume_->space().counts().free.v;
  for (InodeNo ino : {kFile, kOther}) flush(freeExtent(ino, putExtent(ino, 50)));
  close();
  EXPECT_GE(faults->hits(number), 1u);
  open();
  EXPECT_TRUE(volume_->summary().wasClean);
  EXPECT_EQ(volume_->space().counts().free.v, free);
}

TEST_F(DiscardTest, NothingIsDiscardedUnlessItIsAskedFor) {
  format();
  record_ = RecordDevice::wrap(*device_);
  ASSERT_OK(tryOpenOn(*record_, OpenOptions()));
  flush(freeExtent(kFile, putExtent(kFile, 50)));
  EXPECT_EQ(volume_->space().counts().busy, BlockCount(0));
  close();
  EXPECT_EQ(discards().size(), 0u);
}

TEST_F(DiscardTest, AReadOnlyMountDiscardsNothing) {
  formatAndOpenDiscarding();
  const BlockRun run = putExtent(kFile, 50);
  SyncPoints::instance().park(kBeforeSubmit);
  flush(freeExtent(kFile, run));
  ASSERT_TRUE(SyncPoints::instance().awaitParked(kBeforeSubmit));
  volume_->failStop(Status::error(EIO, "a write failed"));
  SyncPoints::instance().release(kBeforeSubmit);
  crash();
  EXPECT_EQ(discards().size(), 0u) << "after a failure nothing is written";
  OpenOptions options = discarding();
  options.readOnly = true;
  ASSERT_OK(tryOpenOn(*record_, options));
  close();
  EXPECT_EQ(discards().size(), 0u);
}

TEST_F(DiscardTest, AFullVolumeHasTheSpaceThatIsBeingDiscarded) {
  formatAndOpenDiscarding();
  const BlockRun second = putExtent(kOther, 20), third = putExtent(kThird, 20);
  const BlockRun first = putExtent(kFile, 20);
  while (volume_->space().allocate(BlockCount(1000), BlockNo(0), false).isOk()) {
  }
  auto& points = SyncPoints::instance();
  points.park(kBeforeSubmit);
  flush(freeExtent(kFile, first));
  ASSERT_TRUE(points.awaitParked(kBeforeSubmit));  // in flight
  flush(freeExtent(kOther, second));               // waits for it
  freeExtent(kThird, third);                       // not durable
  ASSERT_EQ(volume_->space().counts().busy, BlockCount(60));
  // The device answers only when somebody has asked for the space.
  points.call("discard.before_drop", [&] { points.release(kBeforeSubmit); });
  ASSERT_OK(volume_->space().reserve(BlockCount(60)));
  EXPECT_EQ(points.hits("discard.before_drop"), 1u);
  EXPECT_EQ(volume_->space().counts().busy, BlockCount(0));
  volume_->space().unreserve(BlockCount(60));
}

// ---- files ----

class DiscardFilesTest : public test::FilesystemTest {
 protected:
  void SetUp() override {
    device_ = MemoryDevice::create(ByteCount(64 * MiB));
    device_->setFill(std::byte{0xdb});
    ASSERT_TRUE(formatVolume(*device_, FormatOptions()).isOk());
    mountDiscarding();
  }
  void mountDiscarding() {
    OpenOptions options;
    options.discard = true;
    mount(*device_, options);
  }
  // Writes until the volume is full. The bytes that were taken.
  uint64_t fillUp(InodeNo ino) {
    const std::string piece(MiB, 'f');
    OpenFilePtr file = open(ino);
    uint64_t at = 0;
    for (;;) {
      auto done = fs_->write(*file, FileOffset(at), asBytes(piece), {});
      if (!done.isOk()) {
        EXPECT_EQ(done.errnum(), ENOSPC);
        break;
      }
      at += done->v;
    }
    fs_->release(std::move(file));
    return at;
  }
  void remove(std::string_view name) {
    EXPECT_TRUE(fs_->unlink(caller_, test::kRoot, name).isOk());
  }
};

TEST_F(DiscardFilesTest, ARemovedFilesSpaceIsGivenBackAndCounted) {
  const InodeNo kept = file(test::kRoot, "kept");
  const std::string text(3 * MiB, 'k');
  fill(kept, text);
  fill(file(test::kRoot, "gone"), std::string(8 * MiB, 'g'));
  ASSERT_TRUE(fs_->syncAll().isOk());
  fs_->forget(lookup(test::kRoot, "gone"), 1);
  remove("gone");
  EXPECT_EQ(fs_->stop().errnum(), 0);
  EXPECT_NE(fs_->stats(false).find("volume.discarded_bytes "), std::string::npos);
  EXPECT_EQ(volume_->close().errnum(), 0);
  EXPECT_GE(volume_->discards().bytes, 8 * MiB);
  EXPECT_GE(volume_->discards().discards, 1u);
  EXPECT_EQ(volume_->discards().errors, 0u);
  fs_.reset();
  volume_.reset();
  expectSound(*device_);
  mount();
  OpenFilePtr again = open(kept);
  EXPECT_EQ(read(*again, 0, text.size()) == text, true);
  fs_->release(std::move(again));
}

TEST_F(DiscardFilesTest, AFullVolumeCanBeEmptiedAndFilledAgain) {
  const InodeNo first = file(test::kRoot, "first");
  const uint64_t room = fillUp(first);
  ASSERT_GT(room, 20 * MiB);
  fs_->forget(first, 1);
  for (int cycle = 0; cycle < 3; ++cycle) {
    remove(cycle == 0 ? "first" : "again");
    const InodeNo again = file(test::kRoot, "again");
    EXPECT_GE(fillUp(again) + 2 * MiB, room) << "cycle " << cycle;
    fs_->forget(again, 1);
  }
}

}  // namespace
}  // namespace ourfs
