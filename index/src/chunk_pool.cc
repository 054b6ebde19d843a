#include "chunk_pool.h"

#include <algorithm>

#include "common/sync_point.h"

namespace ourfs {

Result<std::unique_ptr<ChunkPool>> ChunkPool::build(const std::vector<BlockRun>& pool,
                                                    const std::vector<BlockRun>& used) {
  const auto sorted = [](std::vector<BlockRun> runs) {
    std::ranges::sort(runs, {}, [](const BlockRun& r) { return r.start.v; });
    return runs;
  };
  std::unique_ptr<ChunkPool> p(new ChunkPool());
  MutexLock l(p->mu_);
  const std::vector<BlockRun> taken = sorted(used);
  auto next = taken.begin();
  for (const BlockRun& run : sorted(pool)) {
    BlockNo at = run.start;
    const BlockNo end = run.start + run.count;
    p->total_ += run.count.v;
    for (; next != taken.end() && next->start < end; ++next) {
      if (next->start < at || next->start + next->count > end) break;
      if (next->start > at) p->insert({at, next->start - at});
      at = next->start + next->count;
    }
    if (at < end) p->insert({at, end - at});
  }
  if (next != taken.end()) return Status::corrupt("index: a file has blocks that are not its own");
  return p;
}

void ChunkPool::insert(BlockRun run) {
  free_ += run.count.v;
  auto after = byStart_.lower_bound(run.start.v);
  if (after != byStart_.end() && after->first == run.start.v + run.count.v) {
    run.count += BlockCount(after->second);
    erase(after++);
  }
  if (after != byStart_.begin()) {
    auto before = std::prev(after);
    if (before->first + before->second == run.start.v) {
      run = {BlockNo(before->first), BlockCount(before->second) + run.count};
      erase(before);
    }
  }
  byStart_.emplace(run.start.v, run.count.v);
  bySize_.emplace(run.count.v, run.start.v);
}

void ChunkPool::erase(std::map<uint64_t, uint64_t>::iterator it) {
  bySize_.erase({it->second, it->first});
  byStart_.erase(it);
}

// Up to `most` blocks of a free run, from block `from` of the volume on.
BlockRun ChunkPool::take(std::map<uint64_t, uint64_t>::iterator it, uint64_t from, uint64_t most) {
  const uint64_t start = it->first, end = it->first + it->second;
  const uint64_t count = std::min(most, end - from);
  erase(it);
  free_ -= end - start;
  if (from > start) insert({BlockNo(start), BlockCount(from - start)});
  if (from + count < end) insert({BlockNo(from + count), BlockCount(end - from - count)});
  return {BlockNo(from), BlockCount(count)};
}

Result<std::vector<BlockRun>> ChunkPool::allocate(uint64_t blocks, BlockNo hint) {
  MutexLock l(mu_);
  std::vector<BlockRun> runs;
  if (blocks > free_) return Status::error(ENOSPC, "index: its pool is full");
  auto at = byStart_.upper_bound(hint.v);
  if (hint.v != 0 && at != byStart_.begin() && blocks > 0) {
    --at;
    if (hint.v < at->first + at->second) runs.push_back(take(at, hint.v, blocks));
  }
  uint64_t left = blocks - (runs.empty() ? 0 : runs.back().count.v);
  while (left > 0) {
    // The smallest run that holds all of it, else the largest there is.
    auto fit = bySize_.lower_bound({left, 0});
    if (fit == bySize_.end()) --fit;
    auto run = byStart_.find(fit->second);
    runs.push_back(take(run, run->first, left));
    left -= runs.back().count.v;
  }
  return runs;
}

void ChunkPool::release(const std::vector<BlockRun>& runs) {
  MutexLock l(mu_);
  if (hold_ && !mutantEnabled("index.reuse_freed_early")) {
    held_.insert(held_.end(), runs.begin(), runs.end());
    return;
  }
  for (const BlockRun& run : runs) insert(run);
}

void ChunkPool::giveBack(const std::vector<BlockRun>& runs) {
  MutexLock l(mu_);
  for (const BlockRun& run : runs) insert(run);
}

void ChunkPool::add(const BlockRun& run) {
  MutexLock l(mu_);
  total_ += run.count.v;
  insert(run);
}

std::vector<BlockRun> ChunkPool::withdraw(uint64_t blocks) {
  MutexLock l(mu_);
  std::vector<BlockRun> runs;
  while (!hold_ && blocks > 0 && !byStart_.empty()) {
    const auto last = std::prev(byStart_.end());
    const uint64_t count = std::min(blocks, last->second);
    runs.push_back(take(last, last->first + last->second - count, count));
    total_ -= count;
    blocks -= count;
  }
  return runs;
}

void ChunkPool::endHold() {
  MutexLock l(mu_);
  hold_ = false;
  for (const BlockRun& run : std::exchange(held_, {})) insert(run);
}

}  // namespace ourfs
