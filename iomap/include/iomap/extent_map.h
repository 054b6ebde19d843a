// Extent and ExtentMap: which bytes of one file lie where, in core, with the sequence that writers
// and writeback use as a cookie.
//
// Invariants:
//   1. Extents do not overlap, are sorted, and are multiples of the block size. What is not covered
//      is Hole.
//   2. The sequence is bumped inside the map, under its mutex, before every change, and never
//      repeats for this or a later map of the same inode (it starts from a global counter).
//   3. A cookie is sampled under the same mutex section as the map it belongs to.
//   4. `stored` extents are in the index; others (Delalloc, and Unwritten space that writeback has
//      allocated but whose data is not on disk yet) live only in core and vanish in a crash.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "common/mutex.h"
#include "common/units.h"

namespace ourfs {

enum class ExtentState : uint8_t {
  Hole,       // nothing; reads as zeros
  Delalloc,   // a promise of space, no address
  Mapped,     // data on disk
  Unwritten,  // an address whose bytes are not valid: reads as zeros until ioend makes it Mapped
};

struct Extent {
  FileOffset offset;
  ByteCount length;
  DeviceOffset address;  // Mapped and Unwritten
  ExtentState state = ExtentState::Hole;
  bool stored = false;  // in the index; always true for Mapped
  FileOffset end() const { return offset + length; }
  bool operator==(const Extent&) const = default;
};

inline constexpr FileOffset kFileEnd{uint64_t{1} << 63};  // no extent reaches beyond it

// What a change did, for the transaction that carries it and for the space accounting.
struct ExtentDelta {
  std::vector<Extent> erased;    // stored extents whose key (offset) must be deleted from the index
  std::vector<Extent> written;   // stored extents that must be put into the index (new or changed)
  std::vector<Extent> replaced;  // what the range held before, clipped to it; no holes
};

class ExtentMap {
 public:
  // `blockSize`: bytes; every offset, length and address is a multiple of it.
  explicit ExtentMap(uint32_t blockSize);

  Mutex& mutex() const RETURN_CAPABILITY(mutex_) { return mutex_; }

  // The cookie. One atomic load; compare it while holding the folio lock.
  uint64_t sequence() const { return sequence_.load(std::memory_order_acquire); }

  // The extent, or the hole, that covers `pos`. A hole ends at the next extent or at kFileEnd.
  Extent find(FileOffset pos) const REQUIRES(mutex_);
  // Extents (no holes) that touch [from, to), in order, not clipped. Stops when `each` answers
  // false.
  void forEach(FileOffset from, FileOffset to, const std::function<bool(const Extent&)>& each) const
      REQUIRES(mutex_);

  // Replaces what [extent.offset, extent.end()) holds, by `extent` (Hole removes). Splits and
  // merges neighbours: contiguous in the file and on disk, same state, same `stored`. Bumps first.
  ExtentDelta set(const Extent& extent) REQUIRES(mutex_);

  // Fills an empty map from the index, sorted, without overlap. Bumps.
  void load(const std::vector<Extent>& stored) REQUIRES(mutex_);
  bool loaded() const { return loaded_.load(std::memory_order_acquire); }
  // Drops everything cached. REQUIRES: nothing that is not stored is left.
  void unload() REQUIRES(mutex_);
  // Makes every cookie stale without a change (reclaim; and tests).
  void bump() REQUIRES(mutex_);

  size_t count() const REQUIRES(mutex_) { return extents_.size(); }
  ByteCount storedBytes() const REQUIRES(mutex_) { return storedBytes_; }
  ByteCount delallocBytes() const REQUIRES(mutex_) { return delallocBytes_; }

 private:
  void raiseSequence() REQUIRES(mutex_);
  void put(const Extent& extent) REQUIRES(mutex_);
  void take(std::map<uint64_t, Extent>::iterator it) REQUIRES(mutex_);
  bool wellFormed(const Extent& extent) const;

  const uint32_t blockSize_;
  mutable Mutex mutex_;
  std::map<uint64_t, Extent> extents_ GUARDED_BY(mutex_);  // by offset
  ByteCount storedBytes_ GUARDED_BY(mutex_);
  ByteCount delallocBytes_ GUARDED_BY(mutex_);
  std::atomic<uint64_t> sequence_;
  std::atomic<bool> loaded_{false};
};

}  // namespace ourfs
