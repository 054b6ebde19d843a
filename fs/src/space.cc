#include "fs/space.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "allocation_group.h"
#include "common/sync_point.h"

namespace ourfs {

namespace {
// Requests up to this many blocks have a cursor of their own, so that they do not cut up the
// stretches that large ones come from.
constexpr uint64_t kSmallRequest = 16;
// A run at the hint that is shorter than wanted is still taken if it is at least this long.
constexpr uint32_t kWorthwhile = 64;
}  // namespace

BlockCount SpaceCounts::available() const {
  const uint64_t have = free.v + busy.v, promised = reserved.v + metadataReserve.v;
  return BlockCount(have > promised ? have - promised : 0);
}

struct SpaceAllocator::State {
  State(BlockNo firstBlock, BlockNo endBlock, BlockCount reserveOfMetadata)
      : first(firstBlock.v),
        end(endBlock.v),
        metadataReserve(reserveOfMetadata.v),
        tree((end + kGroupBlocks - 1) / kGroupBlocks) {
    // Groups count from block 0 of the volume; the first ones may lie before `first`, and are full.
    groups.reserve((end + kGroupBlocks - 1) / kGroupBlocks);
    for (uint64_t at = 0; at < end; at += kGroupBlocks) {
      const auto size = static_cast<uint32_t>(std::min<uint64_t>(kGroupBlocks, end - at));
      groups.emplace_back(size);
      if (at < first)
        groups.back().take({0, static_cast<uint32_t>(std::min<uint64_t>(first - at, size))});
      update(groups.size() - 1);
    }
    free = end - first;
    smallCursor = first;
    largeCursor = first + (end - first) / 4;
  }

  const uint64_t first, end, metadataReserve;
  mutable Mutex mutex;
  std::vector<AllocationGroup> groups GUARDED_BY(mutex);
  LargestTree tree GUARDED_BY(mutex);
  uint64_t free GUARDED_BY(mutex) = 0, busy GUARDED_BY(mutex) = 0, reserved GUARDED_BY(mutex) = 0;
  uint64_t smallCursor GUARDED_BY(mutex) = 0, largeCursor GUARDED_BY(mutex) = 0;
  Lsn durable GUARDED_BY(mutex);
  struct Busy {
    Lsn lsn;
    BlockRun run;
  };
  std::deque<Busy> busyRuns GUARDED_BY(mutex);  // in order of lsn
  std::function<void(SpaceUse)> whenFull;       // constant once serving
  std::function<void(BlockRun)> discard;        // likewise; may be empty

  void update(size_t group) REQUIRES(mutex) { tree.set(group, groups[group].longest()); }
  bool inRange(BlockRun run) const {
    return run.count.v != 0 && run.start.v >= first && run.start.v < end &&
           run.count.v <= end - run.start.v;
  }
  // Calls each(group, run within it) for the parts of `run`; stops when it answers false.
  template <class F>
  static bool eachPart(BlockRun run, F&& each) {
    for (uint64_t at = run.start.v, left = run.count.v; left != 0;) {
      const auto within = static_cast<uint32_t>(at % kGroupBlocks);
      const auto count = static_cast<uint32_t>(std::min<uint64_t>(left, kGroupBlocks - within));
      if (!each(at / kGroupBlocks, AllocationGroup::Run{within, count})) return false;
      at += count;
      left -= count;
    }
    return true;
  }
  static BlockRun runOf(size_t group, AllocationGroup::Run run) {
    return {BlockNo(group * kGroupBlocks + run.start), BlockCount(run.count)};
  }

  bool mayAsk() const { return whenFull && !mutantEnabled("space.full_without_flush"); }
  void give(BlockRun run) REQUIRES(mutex);
  uint64_t limitFor(uint64_t want, bool fromPromise, SpaceUse use) const REQUIRES(mutex);
  BlockRun search(uint32_t want, uint64_t start) REQUIRES(mutex);
  AllocationGroup::Run searchGroup(size_t group, uint32_t from, uint32_t want) REQUIRES(mutex);
  BlockRun take(uint64_t want, BlockNo hint) REQUIRES(mutex);
};

void SpaceAllocator::State::give(BlockRun run) {
  const bool usedAll = inRange(run) && eachPart(run, [&](size_t g, AllocationGroup::Run part) {
                         mutex.assertHeld();
                         return groups[g].noneFree(part);
                       });
  if (!usedAll) {
    // Space lost until the next scan is harmless; a block given out twice is not.
    spdlog::critical("space: blocks {}+{} were freed twice; they stay unused until the next mount",
                     run.start.v, run.count.v);
    return;
  }
  eachPart(run, [&](size_t g, AllocationGroup::Run part) {
    mutex.assertHeld();
    groups[g].give(part);
    update(g);
    return true;
  });
  free += run.count.v;
}

// How many of `want` blocks may be had: what others were promised stays.
uint64_t SpaceAllocator::State::limitFor(uint64_t want, bool fromPromise, SpaceUse use) const {
  if (fromPromise) return std::min({want, reserved, free});
  const bool all = use == SpaceUse::Metadata || mutantEnabled("space.data_takes_reserve");
  const uint64_t kept = reserved + (all ? 0 : metadataReserve);
  return std::min(want, free > kept ? free - kept : 0);
}

AllocationGroup::Run SpaceAllocator::State::searchGroup(size_t group, uint32_t from,
                                                        uint32_t want) {
  const AllocationGroup::Run run = groups[group].find(from, want);
  if (run.count == 0) update(group);  // a search in vain may have lowered the bound
  return run;
}

// A run of `want` blocks if there is one, from `start` on and around; else as long as there is.
// REQUIRES: something is free.
BlockRun SpaceAllocator::State::search(uint32_t want, uint64_t start) {
  const size_t origin = start / kGroupBlocks;
  while (tree.largest() != 0) {
    want = std::min(want, tree.largest());
    if (groups[origin].longest() >= want) {
      const auto run = searchGroup(origin, static_cast<uint32_t>(start % kGroupBlocks), want);
      if (run.count != 0) return runOf(origin, run);
    }
    for (const auto& [low, high] :
         {std::pair(origin + 1, groups.size()), std::pair(size_t{0}, origin + 1)}) {
      for (size_t g = low; (g = tree.next(g, high, want)) < high; ++g) {
        const auto run = searchGroup(g, 0, want);
        if (run.count != 0) return runOf(g, run);
      }
    }
    // Every bound was at least `want` somewhere and is now below it: the next round asks for less.
  }
  return {};
}

BlockRun SpaceAllocator::State::take(uint64_t want, BlockNo hint) {
  const auto most = static_cast<uint32_t>(std::min<uint64_t>(want, kGroupBlocks));
  uint64_t& cursor = want <= kSmallRequest ? smallCursor : largeCursor;
  const bool hinted = hint.v >= first && hint.v < end;
  uint64_t start = hinted ? hint.v : cursor;
  if (start >= end) start = first;
  BlockRun found;
  if (hinted) {
    const auto within = static_cast<uint32_t>(start % kGroupBlocks);
    const auto at = groups[start / kGroupBlocks].nextFree(within, most);
    if (at.start == within && at.count >= std::min(most, kWorthwhile)) {
      found = runOf(start / kGroupBlocks, at);
    }
  }
  if (found.count.v == 0) found = search(most, start);
  if (found.count.v == 0) return found;
  eachPart(found, [&](size_t g, AllocationGroup::Run part) {
    mutex.assertHeld();
    groups[g].take(part);
    update(g);
    return true;
  });
  free -= found.count.v;
  if (!hinted) cursor = (found.start + found.count).v;
  return found;
}

SpaceAllocator::SpaceAllocator(BlockNo firstBlock, BlockNo endBlock, BlockCount metadataReserve)
    : state_(std::make_unique<State>(firstBlock, endBlock, metadataReserve)) {}
SpaceAllocator::~SpaceAllocator() = default;

bool SpaceAllocator::markUsed(BlockRun run) {
  State& s = *state_;
  MutexLock lock(s.mutex);
  if (!s.inRange(run)) return false;
  const bool allFree = State::eachPart(run, [&](size_t g, AllocationGroup::Run part) {
    s.mutex.assertHeld();
    return s.groups[g].allFree(part);
  });
  if (!allFree) return false;
  State::eachPart(run, [&](size_t g, AllocationGroup::Run part) {
    s.mutex.assertHeld();
    s.groups[g].take(part);
    s.update(g);
    return true;
  });
  s.free -= run.count.v;
  return true;
}

Status SpaceAllocator::reserve(BlockCount count) {
  State& s = *state_;
  for (bool first = true;; first = false) {
    {
      MutexLock lock(s.mutex);
      const uint64_t kept = s.reserved + s.metadataReserve;
      if (s.free >= kept && s.free - kept >= count.v) {
        s.reserved += count.v;
        return Status::ok();
      }
      if (!first || !s.mayAsk()) return Status::error(ENOSPC);
    }
    s.whenFull(SpaceUse::Data);
  }
}

void SpaceAllocator::unreserve(BlockCount count) {
  MutexLock lock(state_->mutex);
  if (count.v > state_->reserved) {
    spdlog::critical("space: {} blocks were given back, {} are promised", count.v,
                     state_->reserved);
  }
  state_->reserved -= std::min(count.v, state_->reserved);
}

void SpaceAllocator::setWhenFull(std::function<void(SpaceUse)> whenFull) {
  state_->whenFull = std::move(whenFull);
}

Result<BlockRun> SpaceAllocator::allocate(BlockCount want, BlockNo hint, bool reserved,
                                          SpaceUse use) {
  State& s = *state_;
  if (want.v == 0) return Status::error(EINVAL);
  for (bool first = true;; first = false) {
    {
      MutexLock lock(s.mutex);
      const uint64_t limit = s.limitFor(want.v, reserved, use);
      const BlockRun run = limit == 0 ? BlockRun{} : s.take(limit, hint);
      if (run.count.v != 0) {
        if (reserved) s.reserved -= run.count.v;
        return run;
      }
      if (!first || !s.mayAsk()) return Status::error(ENOSPC);
    }
    s.whenFull(use);
  }
}

void SpaceAllocator::freeUnstored(BlockRun run) {
  MutexLock lock(state_->mutex);
  state_->give(run);
}

void SpaceAllocator::freeAt(BlockRun run, Lsn lsn) {
  State& s = *state_;
  MutexLock lock(s.mutex);
  if (lsn <= s.durable || mutantEnabled("space.reuse_freed_early")) {
    s.give(run);
    return;
  }
  s.busy += run.count.v;
  if (s.discard && mutantEnabled("space.discard_early")) {
    lock.unlock();
    s.discard(run);
    return;
  }
  auto at = s.busyRuns.end();
  while (at != s.busyRuns.begin() && std::prev(at)->lsn > lsn) --at;
  s.busyRuns.insert(at, {lsn, run});
}

void SpaceAllocator::onDurable(Lsn durable) {
  State& s = *state_;
  std::vector<BlockRun> toDiscard;
  MutexLock lock(s.mutex);
  s.durable = std::max(s.durable, durable);
  while (!s.busyRuns.empty() && s.busyRuns.front().lsn <= s.durable) {
    const BlockRun run = s.busyRuns.front().run;
    s.busyRuns.pop_front();
    if (s.discard) {
      toDiscard.push_back(run);
      continue;
    }
    s.busy -= run.count.v;
    s.give(run);
  }
  lock.unlock();
  for (const BlockRun& run : toDiscard) s.discard(run);
}

void SpaceAllocator::setDiscard(std::function<void(BlockRun)> discard) {
  state_->discard = std::move(discard);
}

void SpaceAllocator::discarded(BlockRun run) {
  State& s = *state_;
  MutexLock lock(s.mutex);
  s.busy -= run.count.v;
  s.give(run);
}

SpaceCounts SpaceAllocator::counts() const {
  const State& s = *state_;
  MutexLock lock(s.mutex);
  return {BlockCount(s.end - s.first), BlockCount(s.free), BlockCount(s.busy),
          BlockCount(s.reserved), BlockCount(s.metadataReserve)};
}

void SpaceAllocator::forEachFree(const std::function<void(BlockRun)>& each) const {
  const State& s = *state_;
  BlockRun pending;
  MutexLock lock(s.mutex);
  for (size_t g = 0; g < s.groups.size(); ++g) {
    for (uint32_t at = 0;;) {
      const auto part = s.groups[g].nextFree(at, kGroupBlocks);
      if (part.count == 0) break;
      at = part.start + part.count;
      const BlockRun run = State::runOf(g, part);
      if (pending.count.v != 0 && pending.start + pending.count == run.start) {
        pending.count += run.count;
        continue;
      }
      if (pending.count.v != 0) each(pending);
      pending = run;
    }
  }
  if (pending.count.v != 0) each(pending);
}

}  // namespace ourfs
