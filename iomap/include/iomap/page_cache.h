// Folio, FolioPool and PageCache: file data in the daemon's memory.
//
// The cache holds dirty and partial data; clean data that was read whole is in the kernel's page
// cache already. A folio is max(block size, 4 KiB) bytes and has one dirty and one uptodate bit per
// block.
//
// Invariants:
//   1. Whoever reads or changes a folio's bytes or bits holds its folio lock. Writeback I/O reads
//      the bytes without it (a writer may change them meanwhile: the folio is dirty again then).
//   2. dirty <=> its space is reserved or allocated.
//   3. A dirty bit is cleared when writeback starts on the block, in the same folio-lock section in
//      which the writeback flag is set.
//   4. Only a folio that is clean and not in writeback leaves the cache, except through discard().
//   5. A block that is not uptodate is never written back and never given to a reader.
//
// Lock order: folio lock, then the cache's mutex (inner). Two folio locks are taken in index order
// only.
#pragma once

#include <atomic>
#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/mutex.h"
#include "common/result.h"
#include "common/units.h"

namespace ourfs {

// The memory of all page caches of a volume, with its accounting.
class FolioPool {
 public:
  FolioPool(uint32_t folioSize, ByteCount limit) : folioSize_(folioSize), limit_(limit) {}
  ~FolioPool();
  std::byte* allocate();  // aligned to 4096, contents undefined; reuses freed memory
  void free(std::byte* memory);
  void trim(size_t keep);  // gives the memory of free folios, but for `keep`, back to the system
  uint32_t folioSize() const { return folioSize_; }
  ByteCount limit() const { return limit_; }
  ByteCount used() const { return ByteCount(used_.load(std::memory_order_relaxed)); }

  // Bytes of folios with a dirty block, and of folios in writeback. Maintained by PageCache.
  std::atomic<uint64_t> dirty{0};
  std::atomic<uint64_t> writeback{0};

 private:
  const uint32_t folioSize_;
  const ByteCount limit_;
  Mutex mutex_;
  std::vector<std::byte*> free_ GUARDED_BY(mutex_);   // with memory behind them
  std::vector<std::byte*> cold_ GUARDED_BY(mutex_);   // addresses whose memory the system has back
  std::vector<std::byte*> slabs_ GUARDED_BY(mutex_);  // what all of them were cut from
  std::atomic<uint64_t> used_{0};                     // bytes of folios handed out
};

class CAPABILITY("folio") Folio {
 public:
  Folio(FolioPool& pool, uint64_t index, uint32_t blocks);
  ~Folio();
  uint64_t index() const { return index_; }
  FileOffset offset() const { return FileOffset(index_ * size_); }
  uint32_t size() const { return size_; }
  std::byte* data() { return data_; }
  uint32_t blockSize() const { return size_ / blocks_; }
  uint32_t blocks() const { return blocks_; }

  // REQUIRES the folio lock.
  bool uptodate(uint32_t block) const { return uptodate_ >> block & 1; }
  bool dirty(uint32_t block) const { return dirty_ >> block & 1; }
  bool anyDirty() const { return dirty_ != 0; }
  bool allUptodate() const {
    return uptodate_ == (blocks_ == 64 ? ~uint64_t{0} : (uint64_t{1} << blocks_) - 1);
  }
  bool anyUptodate() const { return uptodate_ != 0; }
  void setUptodate(uint32_t block) { uptodate_ |= uint64_t{1} << block; }
  // REQUIRES also: the block is clean and not in writeback. The next user fills it again.
  void clearUptodate(uint32_t block) { uptodate_ &= ~(uint64_t{1} << block); }

  // Touched since the last call? For reclaim's second chance. REQUIRES the folio lock.
  bool testAndClearReferenced() { return std::exchange(referenced_, false); }

  bool inWriteback() const { return writeback_.load(std::memory_order_acquire); }

 private:
  friend class PageCache;
  friend class LockedFolio;
  FolioPool& pool_;
  const uint64_t index_;
  const uint32_t size_, blocks_;
  std::byte* const data_;
  Mutex lock_;
  uint64_t uptodate_ = 0, dirty_ = 0;  // folio lock
  bool evicted_ = false;               // folio lock: no longer in the cache
  bool referenced_ = false;            // touched since reclaim last looked
  std::atomic<bool> writeback_{
      false};  // changed under the folio lock or by ioend, and the cache's mutex
};

// A locked, referenced folio that is in the cache. Unlocks when destroyed.
class LockedFolio {
 public:
  LockedFolio() = default;
  LockedFolio(LockedFolio&&) noexcept = default;
  LockedFolio& operator=(LockedFolio&&) noexcept;
  ~LockedFolio() { unlock(); }
  explicit operator bool() const { return folio_ != nullptr; }
  Folio* operator->() const { return folio_.get(); }
  Folio& operator*() const { return *folio_; }
  std::shared_ptr<Folio> share() const { return folio_; }
  void unlock();

 private:
  friend class PageCache;
  explicit LockedFolio(std::shared_ptr<Folio> locked) : folio_(std::move(locked)) {}
  std::shared_ptr<Folio> folio_;
};

class PageCache {
 public:
  PageCache(FolioPool& pool, uint32_t blockSize);
  ~PageCache();  // REQUIRES: nothing dirty, nothing in writeback
  uint32_t folioSize() const;
  uint32_t blockSize() const;

  // The folio at `index`, locked; an empty LockedFolio if there is none. May wait for its lock.
  LockedFolio lock(uint64_t index);
  LockedFolio lockOrCreate(uint64_t index);
  // Like lock, but gives up (empty) instead of waiting.
  LockedFolio tryLock(uint64_t index);

  // The blocks that [from, to) of the folio's bytes touches become dirty. REQUIRES: they are
  // uptodate.
  void markDirty(LockedFolio& folio, uint32_t from, uint32_t to);
  // Clears the dirty bits of the blocks without writing them (truncate, failed write).
  void clearDirty(LockedFolio& folio, uint32_t fromBlock, uint32_t toBlock);
  // Clears the dirty bits of blocks [fromBlock, toBlock) and sets the writeback flag.
  // REQUIRES: not in writeback (waitWriteback first).
  void startWriteback(LockedFolio& folio, uint32_t fromBlock, uint32_t toBlock);
  // Called by ioend, without the folio lock. Wakes waiters.
  void endWriteback(Folio& folio);
  // Releases the folio lock while it waits, and takes it again; false, and `folio` is empty, if the
  // folio left the cache.
  bool waitWriteback(LockedFolio& folio);

  // The first dirty folio with an index in [from, to), not locked.
  std::optional<uint64_t> nextDirty(uint64_t from, uint64_t to) const;
  // The first cached folio with an index in [from, to), not locked.
  std::optional<uint64_t> nextCached(uint64_t from, uint64_t to) const;
  // The first folio with an index in [from, to) that is dirty or in writeback, not locked.
  std::optional<uint64_t> nextBusy(uint64_t from, uint64_t to) const;
  bool anyDirtyOrWriteback(FileOffset from, FileOffset to) const;
  // Waits for every folio of the range that is in writeback now, each once, in order.
  void waitWriteback(FileOffset from, FileOffset to) const;
  size_t folios() const;
  size_t dirtyFolios() const { return dirtyCount_.load(std::memory_order_relaxed); }

  // Takes the folio out of the cache if it is clean and not in writeback. False otherwise.
  bool evict(LockedFolio folio);
  // Takes it out whatever it holds (truncate). REQUIRES: not in writeback.
  void discard(LockedFolio folio);

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::atomic<size_t> dirtyCount_{0};
};

}  // namespace ourfs
