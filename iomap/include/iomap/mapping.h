// Mapping: what iomap and writeback know of one file. fs/ owns one per in-core inode.
#pragma once

#include <atomic>
#include <memory>

#include "common/mutex.h"
#include "common/result.h"
#include "common/units.h"
#include "iomap/extent_map.h"
#include "iomap/page_cache.h"

namespace ourfs {

// Errors of background writeback, reported once per open file (Linux errseq_t: a code and a
// counter; one cursor per open file, sampled at open).
class ErrSeq {
 public:
  using Cursor = uint64_t;
  Cursor sample() const { return value_.load(std::memory_order_acquire); }
  void set(int errnum);  // records a new error
  // 0, or the error that happened since `cursor`; advances the cursor, so that it is told once.
  int checkAndAdvance(Cursor& cursor);

 private:
  std::atomic<uint64_t> value_{0};  // counter << 16 | errno
};

struct MappingCounters {  // of a whole volume; names as in docs/testing.md
  std::atomic<uint64_t> staleWrite{0}, staleWriteback{0}, staleRead{0}, remapKeptNew{0},
      remapMaskedNew{0}, punchSkippedDirty{0}, filledByZero{0}, filledByRead{0}, lockFirst{0},
      bypassReads{0}, cachedReads{0}, directWrites{0}, foliosReclaimed{0}, ioends{0}, throttled{0},
      writebackErrors{0}, writtenBytes{0};
  ErrSeq errors;  // of all files: for whoever syncs everything
};

class Mapping {
 public:
  Mapping(InodeNo inode, uint32_t blockSize, FolioPool& pool, MappingCounters& count)
      : ino(inode), extents(blockSize), pages(pool, blockSize), counters(count) {}

  const InodeNo ino;
  ExtentMap extents;
  PageCache pages;
  // Shared: reads past the cache, direct I/O, shared-mmap stores (for the time of their I/O).
  // Exclusive: whatever removes folios or blocks under them (truncate, punch, zero, failed write).
  SharedMutex invalidateLock;
  // i_size, bytes. Changed under the inode lock, or the invalidate lock for mmap stores below it.
  std::atomic<uint64_t> size{0};
  // The size that the index holds (advanced by ioends and truncate).
  std::atomic<uint64_t> storedSize{0};
  ErrSeq errors;
  MappingCounters& counters;
  // Data of this file is lost: each of its open files is told, and the next sync of everything.
  void recordError(int errnum) {
    errors.set(errnum);
    counters.errors.set(errnum);
  }

  // For writeback's list of dirty files; owned by writeback.
  std::atomic<bool> queued{false};
  std::atomic<int64_t> dirtiedAt{
      0};  // steady clock, ns; when the first folio of this round became dirty
};

}  // namespace ourfs
