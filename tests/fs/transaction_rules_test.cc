// The rules of reserve and commit, one by one, each with its mutant.
#include <algorithm>
#include <random>
#include <thread>

#include "block/fault_device.h"
#include "block/record_device.h"
#include "common/aligned_buffer.h"
#include "filesystem_fixture.h"
#include "mutant.h"
#include "volume_fixture.h"

namespace ourfs::test {
namespace {

class CommitRulesTest : public VolumeTest {
 protected:
  void formatAndOpen(const std::string& mutant) {
    volume_.reset();
    SyncPoints::instance().reset();
    VolumeTest::formatAndOpen();
    if (!mutant.empty()) SyncPoints::instance().setMutant(mutant, true);
  }
  // Two settings that always change together.
  Transaction pair(char value) {
    Transaction t;
    t.put(settingKey("one"), std::string(500, value));
    t.put(settingKey("two"), std::string(500, value));
    return t;
  }
  // Takes every block that can be had, the metadata reserve included.
  void takeAllSpace() {
    while (true) {
      auto run =
          volume_->space().allocate(BlockCount(1 << 20), BlockNo(0), false, SpaceUse::Metadata);
      if (!run.isOk()) return;
      taken_.push_back(*run);
    }
  }
  std::vector<BlockRun> taken_;
};

// The journal has copied half of a record when the next transaction is made.
TEST_F(CommitRulesTest, WhatTheJournalCopiesIsPinned) {
  auto& points = SyncPoints::instance();
  for (const std::string mutant : {"", "transaction.unpinned"}) {
    formatAndOpen(mutant);
    flush(commit(pair('0')));
    auto room = volume_->log().reserve(kAttributeRoom);  // while the log lock can be had
    ASSERT_OK(room);
    points.park("journal.append_copy");
    std::thread first([&] { flush(commit(pair('1'))); });
    ASSERT_TRUE(points.awaitParked("journal.append_copy"));
    points.park("transaction.encoded");
    std::thread second(
        [&] { EXPECT_TRUE(volume_->log().commit(pair('2'), std::move(*room)).isOk()); });
    ASSERT_TRUE(points.awaitParked("transaction.encoded"));
    points.release("journal.append_copy");
    first.join();
    const auto crashed = device_->clone();
    points.release("transaction.encoded");
    second.join();
    points.reset();

    ASSERT_OK(tryOpenOn(*crashed));
    const auto one = get("one"), two = get("two");
    ASSERT_TRUE(one && two);
    const bool mixed = *one != *two || *one != std::string(500, '1');
    EXPECT_EQ(mixed, !mutant.empty());
    if (mixed) reportCaught(mutant, 1, "a record is the old or the new one, never a mix");
    volume_.reset();
  }
}

TEST_F(CommitRulesTest, TheIndexHasTheOrderOfTheLog) {
  auto& points = SyncPoints::instance();
  for (const std::string mutant : {"", "transaction.apply_unlocked"}) {
    formatAndOpen(mutant);
    if (!mutant.empty()) points.park("transaction.before_apply");
    std::thread first([&] { put("k", "first"); });
    if (mutant.empty()) {
      first.join();
    } else {
      ASSERT_TRUE(points.awaitParked("transaction.before_apply"));
    }
    flush(put("k", "second"));
    points.release("transaction.before_apply");
    if (first.joinable()) first.join();
    const auto served = get("k");
    crash();
    points.reset();
    open();
    EXPECT_EQ(served == get("k"), mutant.empty());
    if (served != get("k")) reportCaught(mutant, 1, "replay ends with what the index had");
  }
}

TEST_F(CommitRulesTest, NoCommitOverrunsItsReservation) {
  for (const bool mutant : {false, true}) {
    formatAndOpen("");
    SyncPoints::instance().setMutant("transaction.commit_without_reservation", mutant);
    SyncPoints::instance().setMutant("journal.overrun_reservation", mutant);
    // As many small rooms as the ring has, and nobody persists what is committed.
    std::vector<TransactionLog::Room> rooms;
    const uint64_t ring = volume_->superblock().journalSize.v;
    for (uint64_t charged = 0; charged < ring / 3; charged += 5 * KiB) {
      auto room = volume_->log().reserve(ByteCount(64));
      ASSERT_OK(room);
      rooms.push_back(std::move(*room));
    }
    SyncPoints::instance().park("index.before_manifest_sync");
    Status refused;
    for (TransactionLog::Room& room : rooms) {
      Transaction t;
      t.put(settingKey("large"), std::string(60000, 'x'));
      auto done = volume_->log().commit(std::move(t), std::move(room));
      if (refused.isOk()) refused = done.status();
      if (done.isOk()) flush(*done);
    }
    rooms.clear();
    EXPECT_EQ(refused.errnum(), mutant ? 0 : EOVERFLOW);
    const auto crashed = device_->clone();
    SyncPoints::instance().reset();
    const Status opened = tryOpenOn(*crashed);
    EXPECT_EQ(opened.errnum(), mutant ? EUCLEAN : 0) << opened.message();
    volume_.reset();
    if (mutant)
      reportCaught("transaction.commit_without_reservation", 1, "nothing above the tail is lost");
  }
}

// Without a block to grow into, transactions are refused one after the other; the volume serves on.
TEST_F(CommitRulesTest, NoSpaceIsNoFailure) {
  std::mt19937 random(1);  // nothing that compresses
  std::string value(500, '\0');
  uint64_t kept = 0;
  const auto add = [&] {
    for (char& c : value) c = static_cast<char>(random());
    Transaction t;
    t.put(settingKey("k" + std::to_string(kept)), value);
    const Status done = tryCommit(std::move(t)).status();
    if (done.isOk()) ++kept;
    return done;
  };
  const auto fill = [&] {
    Status done;
    while (done.isOk() && kept < 500000) done = add();
    EXPECT_EQ(done.errnum(), ENOSPC);
  };
  const auto reserveToFree = [&] {
    return volume_->log().reserve(kAttributeRoom, Privilege::Freeing);
  };
  for (const std::string mutant : {"", "transaction.enospc_aborts"}) {
    formatAndOpen(mutant);
    kept = 0;
    taken_.clear();
    while (kept < 20) ASSERT_OK(add());
    takeAllSpace();
    fill();
    EXPECT_EQ(volume_->readOnly(), !mutant.empty());
    if (volume_->readOnly()) reportCaught(mutant, 1, "ENOSPC never aborts the journal");
    if (!mutant.empty()) continue;
    {
      ScopedMutant rule("transaction.freeing_needs_room");
      Status refused;
      // A compaction that was under way may have made room again.
      for (int i = 0; i < 10 && refused.isOk(); ++i) {
        fill();
        refused = reserveToFree().status();
      }
      EXPECT_EQ(refused.errnum(), ENOSPC);
      reportCaught("transaction.freeing_needs_room", 1, "what frees space is never refused");
    }
    Transaction t;
    for (uint64_t i = 0; i < 10; ++i) t.erase(settingKey("k" + std::to_string(i)));
    auto room = reserveToFree();
    ASSERT_OK(room);
    auto lsn = volume_->log().commit(std::move(t), std::move(*room));
    ASSERT_OK(lsn);
    flush(*lsn);
    for (const BlockRun& run : taken_) volume_->space().freeUnstored(run);
    close();
    open();
    EXPECT_EQ(get("k9"), std::nullopt);
    EXPECT_TRUE(get("k10").has_value());
  }
}

// ---- through the filesystem ----

class DataRulesTest : public FilesystemTest {
 protected:
  void TearDown() override {
    FilesystemTest::TearDown();
    fs_.reset();
    volume_.reset();
  }
  void direct(OpenFile& file, char fill, uint64_t bytes) {
    AlignedBuffer buffer(bytes);
    std::ranges::fill(buffer.span(), static_cast<std::byte>(fill));
    FileData::WriteFlags flags;
    flags.direct = true;
    ASSERT_TRUE(fs_->write(file, FileOffset(0), buffer.span(), flags).isOk());
  }
  std::unique_ptr<MemoryDevice> base_;
  std::unique_ptr<RecordDevice> record_;
};

// fallocate has its room for one hole; then the free space falls into single blocks.
TEST_F(DataRulesTest, AReservationIsForTheWorstCase) {
  constexpr uint64_t kBlocks = 256;
  for (const std::string mutant : {"", "data.reserve_by_sample"}) {
    if (!mutant.empty()) SyncPoints::instance().setMutant(mutant, true);
    const InodeNo ino = file(kRoot, "f" + mutant);
    OpenFilePtr handle = open(ino);
    SyncPoints::instance().park("journal.after_reserve");
    Status done;
    std::thread allocate([&] {
      done = fs_->fallocate(*handle, FALLOC_FL_KEEP_SIZE, FileOffset(0), ByteCount(kBlocks * 4096));
    });
    ASSERT_TRUE(SyncPoints::instance().awaitParked("journal.after_reserve"));
    // All but what was promised is taken; every other block of it goes back; then the long runs are
    // taken, so that the promise has to be kept from single blocks.
    SpaceAllocator& space = volume_->space();
    std::vector<BlockRun> taken;
    const auto takeAll = [&] {
      while (true) {
        auto run = space.allocate(BlockCount(1 << 20), BlockNo(0), false, SpaceUse::Metadata);
        if (!run.isOk()) return;
        taken.push_back(*run);
      }
    };
    takeAll();
    const BlockRun largest =
        *std::ranges::max_element(taken, {}, [](const BlockRun& run) { return run.count.v; });
    std::erase(taken, largest);
    ASSERT_GT(largest.count.v, 4 * kBlocks);
    for (uint64_t b = 0; b < largest.count.v; ++b) {
      const BlockRun one{largest.start + BlockCount(b), BlockCount(1)};
      if (b % 2 == 1 && b < 2 * kBlocks) {
        space.freeUnstored(one);
      } else {
        taken.push_back(one);
      }
    }
    takeAll();
    EXPECT_EQ(space.counts().free, BlockCount(kBlocks));
    SyncPoints::instance().release("journal.after_reserve");
    allocate.join();
    for (const BlockRun& run : taken) space.freeUnstored(run);
    fs_->release(std::move(handle));
    EXPECT_EQ(volume_->readOnly(), !mutant.empty()) << volume_->failure().message();
    EXPECT_EQ(done.errnum(), mutant.empty() ? 0 : EOVERFLOW) << done.message();
    if (mutant.empty()) {
      auto report = volume_->index().get(inodeKey(ino));
      ASSERT_TRUE(report.isOk() && *report);
      EXPECT_EQ(decodeInode(ino, **report)->blocks, kBlocks * 4096);
      unmountClean();
      mount();
    } else {
      reportCaught(mutant, 1, "a reservation is never an unlocked sample");
    }
  }
  SyncPoints::instance().reset();
  crash();
  mount();
}

TEST_F(DataRulesTest, AnAcknowledgedOverwriteIsDurable) {
  const InodeNo ino = file(kRoot, "f");
  fill(ino, std::string(8192, 'o'));
  unmount();
  base_ = device_->clone();
  record_ = RecordDevice::wrap(*device_);
  // Nobody but the test flushes.
  options_.commitInterval = std::chrono::hours(1);
  options_.data.writeback.expire = options_.data.writeback.interval = std::chrono::hours(1);
  mount(*record_);
  for (const std::string mutant : {"", "data.fsync_without_flush"}) {
    if (!mutant.empty()) SyncPoints::instance().setMutant(mutant, true);
    const char now = mutant.empty() ? 'n' : 'm';
    OpenFilePtr handle = open(ino);
    direct(*handle, now, 8192);
    ASSERT_TRUE(fs_->fsync(*handle, true).isOk());
    auto image =
        crashImage(*base_, record_->log(), record_->mark(), [](auto, auto) { return false; });
    fs_->release(std::move(handle));
    auto volume = Volume::open(*image, {});
    ASSERT_TRUE(volume.isOk()) << volume.status().message();
    auto other = Filesystem::start(**volume, options_);
    ASSERT_TRUE(other.isOk());
    auto found = (*other)->open(ino, O_RDONLY);
    ASSERT_TRUE(found.isOk());
    std::string bytes(8192, '\0');
    const auto into = std::as_writable_bytes(std::span(bytes));
    ASSERT_TRUE((*other)->read(**found, FileOffset(0), into).isOk());
    (*other)->release(std::move(*found));
    const bool there = bytes == std::string(8192, now);
    EXPECT_EQ(there, mutant.empty()) << bytes[0];
    if (!there) reportCaught(mutant, 1, "acknowledge late: an overwrite behind a device flush");
  }
}

// A read past the cache is with the device when its file is cut; then somebody else would write to
// the blocks.
TEST_F(DataRulesTest, NoBlockIsWrittenUnderARead) {
  const std::string old(8 * 4096, 'o');
  for (const bool mutant : {false, true}) {
    const InodeNo ino = file(kRoot, mutant ? "without" : "with");
    fill(ino, old);
    unmount();
    auto faults = FaultDevice::wrap(*device_);
    mount(*faults);
    const auto stored = volume_->index().get(extentKey(ino, FileOffset(0)));
    ASSERT_TRUE(stored.isOk() && *stored);
    const ExtentRecord extent = *decodeExtent(ino, FileOffset(0), **stored);
    ASSERT_EQ(extent.blocks, 8u);
    const BlockRun blocks{BlockNo(extent.block), BlockCount(extent.blocks)};
    OpenFilePtr handle = open(ino);
    SyncPoints::instance().setMutant("iomap.read_without_lock", mutant);
    SyncPoints::instance().setMutant("iomap.read_without_cookie", mutant);

    FaultRule hold;
    hold.kind = FaultKind::Hold;
    hold.op = IoOp::Read;
    hold.cls = IoClass::Data;
    const int held = faults->addRule(hold);
    std::string bytes;
    std::thread reader([&] { bytes = read(*handle, 0, old.size()); });
    while (faults->held() == 0) std::this_thread::yield();
    std::thread truncate([&] {
      AttributeChange change;
      change.size = 0;
      must(fs_->setattr(caller_, ino, change));
      EXPECT_TRUE(fs_->fsync(*handle, false).isOk());
    });
    if (mutant) truncate.join();
    const bool free = volume_->space().markUsed(blocks);
    EXPECT_EQ(free, mutant);
    if (free) {
      const std::vector<std::byte> foreign(old.size(), std::byte{'f'});
      ASSERT_TRUE(device_->write(DeviceOffset(extent.block * 4096), foreign).isOk());
      volume_->space().freeUnstored(blocks);
    }
    faults->removeRule(held);
    reader.join();
    if (truncate.joinable()) truncate.join();
    EXPECT_EQ(bytes == old, !mutant);
    if (bytes != old)
      reportCaught("iomap.read_without_lock", 1,
                   "no block is written while a read of it is under way");
    SyncPoints::instance().reset();
    fs_->release(std::move(handle));
    unmountClean();
    mount();
  }
}

}  // namespace
}  // namespace ourfs::test
