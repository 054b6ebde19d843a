// Volume: an open volume. Owns the device, superblock, journal, index and space, in mount order.
//
// Mount order (an invariant): superblock; file table; open the index without compaction; LSN rules;
// replay; dirty flag and new generation, flush; free map; then compaction, orphans, serving.
// Read-only opens replay on an in-memory overlay and write nothing.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "block/block_device.h"
#include "common/result.h"
#include "fs/space.h"
#include "fs/superblock.h"
#include "fs/transaction.h"
#include "index/index.h"
#include "journal/journal.h"
#include "journal/replay.h"

namespace ourfs {

// mkfs on an open device. Checks nothing of what was there before (the command does).
Status formatVolume(BlockDevice& device, const FormatOptions& options, Superblock* made = nullptr);

struct OpenOptions {
  bool readOnly = false;
  bool noRecovery = false;  // with readOnly: the index as it is, without the journal
  // fsck: extents that overlap or lie outside do not refuse the open; the free map then counts
  // every block that anybody claims as used, but for extents that lie outside. A journal that has
  // lost records is reported in the summary and, unless readOnly, begun anew.
  bool forCheck = false;
  bool discard = false;  // freed space is given back to the device
  ByteCount blockCache{32 * MiB};
};

struct MountSummary {  // what mount prints
  bool wasClean = true;
  bool oneSuperblock = false;  // the other copy is damaged, or a crash interrupted its write
  ReplaySummary replay;
  double replaySeconds = 0, scanSeconds = 0, totalSeconds = 0;
  bool snapshotUsed = false;  // the free map came from the snapshot
  uint64_t extents = 0;
};

struct DiscardCounters {
  uint64_t discards = 0, bytes = 0;  // done
  uint64_t errors = 0;
};

class Volume {
 public:
  // `device` outlives the volume.
  static Result<std::unique_ptr<Volume>> open(BlockDevice& device, const OpenOptions& options);
  ~Volume();  // without close(): as after a crash

  // REQUIRES: nothing is dirty above. Writes the free-space snapshot, flushes journal and index,
  // marks clean. After a failure it leaves the volume for replay.
  Status close();

  BlockDevice& device() { return device_; }
  const Superblock& superblock() const { return superblock_; }
  uint32_t blockSize() const { return superblock_.blockSize; }
  Index& index() { return *index_; }
  TransactionLog& log() { return *log_; }
  SpaceAllocator& space() { return *space_; }
  bool readOnly() const { return readOnly_.load(std::memory_order_acquire); }
  const MountSummary& summary() const { return summary_; }
  DiscardCounters discards() const;

  // Fail-stop: read-only from now on, every later fsync fails, logged once. Not under the log lock.
  void failStop(const Status& why);
  Status failure() const;

  // Everything committed is durable; the index persists (checkpoint). Called by a background
  // thread, when the journal is half full.
  Status checkpoint();

  // A fresh inode number, never used before on this volume. Adds the new watermark to the
  // transaction when a batch of numbers is used up.
  InodeNo newInodeNumber(Transaction& transaction);

  // fsck: the volume has been checked; close() records when.
  void markChecked();

 private:
  struct Checkpointer;
  class Discarder;
  explicit Volume(BlockDevice& device);

  // Mounting, in this order.
  Status openAll(const OpenOptions& options);
  void expectOneMoreMount();
  Status checkAccess(const OpenOptions& options);
  Status openIndex(const OpenOptions& options);
  Status replayAll(const OpenOptions& options);
  Status markDirty();
  Status buildFreeMap(const OpenOptions& options);
  Status startLog(const OpenOptions& how);
  void whenFull(SpaceUse use);
  void shrinkIndex(bool hard);  // and give its space to the allocator
  Status loadInodeWatermark();

  Status beforePersist();
  Result<std::vector<BlockRun>> takeSpace(ByteCount wanted);
  void advanceTail(Lsn persisted);
  std::unique_ptr<SpaceAllocator> emptyFreeMap() const;
  Status markIndexBlocks(const OpenOptions& options);
  Status scanExtents(const OpenOptions& options);
  bool loadSnapshot();
  Status writeSnapshot();
  Status closeClean();
  bool recordFailure(const Status& why);  // false if there was one before

  BlockDevice& device_;
  std::unique_ptr<SuperblockStore> store_;
  Superblock superblock_;
  MountSummary summary_;
  std::atomic<bool> readOnly_{false};
  bool looksOnly_ = false;  // opened read-only: nothing is ever written
  bool closed_ = false;
  uint64_t foundGeneration_ =
      0;  // of the superblock at mount: that of a snapshot that can be trusted
  std::atomic<Journal*> running_{nullptr};  // the journal once it has been started

  mutable Mutex mutex_;
  Status failure_ GUARDED_BY(mutex_);
  // Numbers below the watermark may be in the log; those below committedWatermark_ may be given out
  // without it, since the record that names it comes first in the log.
  Mutex inodeMutex_;
  uint64_t nextInode_ GUARDED_BY(inodeMutex_) = 2, inodeWatermark_ GUARDED_BY(inodeMutex_) = 2;
  uint64_t committedWatermark_ GUARDED_BY(inodeMutex_) = 2;

  // Destroyed in the order that ~Volume says.
  std::unique_ptr<SpaceAllocator> space_;
  std::unique_ptr<Discarder> discarder_;  // null: freed space is not discarded
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<TransactionLog> log_;
  std::unique_ptr<Checkpointer> checkpointer_;
};

}  // namespace ourfs
