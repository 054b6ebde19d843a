#include "iomap/page_cache.h"

#include <array>
#include <bit>

#include "common/sync_point.h"
#include "require.h"

namespace ourfs {

namespace {
constexpr uint64_t kSlots = 64;  // folios per chunk: one word per tag

uint64_t bitsFrom(uint64_t first) { return ~uint64_t{0} << first; }
// REQUIRES: to > 0.
uint64_t bitsBelow(uint64_t to) { return ~uint64_t{0} >> (64 - to); }
uint64_t bits(uint64_t from, uint64_t to) {
  return from >= to ? 0 : bitsFrom(from) & bitsBelow(to);
}

struct Chunk {
  std::array<std::shared_ptr<Folio>, kSlots> slots;
  uint64_t present = 0, dirty = 0, writeback = 0;
};
using Tags = uint64_t (*)(const Chunk&);
uint64_t presentTags(const Chunk& c) { return c.present; }
uint64_t dirtyTags(const Chunk& c) { return c.dirty; }
uint64_t writebackTags(const Chunk& c) { return c.writeback; }
uint64_t busyTags(const Chunk& c) { return c.dirty | c.writeback; }
}  // namespace

struct PageCache::State {
  State(FolioPool& p, uint32_t block) : pool(p), blockSize(block) {}

  FolioPool& pool;
  const uint32_t blockSize;
  mutable Mutex mutex;
  mutable CondVar writebackEnded;
  std::map<uint64_t, Chunk> chunks GUARDED_BY(mutex);
  size_t count GUARDED_BY(mutex) = 0;

  std::shared_ptr<Folio> find(uint64_t index) const REQUIRES(mutex) {
    auto it = chunks.find(index / kSlots);
    return it == chunks.end() ? nullptr : it->second.slots[index % kSlots];
  }
  // REQUIRES: a folio of it is in the cache.
  Chunk& chunkOf(const Folio& folio) REQUIRES(mutex) {
    return chunks.find(folio.index() / kSlots)->second;
  }
  static uint64_t bitOf(const Folio& folio) { return uint64_t{1} << folio.index() % kSlots; }

  std::optional<uint64_t> next(Tags tags, uint64_t from, uint64_t to) const REQUIRES(mutex) {
    for (auto it = chunks.lower_bound(from / kSlots); it != chunks.end(); ++it) {
      const uint64_t base = it->first * kSlots;
      if (base >= to) break;
      uint64_t found = tags(it->second);
      if (base < from) found &= bitsFrom(from - base);
      if (found == 0) continue;
      const uint64_t index = base + static_cast<uint64_t>(std::countr_zero(found));
      return index < to ? std::optional(index) : std::nullopt;
    }
    return std::nullopt;
  }
};

Folio::Folio(FolioPool& pool, uint64_t index, uint32_t blocks)
    : pool_(pool),
      index_(index),
      size_(pool.folioSize()),
      blocks_(blocks),
      data_(pool.allocate()) {}

Folio::~Folio() { pool_.free(data_); }

LockedFolio& LockedFolio::operator=(LockedFolio&& other) noexcept {
  if (this != &other) {
    unlock();
    folio_ = std::move(other.folio_);
  }
  return *this;
}

void LockedFolio::unlock() NO_THREAD_SAFETY_ANALYSIS {
  if (!folio_) return;
  folio_->lock_.unlock();
  folio_.reset();
}

PageCache::PageCache(FolioPool& pool, uint32_t blockSize)
    : state_(std::make_unique<State>(pool, blockSize)) {
  require(pool.folioSize() % blockSize == 0 && pool.folioSize() / blockSize <= 64, "folio size");
}

PageCache::~PageCache() {
  // What a fail-stop left behind must not stay in the account of the pool.
  MutexLock lock(state_->mutex);
  for (const auto& [number, chunk] : state_->chunks) {
    const auto folios = [](uint64_t word) { return static_cast<uint64_t>(std::popcount(word)); };
    state_->pool.dirty -= folios(chunk.dirty) * folioSize();
    state_->pool.writeback -= folios(chunk.writeback) * folioSize();
  }
}

uint32_t PageCache::folioSize() const { return state_->pool.folioSize(); }
uint32_t PageCache::blockSize() const { return state_->blockSize; }

LockedFolio PageCache::lock(uint64_t index) NO_THREAD_SAFETY_ANALYSIS {
  for (;;) {
    std::shared_ptr<Folio> folio;
    {
      MutexLock lock(state_->mutex);
      folio = state_->find(index);
    }
    if (!folio) return {};
    folio->lock_.lock();
    if (!folio->evicted_) {
      folio->referenced_ = true;
      return LockedFolio(std::move(folio));
    }
    folio->lock_.unlock();  // it left while we waited: another one may be there by now
  }
}

LockedFolio PageCache::lockOrCreate(uint64_t index) NO_THREAD_SAFETY_ANALYSIS {
  for (;;) {
    if (LockedFolio found = lock(index)) return found;
    auto folio = std::make_shared<Folio>(state_->pool, index, folioSize() / state_->blockSize);
    folio->lock_.lock();
    folio->referenced_ = true;
    LockedFolio locked(folio);
    MutexLock lock(state_->mutex);
    Chunk& chunk = state_->chunks[index / kSlots];
    if (chunk.slots[index % kSlots]) continue;
    chunk.present |= State::bitOf(*folio);
    chunk.slots[index % kSlots] = std::move(folio);
    ++state_->count;
    return locked;
  }
}

LockedFolio PageCache::tryLock(uint64_t index) NO_THREAD_SAFETY_ANALYSIS {
  std::shared_ptr<Folio> folio;
  {
    MutexLock lock(state_->mutex);
    folio = state_->find(index);
  }
  if (!folio || !folio->lock_.try_lock()) return {};
  LockedFolio locked(std::move(folio));
  if (locked->evicted_) return {};
  return locked;
}

void PageCache::markDirty(LockedFolio& folio, uint32_t from, uint32_t to) {
  const uint64_t blocks =
      bits(from / state_->blockSize, (to + state_->blockSize - 1) / state_->blockSize);
  require((folio->uptodate_ & blocks) == blocks, "dirty blocks are uptodate");
  const bool first = folio->dirty_ == 0 && blocks != 0;
  if (!first && mutantEnabled("iomap.one_dirty_bit")) return;
  folio->dirty_ |= blocks;
  if (!first) return;
  MutexLock lock(state_->mutex);
  state_->chunkOf(*folio).dirty |= State::bitOf(*folio);
  dirtyCount_.fetch_add(1, std::memory_order_relaxed);
  state_->pool.dirty += folioSize();
}

void PageCache::clearDirty(LockedFolio& folio, uint32_t fromBlock, uint32_t toBlock) {
  if (folio->dirty_ == 0) return;
  folio->dirty_ &= ~bits(fromBlock, toBlock);
  if (folio->dirty_ != 0) return;
  MutexLock lock(state_->mutex);
  state_->chunkOf(*folio).dirty &= ~State::bitOf(*folio);
  dirtyCount_.fetch_sub(1, std::memory_order_relaxed);
  state_->pool.dirty -= folioSize();
}

void PageCache::startWriteback(LockedFolio& folio, uint32_t fromBlock, uint32_t toBlock) {
  require(!folio->inWriteback(), "one writeback of a folio at a time");
  {
    // First the flag, then the dirty tag: a scan for either must not miss the folio in between.
    MutexLock lock(state_->mutex);
    state_->chunkOf(*folio).writeback |= State::bitOf(*folio);
    folio->writeback_.store(true, std::memory_order_release);
    state_->pool.writeback += folioSize();
  }
  clearDirty(folio, fromBlock, toBlock);
}

void PageCache::endWriteback(Folio& folio) {
  MutexLock lock(state_->mutex);
  state_->chunkOf(folio).writeback &= ~State::bitOf(folio);
  folio.writeback_.store(false, std::memory_order_release);
  state_->pool.writeback -= folioSize();
  state_->writebackEnded.notifyAll();
}

bool PageCache::waitWriteback(LockedFolio& folio) NO_THREAD_SAFETY_ANALYSIS {
  while (folio->inWriteback()) {
    std::shared_ptr<Folio> same = folio.share();
    folio.unlock();
    SYNC_POINT("folio.before_wait");
    {
      MutexLock lock(state_->mutex);
      while (same->inWriteback()) state_->writebackEnded.wait(state_->mutex);
    }
    same->lock_.lock();
    folio = LockedFolio(std::move(same));
    if (folio->evicted_) {
      folio.unlock();
      return false;
    }
  }
  return true;
}

std::optional<uint64_t> PageCache::nextDirty(uint64_t from, uint64_t to) const {
  if (dirtyFolios() == 0) return std::nullopt;
  MutexLock lock(state_->mutex);
  return state_->next(dirtyTags, from, to);
}

std::optional<uint64_t> PageCache::nextCached(uint64_t from, uint64_t to) const {
  MutexLock lock(state_->mutex);
  return state_->next(presentTags, from, to);
}

std::optional<uint64_t> PageCache::nextBusy(uint64_t from, uint64_t to) const {
  MutexLock lock(state_->mutex);
  return state_->next(busyTags, from, to);
}

bool PageCache::anyDirtyOrWriteback(FileOffset from, FileOffset to) const {
  return nextBusy(from.v / folioSize(), roundUp(to.v, folioSize()) / folioSize()).has_value();
}

void PageCache::waitWriteback(FileOffset from, FileOffset to) const {
  const uint64_t end = roundUp(to.v, folioSize()) / folioSize();
  MutexLock lock(state_->mutex);
  for (uint64_t index = from.v / folioSize(); index < end; ++index) {
    const auto found = state_->next(writebackTags, index, end);
    if (!found) return;
    index = *found;
    const std::shared_ptr<Folio> folio = state_->find(index);
    while (folio->inWriteback()) state_->writebackEnded.wait(state_->mutex);
  }
}

size_t PageCache::folios() const {
  MutexLock lock(state_->mutex);
  return state_->count;
}

bool PageCache::evict(LockedFolio folio) {
  if (folio->anyDirty() || folio->inWriteback()) return false;
  discard(std::move(folio));
  return true;
}

void PageCache::discard(LockedFolio folio) {
  require(!folio->inWriteback(), "a folio in writeback stays in the cache");
  clearDirty(folio, 0, folio->blocks());
  folio->evicted_ = true;
  MutexLock lock(state_->mutex);
  Chunk& chunk = state_->chunkOf(*folio);
  chunk.present &= ~State::bitOf(*folio);
  chunk.slots[folio->index() % kSlots].reset();
  if (chunk.present == 0) state_->chunks.erase(folio->index() / kSlots);
  --state_->count;
}

}  // namespace ourfs
