// FileTable: the durable list of the index's blocks and files, in two slots on the volume.
//
// A slot is a snapshot and, behind it, deltas that are chained by their checksums. When a slot is
// full, the other one takes over with a fresh snapshot and a higher sequence.
//
// Invariants:
//   1. Changes are collected in memory, in order. sync() makes everything collected before the call
//      durable, in one delta (or snapshot): a crash leaves all of a delta or none of it.
//   2. Before a delta is written the device is flushed: what it says about files is already
//   durable.
//   3. A delta is written only when the one before it is durable. So a delta that is damaged
//   although a
//      later one is there proves a loss, and load() says so instead of going back to an older
//      state.
//   4. What is written goes out from a buffer of the writing thread. Formatting and checksum happen
//      under the lock, in one piece.
//   5. Blocks of removed files go to `release` once a table without them is durable.
//   6. After a failed write every later sync fails.
//
// Threads: any.
#pragma once

#include <functional>
#include <memory>

#include "block/block_device.h"
#include "common/aligned_buffer.h"
#include "common/mutex.h"
#include "format.h"
#include "table_state.h"

namespace ourfs {

class FileTable {
 public:
  using Release = std::function<void(const std::vector<BlockRun>&)>;

  static Status format(BlockDevice& device, const IndexGeometry& geometry,
                       const std::vector<BlockRun>& pool);
  // EUCLEAN with one line for anything that cannot be right.
  static Result<std::unique_ptr<FileTable>> load(BlockDevice& device, const IndexGeometry& geometry,
                                                 bool readOnly);
  // ---- salvage: no damage is refused that leaves anything to be read ----
  using Note = std::function<void(const std::string&)>;
  // Read-only, from the newest slot that has an intact snapshot. EUCLEAN if none has.
  static Result<std::unique_ptr<FileTable>> loadForSalvage(BlockDevice& device,
                                                           const IndexGeometry& geometry,
                                                           const Note& note);
  // Read-only, of what was found without it; its id is any that has this seed.
  static std::unique_ptr<FileTable> ofFound(BlockDevice& device, const IndexGeometry& geometry,
                                            uint32_t seed, TableState state);
  // Block size and volume size as an intact snapshot in one of the two slots has them.
  static Result<IndexGeometry> findGeometry(BlockDevice& device, const IndexGeometry& guess);

  // Called without the table's lock. REQUIRES: set before the first change.
  void setRelease(Release release) { release_ = std::move(release); }

  uint64_t newId();
  Status create(uint64_t id, const std::string& name);
  Status append(uint64_t id, uint64_t bytes, const std::vector<BlockRun>& runs);
  Status setInline(uint64_t id, const std::string& name, std::string_view bytes);
  Status rename(uint64_t id, const std::string& name);
  Status remove(uint64_t id);
  // ENOSPC when a table with so many extents might not fit its slot any more.
  Status addPool(const BlockRun& run);
  // The blocks belong to nobody once sync() has succeeded. ENOSPC as above, and nothing has
  // changed. REQUIRES: no file has them.
  Status removePool(const std::vector<BlockRun>& runs);
  Status sync();

  std::vector<TableFile> files() const;
  std::vector<BlockRun> pool() const;
  std::vector<BlockRun> usedRuns() const;
  BlockCount droppedBlocks() const;  // of removed files, not released yet
  uint32_t seed() const { return seed_; }
  uint64_t writes() const;

 private:
  struct Slot;
  // What a writing thread takes with it.
  struct Write {
    DeviceOffset at;
    AlignedBuffer buffer;
    std::optional<DeviceOffset> closeAt;  // a new slot: where the old one is closed
    AlignedBuffer closeBuffer;
    uint64_t upTo = 0;
  };
  // Where the next delta goes.
  struct Chain {
    uint64_t sequence = 0;
    uint32_t previous = 0;
    uint32_t index = 1;
    uint64_t offset = 0;  // in the slot
  };

  FileTable(BlockDevice& device, const IndexGeometry& geometry, uint64_t tableId, TableState state,
            bool readOnly);
  static Result<Slot> readSlot(BlockDevice& device, const IndexGeometry& geometry, unsigned number);
  static Status parse(const IndexGeometry& geometry, unsigned number, Slot& slot);
  static Status followChain(Slot& slot, uint64_t slotSize);
  static Status findLostDelta(const Slot& damaged, const Slot& current);
  static DeviceOffset slotStart(const IndexGeometry& geometry, uint64_t sequence);
  static Result<AlignedBuffer> snapshotOf(const IndexGeometry& geometry, const TableState& state,
                                          uint64_t tableId, Chain& chain);
  static AlignedBuffer deltaOf(const std::string& ops, uint32_t seed, Chain& chain);

  Status record(const std::function<Status(TableState&, std::string&)>& change);
  Result<Write> capture() REQUIRES(mu_);
  Status write(Write& w);
  std::vector<BlockRun> settle(const Status& status, uint64_t upTo) REQUIRES(mu_);
  // Mutants: what a change does to the buffer that is on its way if it can reach it.
  void disturb() REQUIRES(mu_);

  BlockDevice& device_;
  const IndexGeometry geometry_;
  const uint64_t tableId_;
  const uint32_t seed_;
  const bool readOnly_;
  Release release_;

  mutable Mutex mu_;
  CondVar written_;
  TableState state_ GUARDED_BY(mu_);
  std::string pending_ GUARDED_BY(mu_);    // operations that no delta holds yet
  uint64_t recorded_ GUARDED_BY(mu_) = 0;  // changes so far
  uint64_t durable_ GUARDED_BY(mu_) = 0;   // changes that are durable
  bool writing_ GUARDED_BY(mu_) = false;   // one thread owns the device ranges of the table
  AlignedBuffer* inFlight_ GUARDED_BY(mu_) = nullptr;  // for disturb() only
  Chain chain_ GUARDED_BY(mu_);
  Status failure_ GUARDED_BY(mu_);
  uint64_t nextId_ GUARDED_BY(mu_) = 1;
  uint64_t writes_ GUARDED_BY(mu_) = 0;
  struct Dropped {
    uint64_t change;  // the one that dropped them
    std::vector<BlockRun> runs;
  };
  std::vector<Dropped> dropped_ GUARDED_BY(mu_);
  uint64_t droppedBlocks_ GUARDED_BY(mu_) = 0;
};

}  // namespace ourfs
