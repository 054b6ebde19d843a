#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <list>
#include <unordered_map>

#include "fs/inode.h"

namespace ourfs {

Inode::Inode(InodeNo number, const InodeRecord& r)
    : ino(number), type(r.mode & S_IFMT), record(r), orphan(r.nlink == 0) {}

void Inode::raiseLastLsn(Lsn lsn) {
  uint64_t seen = lastLsn.load(std::memory_order_relaxed);
  while (seen < lsn.v && !lastLsn.compare_exchange_weak(seen, lsn.v, std::memory_order_acq_rel)) {
  }
}

std::shared_ptr<Mapping> Inode::mappingIfAny() const {
  MutexLock attr(attrMutex);
  return mapping;
}

uint64_t Inode::currentSize() const {
  MutexLock attr(attrMutex);
  return mapping ? mapping->size.load() : record.size;
}

bool Inode::isDirectory() const { return type == S_IFDIR; }
bool Inode::isRegular() const { return type == S_IFREG; }

namespace {

// Loading: somebody reads its record; `inode` is null. Leaving: it is being dropped or reclaimed.
enum class EntryState : uint8_t { Loading, Ready, Leaving };

struct Entry {
  InodePtr inode;
  EntryState state = EntryState::Loading;
  bool listed = false;                       // in the list of unused ones
  std::list<uint64_t>::iterator position{};  // there
};

struct Shard {
  Mutex mutex;
  CondVar changed;  // an entry left Loading or Leaving
  std::unordered_map<uint64_t, Entry> entries GUARDED_BY(mutex);
  std::list<uint64_t> unused
      GUARDED_BY(mutex);  // Ready, no lookups, no opens; longest unused first
};

constexpr size_t kShards = 16;

}  // namespace

struct InodeTable::State {
  Loader loader;
  Inactivate inactivate;
  std::array<Shard, kShards> shards;
  std::atomic<size_t> unusedCount{0};
  std::atomic<size_t> nextShard{0};

  Shard& shardOf(InodeNo ino) { return shards[ino.v % kShards]; }

  void list(Shard& shard, InodeNo ino, Entry& entry) REQUIRES(shard.mutex) {
    if (entry.listed) return;
    entry.position = shard.unused.insert(shard.unused.end(), ino.v);
    entry.listed = true;
    unusedCount.fetch_add(1, std::memory_order_relaxed);
  }
  void unlist(Shard& shard, Entry& entry) REQUIRES(shard.mutex) {
    if (!entry.listed) return;
    shard.unused.erase(entry.position);
    entry.listed = false;
    unusedCount.fetch_sub(1, std::memory_order_relaxed);
  }

  // Ready or absent, after whoever loads or drops it has finished.
  std::unordered_map<uint64_t, Entry>::iterator settled(Shard& shard, InodeNo ino)
      REQUIRES(shard.mutex) {
    auto it = shard.entries.find(ino.v);
    while (it != shard.entries.end() && it->second.state != EntryState::Ready) {
      shard.changed.wait(shard.mutex);
      it = shard.entries.find(ino.v);
    }
    return it;
  }

  // The oldest unused inode of some shard that was not looked at yet in this round.
  std::vector<InodeNo> oldestUnused(size_t count) {
    std::vector<InodeNo> found;
    const size_t first = nextShard.fetch_add(1);
    const size_t perShard = count / kShards + 1;
    for (size_t i = 0; i < kShards && found.size() < count; ++i) {
      Shard& shard = shards[(first + i) % kShards];
      MutexLock lock(shard.mutex);
      size_t taken = 0;
      for (uint64_t ino : shard.unused) {
        if (taken++ == perShard || found.size() == count) break;
        found.emplace_back(ino);
      }
    }
    return found;
  }

  // Out of use: an unlinked one is inactivated, others may be dropped one day.
  void unused(const InodePtr& inode) {
    bool unlinked = false;
    {
      MutexLock attr(inode->attrMutex);
      unlinked = inode->record.nlink == 0;
    }
    if (unlinked && inactivate) inactivate(inode);
  }
};

InodeTable::InodeTable(Loader loader, Inactivate inactivate) : state_(std::make_unique<State>()) {
  state_->loader = std::move(loader);
  state_->inactivate = std::move(inactivate);
}

InodeTable::~InodeTable() = default;

Result<InodePtr> InodeTable::get(InodeNo ino) {
  Shard& shard = state_->shardOf(ino);
  {
    MutexLock lock(shard.mutex);
    auto it = state_->settled(shard, ino);
    if (it != shard.entries.end()) return it->second.inode;
    shard.entries.emplace(ino.v, Entry{});
  }
  Result<InodeRecord> record = state_->loader(ino);

  MutexLock lock(shard.mutex);
  shard.changed.notifyAll();
  auto it = shard.entries.find(ino.v);
  if (!record) {
    shard.entries.erase(it);
    return record.status();
  }
  it->second.inode = std::make_shared<Inode>(ino, *record);
  it->second.state = EntryState::Ready;
  state_->list(shard, ino, it->second);
  return it->second.inode;
}

InodePtr InodeTable::insertNew(InodeNo ino, const InodeRecord& record) {
  Shard& shard = state_->shardOf(ino);
  MutexLock lock(shard.mutex);
  auto it = state_->settled(shard, ino);
  if (it == shard.entries.end()) it = shard.entries.emplace(ino.v, Entry{}).first;
  // A guess at the number may have loaded it right after the commit: then it is this very record.
  if (!it->second.inode) it->second.inode = std::make_shared<Inode>(ino, record);
  it->second.state = EntryState::Ready;
  state_->list(shard, ino, it->second);
  return it->second.inode;
}

InodePtr InodeTable::find(InodeNo ino) {
  Shard& shard = state_->shardOf(ino);
  MutexLock lock(shard.mutex);
  auto it = shard.entries.find(ino.v);
  return it == shard.entries.end() ? nullptr : it->second.inode;
}

void InodeTable::addLookup(const InodePtr& inode, uint64_t n) {
  Shard& shard = state_->shardOf(inode->ino);
  MutexLock lock(shard.mutex);
  inode->lookups_ += n;
  auto it = shard.entries.find(inode->ino.v);
  if (it != shard.entries.end()) state_->unlist(shard, it->second);
}

void InodeTable::addOpen(const InodePtr& inode) {
  Shard& shard = state_->shardOf(inode->ino);
  MutexLock lock(shard.mutex);
  ++inode->opens_;
  auto it = shard.entries.find(inode->ino.v);
  if (it != shard.entries.end()) state_->unlist(shard, it->second);
}

void InodeTable::forget(InodeNo ino, uint64_t n) {
  Shard& shard = state_->shardOf(ino);
  InodePtr inode;
  {
    MutexLock lock(shard.mutex);
    auto it = shard.entries.find(ino.v);
    if (it == shard.entries.end() || !it->second.inode) return;
    inode = it->second.inode;
    if (inode->lookups_ == 0) return;
    inode->lookups_ -= std::min(n, inode->lookups_);
    if (inode->lookups_ != 0 || inode->opens_ != 0) return;
    state_->list(shard, ino, it->second);
  }
  state_->unused(inode);
}

void InodeTable::dropOpen(const InodePtr& inode) {
  Shard& shard = state_->shardOf(inode->ino);
  {
    MutexLock lock(shard.mutex);
    if (inode->opens_ == 0) return;
    --inode->opens_;
    if (inode->lookups_ != 0 || inode->opens_ != 0) return;
    auto it = shard.entries.find(inode->ino.v);
    if (it != shard.entries.end()) state_->list(shard, inode->ino, it->second);
  }
  state_->unused(inode);
}

bool InodeTable::inUse(InodeNo ino) {
  Shard& shard = state_->shardOf(ino);
  MutexLock lock(shard.mutex);
  auto it = shard.entries.find(ino.v);
  if (it == shard.entries.end() || !it->second.inode) return false;
  return it->second.inode->lookups_ != 0 || it->second.inode->opens_ != 0;
}

bool InodeTable::isOpen(InodeNo ino) {
  Shard& shard = state_->shardOf(ino);
  MutexLock lock(shard.mutex);
  auto it = shard.entries.find(ino.v);
  return it != shard.entries.end() && it->second.inode && it->second.inode->opens_ != 0;
}

std::vector<InodePtr> InodeTable::all() {
  std::vector<InodePtr> found;
  for (Shard& shard : state_->shards) {
    MutexLock lock(shard.mutex);
    for (auto& [number, entry] : shard.entries) {
      if (entry.state == EntryState::Ready) found.push_back(entry.inode);
    }
  }
  return found;
}

size_t InodeTable::size() {
  size_t sum = 0;
  for (Shard& shard : state_->shards) {
    MutexLock lock(shard.mutex);
    sum += shard.entries.size();
  }
  return sum;
}

size_t InodeTable::unused() { return state_->unusedCount.load(std::memory_order_relaxed); }

InodeTable::Retired InodeTable::beginRetire(InodeNo ino, InodePtr& leaving) {
  Shard& shard = state_->shardOf(ino);
  MutexLock lock(shard.mutex);
  auto it = shard.entries.find(ino.v);
  if (it == shard.entries.end()) return Retired::Absent;
  Entry& entry = it->second;
  if (entry.state != EntryState::Ready) return Retired::Held;
  if (entry.inode->lookups_ != 0 || entry.inode->opens_ != 0) return Retired::InUse;
  // New pointers are made under this mutex only, so a count of one cannot grow behind our back.
  if (entry.inode.use_count() != 1) return Retired::Held;
  entry.state = EntryState::Leaving;
  state_->unlist(shard, entry);
  leaving = entry.inode;
  return Retired::Leaving;
}

void InodeTable::endRetire(const InodePtr& leaving, bool gone) {
  Shard& shard = state_->shardOf(leaving->ino);
  MutexLock lock(shard.mutex);
  shard.changed.notifyAll();
  auto it = shard.entries.find(leaving->ino.v);
  if (gone) {
    shard.entries.erase(it);
    return;
  }
  it->second.state = EntryState::Ready;
  state_->list(shard, leaving->ino, it->second);
}

InodeTable::Retired InodeTable::retire(InodeNo ino, const std::function<bool(Inode&)>& away) {
  InodePtr inode;
  const Retired begun = beginRetire(ino, inode);
  if (begun != Retired::Leaving) return begun;
  const bool gone = away(*inode);
  endRetire(inode, gone);
  return gone ? Retired::Gone : Retired::Kept;
}

void InodeTable::shrink(size_t keep, const std::function<bool(Inode&)>& busy) {
  // Each round looks at a bounded number; one that is busy moves to the young end of its list.
  constexpr size_t kRound = 256;
  while (unused() > keep) {
    size_t gone = 0;
    for (InodeNo ino : state_->oldestUnused(std::min(unused() - keep, kRound))) {
      if (retire(ino, [&](Inode& inode) { return !busy(inode); }) == Retired::Gone) ++gone;
    }
    if (gone == 0) return;
  }
}

void InodeTable::releaseAll() {
  std::vector<InodePtr> released;
  for (Shard& shard : state_->shards) {
    MutexLock lock(shard.mutex);
    for (auto& [number, entry] : shard.entries) {
      if (!entry.inode || (entry.inode->lookups_ == 0 && entry.inode->opens_ == 0)) continue;
      entry.inode->lookups_ = entry.inode->opens_ = 0;
      if (entry.state == EntryState::Ready) state_->list(shard, InodeNo(number), entry);
      released.push_back(entry.inode);
    }
  }
  for (const InodePtr& inode : released) state_->unused(inode);
}

}  // namespace ourfs
