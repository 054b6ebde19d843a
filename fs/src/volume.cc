#include "fs/volume.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "checkpointer.h"
#include "clock.h"
#include "common/sync_point.h"
#include "discarder.h"
#include "volume_settings.h"

namespace ourfs {

namespace {
// So many inode numbers are given out before the index hears of it again; a mount skips what is
// left.
constexpr uint64_t kInodeBatch = 65536;
// What an unmount gives to discards that are still to be done.
constexpr std::chrono::seconds kDiscardPatience{10};
}  // namespace

Volume::Volume(BlockDevice& device)
    : device_(device), checkpointer_(std::make_unique<Checkpointer>(*this)) {}

Volume::~Volume() {
  checkpointer_->stop();
  // Nothing new is begun. A flush of the index that is under way may end, with the journal's help:
  // a crash a little later. Its threads call back into what is destroyed below them, the journal's
  // into space and discarder.
  log_.reset();
  index_.reset();
  journal_.reset();
  discarder_.reset();
}

Status Volume::close() {
  if (closed_) return Status::ok();
  closed_ = true;
  checkpointer_->stop();
  if (looksOnly_) return index_->close();
  Status closed = failure();
  if (closed.isOk()) closed = closeClean();
  if (closed.isOk()) return closed;
  failStop(closed);
  (void)index_->close();  // after a failure it only closes; the journal has what it did not persist
  return closed;
}

Status Volume::closeClean() {
  TRY(log_->flush(journal_->head().end, FlushScope::LogAndData));
  if (discarder_) discarder_->finish(kDiscardPatience);
  if (const Status written = writeSnapshot(); written.errnum() == ENOSPC) {
    spdlog::info("no room for the free-space snapshot: the next mount scans the extents");
  } else {
    TRY(written);
  }
  TRY(log_->flush(journal_->head().end));
  TRY(index_->flush());
  TRY_ASSIGN(const AppliedPosition persisted, index_->persisted());
  if (persisted.end != journal_->head().end) {
    return Status::error(EIO, "index: it persisted less than was committed");
  }
  TRY(index_->close());
  superblock_.clean = true;
  return store_->store(superblock_);
}

void Volume::whenFull(SpaceUse use) {
  (void)log_->flush(journal_->head().end);
  // To have the space is worth more than to discard it.
  if (discarder_) discarder_->drop();
  if (use == SpaceUse::Data) shrinkIndex(true);  // for Metadata, the index is asking itself
}

void Volume::shrinkIndex(bool hard) {
  const auto runs = index_->shrinkPool(hard);
  if (!runs) return;  // the index has told its failure already
  for (const BlockRun& run : *runs) space_->freeUnstored(run);
}

DiscardCounters Volume::discards() const {
  return discarder_ ? discarder_->counters() : DiscardCounters();
}

void Volume::markChecked() { superblock_.lastChecked = wallClock(); }

bool Volume::recordFailure(const Status& why) {
  if (mutantEnabled("volume.goes_on")) return false;
  {
    MutexLock lock(mutex_);
    if (!failure_.isOk()) return false;
    failure_ = why;
  }
  readOnly_.store(true, std::memory_order_release);
  spdlog::critical("{}: nothing more is written; unmount, and mount again to recover",
                   why.message());
  return true;
}

void Volume::failStop(const Status& why) {
  if (recordFailure(why) && journal_ != nullptr) journal_->fail(why);
}

Status Volume::failure() const {
  MutexLock lock(mutex_);
  return failure_;
}

Status Volume::checkpoint() {
  if (looksOnly_) return Status::ok();
  if (mutantEnabled("journal.advance_tail_early")) journal_->advanceTail(index_->applied().end);
  // What it persists, beforePersist has made durable in the journal first.
  if (const Status flushed = index_->flush(); !flushed.isOk()) {
    failStop(flushed);
    return flushed;
  }
  TRY_ASSIGN(const AppliedPosition persisted, index_->persisted());
  advanceTail(persisted.end);
  shrinkIndex(false);
  return Status::ok();
}

void Volume::advanceTail(Lsn persisted) {
  if (Journal* journal = running_.load(std::memory_order_acquire)) journal->advanceTail(persisted);
}

// The log comes first: what the index is about to persist is durable in the journal. A record that
// is being applied is behind the head when its append lets go of the log lock, which head() waits
// for.
Status Volume::beforePersist() {
  Journal* journal = running_.load(std::memory_order_acquire);
  // During the mount: replay may have read what only the device's cache holds.
  if (journal == nullptr) return device_.flush(IoClass::Journal);
  return journal->flush(journal->head().end);
}

Result<std::vector<BlockRun>> Volume::takeSpace(ByteCount wanted) {
  std::vector<BlockRun> runs;
  uint64_t left = (wanted.v + superblock_.blockSize - 1) / superblock_.blockSize;
  BlockNo hint(0);
  while (left != 0 && space_ != nullptr) {
    const auto run = space_->allocate(BlockCount(left), hint, false, SpaceUse::Metadata);
    if (!run) break;
    runs.push_back(*run);
    left -= run->count.v;
    hint = run->start + run->count;
  }
  if (runs.empty()) return Status::error(ENOSPC);
  return runs;
}

InodeNo Volume::newInodeNumber(Transaction& transaction) {
  MutexLock lock(inodeMutex_);
  if (nextInode_ == inodeWatermark_) inodeWatermark_ += kInodeBatch;
  const uint64_t number = nextInode_++;
  if (number < committedWatermark_) return InodeNo(number);
  // Until a transaction with the new watermark is in the log, each that uses a number carries it:
  // whichever survives a crash, the watermark survives with it.
  if (const auto value = index_->get(settingKey(kNextInodeSetting)); value.isOk() && *value) {
    committedWatermark_ = std::max(committedWatermark_, decodeNumber(**value).value_or(0));
  }
  if (number >= committedWatermark_) {
    transaction.put(settingKey(kNextInodeSetting), encodeNumber(inodeWatermark_));
  }
  return InodeNo(number);
}

}  // namespace ourfs
