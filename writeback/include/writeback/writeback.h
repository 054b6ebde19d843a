// Writeback: from dirty folios to blocks on the device, and memory kept within its limit.
//
// Invariants:
//   1. The order at the end of an I/O is: convert and bump, size, end writeback (Ioend).
//   2. A Mapped record enters the index only after the data write behind it completed.
//   3. The on-disk size advances at most to the i_size that was sampled when the I/O was submitted.
//   4. The cached writeback map is validated under the folio lock for every dirty range.
//   5. The part of the last block beyond i_size is zeroed in the folio before every write of it.
//   6. A failed write: the folio becomes clean, its reservation or unstored allocation is given
//      back (WritebackOps::abort), the error is recorded in mapping.errors. Never dirty without a
//      reservation.
//   7. Completion threads of the device only queue; an ioend thread converts. The transaction an
//      ioend needs was reserved before its I/O was submitted.
//
// Threads: `threads` flushers, one ioend thread, reclaim runs in flushers and in throttled writers.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "block/block_device.h"
#include "iomap/iomap.h"
#include "iomap/mapping.h"

namespace ourfs {

// One I/O of writeback and what must happen after it: contiguous in the file and on disk, one
// state.
struct Ioend {
  std::shared_ptr<Mapping> mapping;
  FileOffset offset;
  ByteCount length;
  DeviceOffset address;
  IomapType type = IomapType::Mapped;  // as it was mapped: Unwritten needs conversion
  FileOffset sizeAtSubmit;             // i_size then
  Status status;
  std::vector<std::shared_ptr<Folio>> folios;
  std::shared_ptr<void> reservation;  // from WritebackOps::prepare
  bool needsCommit() const;           // conversion, or the on-disk size must advance
};

// What writeback needs of the filesystem. Implemented by fs/ and by test doubles.
class WritebackOps {
 public:
  virtual ~WritebackOps() = default;
  // The map at `pos`; allocates real space behind Delalloc, as far as `length` (a dirty run) and
  // the free space allow in one piece, and makes it Unwritten in core (not stored). Never publishes
  // Mapped. A Hole means that the file was truncated here. Takes the extent lock; no folio lock is
  // taken inside. The caller holds the folio lock of `pos`.
  virtual Result<Iomap> mapForWriteback(Mapping& mapping, FileOffset pos, ByteCount length) = 0;
  // Reserves the transaction that finish() will need. May wait for journal space; no locks held.
  virtual Result<std::shared_ptr<void>> prepare() = 0;
  // A data write of this file completed, whether or not a transaction follows: a device flush is
  // due before the next fsync may answer. Called in the ioend thread, before finish() and before
  // writeback ends.
  virtual void written(Mapping& mapping) { (void)mapping; }
  // Converts [offset, length) to Mapped (only what is still Unwritten and still at this address),
  // advances the stored size, commits one transaction. Called in the ioend thread.
  virtual Status finish(Ioend& ioend) = 0;
  // The write failed: unstored space in the range is given back, stored Unwritten stays Unwritten.
  virtual void abort(Ioend& ioend) = 0;
};

struct WritebackOptions {
  ByteCount backgroundDirty{0};              // flushers start; 0: an eighth of the cache limit
  ByteCount dirtyLimit{0};                   // writers wait; 0: half of the cache limit
  std::chrono::milliseconds expire{5000};    // a file that has been dirty for so long is written
  std::chrono::milliseconds interval{1000};  // how often flushers look for expired files
  int threads = 1;
  ByteCount ioSize{1 * MiB};  // largest single write
  uint32_t maxInFlight = 16;  // ioends in flight per flush pass
};

class Writeback {
 public:
  static std::unique_ptr<Writeback> start(BlockDevice& device, FolioPool& pool, WritebackOps& ops,
                                          const WritebackOptions& options);
  virtual ~Writeback() = default;  // stops the threads; REQUIRES: everything flushed or given up

  // The file has dirty folios. Cheap; any lock may be held.
  virtual void dirtied(const std::shared_ptr<Mapping>& mapping) = 0;

  // Writes every folio that was dirty in [from, to) when called, waits for the I/O and its ioends.
  // The first error, if any I/O of this call failed. No lock of this file may be held but the inode
  // lock and the invalidate lock (shared or exclusive).
  virtual Status flush(const std::shared_ptr<Mapping>& mapping, FileOffset from, FileOffset to) = 0;
  virtual Status flushAll() = 0;

  // Waits while dirty + writeback memory is over the limit, and starts flushers. No locks held.
  virtual void throttle(ByteCount about) = 0;
  // Evicts clean folios until the pool is below its limit by `want`, if it can.
  virtual void reclaim(ByteCount want) = 0;
  // Forgets the file: none of its folios is dirty or in writeback any more. After it returns no
  // thread of writeback uses it.
  virtual void forget(const std::shared_ptr<Mapping>& mapping) = 0;
  // A file with clean cached folios, for reclaim's round. Called by dirtied(); also for read
  // caches.
  virtual size_t dirtyFiles() const = 0;
};

}  // namespace ourfs
