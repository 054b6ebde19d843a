// Index: the metadata store, an LSM tree (RocksDB, its WAL off) whose files live on the volume.
//
// Invariants:
//   1. Its files are blocks of the volume, in extents that the file table owns; nothing lies beside
//      the volume. Every block carries our checksum, verified before RocksDB sees its bytes.
//   2. Before a MANIFEST sync, `beforePersist` runs: what the index has persisted never lies beyond
//      what the journal has made durable. If the hook fails, the sync fails.
//   3. apply() writes the changes and the log position in one atomic batch, and never stalls.
//   4. A block dropped from the file table stays busy until the table without it is durable, and,
//      during a mount, until startBackground().
//   5. Any write error is fail-stop: `onFailure` is told once; apply and flush answer it from
//      then on.
//
// Threads: reads from any thread; apply is called under the journal's log lock, one at a time.
// RocksDB starts threads: fork before open().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block/block_device.h"
#include "index/batch.h"
#include "index/schema.h"

namespace ourfs {

// A run of filesystem blocks on the volume.
struct BlockRun {
  BlockNo start;
  BlockCount count;
  bool operator==(const BlockRun&) const = default;
};

// The position that apply stores with each batch; the index does not interpret it.
struct AppliedPosition {
  Lsn end;
  uint32_t crc = 0;
  bool operator==(const AppliedPosition&) const = default;
};

struct IndexGeometry {
  uint32_t blockSize = 4096;  // of the filesystem; bytes
  DeviceOffset tableStart;    // two file table slots, one behind the other
  ByteCount tableSlotSize;    // of each; a multiple of 4096
  ByteCount volumeSize;       // scales write buffers, levels and the pool
  // Derived from volumeSize, the same at mkfs and at mount:
  ByteCount writeBuffer() const;  // one memtable
  // R: all memtables, one L0-to-base compaction, MANIFEST, one replay
  ByteCount poolReserve() const;
};

struct IndexOptions {
  IndexGeometry geometry;
  // ---- callbacks; none is called under a lock of the index ----
  // Gives the index more room, from the volume's free space: runs that add up to about `wanted`, at
  // least one block, or ENOSPC. Called by growPool() only, never from RocksDB's threads.
  std::function<Result<std::vector<BlockRun>>(ByteCount wanted)> takeSpace;
  // Takes back, of what takeSpace has just given, what the file table has no room to name.
  std::function<void(const std::vector<BlockRun>&)> returnSpace;
  std::function<Status()> beforePersist;         // invariant 2; also called by open() and close()
  std::function<void(const Status&)> onFailure;  // invariant 5
  std::function<void(AppliedPosition)> onPersisted;  // after a flush, in its thread: must not block
  ByteCount blockCache{32 * MiB};
  // Nothing is written to the device: changes live in memory only (fsck -n, ro mounts).
  bool readOnly = false;
};

struct IndexCounters {
  uint64_t gets = 0, scans = 0, batches = 0, changes = 0, flushes = 0, compactions = 0;
  uint64_t tableWrites = 0, manifestSyncs = 0;
  uint64_t poolBlocks = 0, poolFree = 0, fileCount = 0;
  uint64_t retries = 0;  // of background work that could not begin, or failed
};

class Index {
 public:
  // mkfs: an empty index whose pool is `pool`. Writes file table and files, and leaves
  // them durable.
  static Status format(BlockDevice& device, const IndexGeometry& geometry,
                       const std::vector<BlockRun>& pool);

  // Opens without compaction and without growing the pool. EUCLEAN with a line for anything that
  // cannot be right. With readOnly, replay works on top of it in memory.
  static Result<std::unique_ptr<Index>> open(BlockDevice& device, IndexOptions options);
  virtual ~Index() = default;

  // Compaction may begin, and blocks that were freed during the mount become free.
  virtual Status startBackground() = 0;
  // Persists everything applied and closes the files. After a failure it only closes. No other call
  // may be in progress. Destroying an index that was not closed persists nothing, as a crash would.
  virtual Status close() = 0;

  // ---- room; when a transaction reserves, before it takes any lock ----
  // Waits until the flusher has caught up, so that apply() cannot outrun it, and a little while for
  // compaction. ENOSPC if the pool could not even hold a flush of all memtables: growPool() first.
  // Replay calls it before each batch. The failure after a failure.
  virtual Status awaitMemtableRoom() = 0;
  virtual bool memtableRoom() const = 0;  // cheap; true if awaitMemtableRoom() would not wait

  // ---- writing; under the log lock ----
  // EINVAL, and nothing happens, for a change of kLogPositionKey. Any other error is fail-stop.
  virtual Status apply(const IndexBatch& batch, const AppliedPosition& position) = 0;

  // ---- reading what has been applied ----
  virtual Result<std::optional<std::string>> get(std::string_view key) = 0;
  // Calls `each` for every key in [from, end), in order, until it answers false. Holds no snapshot
  // longer than the call.
  virtual Status scan(
      std::string_view from, std::string_view end,
      const std::function<bool(std::string_view key, std::string_view value)>& each) = 0;

  virtual AppliedPosition applied() const = 0;
  virtual Result<AppliedPosition> persisted() = 0;  // what a synced MANIFEST names
  // Persists what has been applied so far. Waits. Calls beforePersist on the way.
  virtual Status flush() = 0;

  // ---- space ----
  // True if the pool has at least R free, or what compaction needs now if that is more. Cheap.
  virtual bool poolSufficient() const = 0;
  // Grows the pool until it is sufficient with some slack. ENOSPC when takeSpace says so.
  // Not under any lock that takeSpace needs.
  virtual Status growPool() = 0;
  // Takes what the pool does not need any more out of it, durably, and returns it: the caller may
  // use these blocks at once. Nothing, if it would be little. `hard`: first compacts what deletes
  // have left behind, and waits for that; for a writer who would get ENOSPC.
  virtual Result<std::vector<BlockRun>> shrinkPool(bool hard) = 0;
  // All blocks that the index owns (files and free pool): the free map must leave them out.
  virtual std::vector<BlockRun> ownedBlocks() const = 0;
  // Bytes of the pool above R that hold nothing.
  virtual ByteCount poolFree() const = 0;
  // Reads and verifies every block of every file (fsck). `progress` is called between two reads.
  virtual Status verify(
      const std::function<void(const std::string& problem)>& report,
      const std::function<void(ByteCount done, ByteCount total)>& progress = nullptr) = 0;

  virtual IndexCounters counters() const = 0;
  virtual uint64_t estimatedKeys() const = 0;
};

}  // namespace ourfs
