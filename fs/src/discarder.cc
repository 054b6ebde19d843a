#include "discarder.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/sync_point.h"

namespace ourfs {

namespace {
uint64_t endOf(const std::pair<const uint64_t, uint64_t>& run) { return run.first + run.second; }
}  // namespace

Volume::Discarder::Discarder(BlockDevice& device, SpaceAllocator& space, uint32_t blockSize,
                             const std::atomic<bool>& readOnly)
    : device_(device), space_(space), blockSize_(blockSize), readOnly_(readOnly) {
  thread_ = std::thread([this] { run(); });
}

Volume::Discarder::~Discarder() {
  {
    MutexLock lock(mutex_);
    dropQueue();
    stopping_ = true;
    wake_.notifyOne();
  }
  thread_.join();
}

void Volume::Discarder::queue(BlockRun run) {
  MutexLock lock(mutex_);
  add(run);
  if (runs_.size() > kMostRuns) {
    const auto last = std::prev(runs_.end());
    space_.discarded({BlockNo(last->first), BlockCount(last->second)});
    runs_.erase(last);
  }
  wake_.notifyOne();
}

void Volume::Discarder::add(BlockRun run) {
  uint64_t start = run.start.v, end = start + run.count.v;
  auto after = runs_.lower_bound(start);
  const bool below = after != runs_.begin() && endOf(*std::prev(after)) > start;
  if (below || (after != runs_.end() && after->first < end)) {
    // A discard of blocks that are somebody else's by then would lose data; lost space is harmless.
    spdlog::critical("discard: blocks {}+{} were freed twice; they stay busy until the next mount",
                     start, run.count.v);
    return;
  }
  if (after != runs_.end() && after->first == end) {
    end += after->second;
    after = runs_.erase(after);
  }
  if (after != runs_.begin()) {
    const auto before = std::prev(after);
    if (endOf(*before) == start) {
      before->second = end - before->first;
      return;
    }
  }
  runs_.emplace_hint(after, start, end - start);
}

void Volume::Discarder::drop() {
  SYNC_POINT("discard.before_drop");
  MutexLock lock(mutex_);
  dropQueue();
  awaitInFlight();
}

void Volume::Discarder::finish(std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  MutexLock lock(mutex_);
  while (!runs_.empty() || begun_ != ended_) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    if (left.count() <= 0 || !progress_.waitFor(mutex_, left)) break;
  }
  dropQueue();
  awaitInFlight();
}

// Under the mutex to the end: whoever finds the queue empty may rely on the blocks being free.
void Volume::Discarder::dropQueue() {
  for (const auto& [start, count] : runs_) space_.discarded({BlockNo(start), BlockCount(count)});
  runs_.clear();
}

// Only for what has begun by now: others may go on freeing.
void Volume::Discarder::awaitInFlight() {
  const uint64_t begun = begun_;
  while (ended_ < begun) progress_.wait(mutex_);
}

DiscardCounters Volume::Discarder::counters() const {
  MutexLock lock(mutex_);
  return counters_;
}

BlockRun Volume::Discarder::next() {
  auto at = runs_.lower_bound(cursor_);
  if (at == runs_.end()) at = runs_.begin();
  const auto [start, count] = *at;
  const uint64_t taken = std::min(count, kMostBytes / blockSize_);
  runs_.erase(at);
  cursor_ = start + taken;
  if (taken < count) runs_.emplace(cursor_, count - taken);
  return {BlockNo(start), BlockCount(taken)};
}

void Volume::Discarder::run() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    if (runs_.empty()) {
      wake_.wait(mutex_);
      continue;
    }
    const BlockRun run = next();
    ++begun_;
    lock.unlock();
    const bool early = mutantEnabled("space.free_before_discard");
    if (early) space_.discarded(run);
    SYNC_POINT("discard.before_submit");
    const Status done = discard(run);
    if (!early) space_.discarded(run);
    lock.lock();
    ++ended_;
    if (!done.isOk() && counters_.errors++ == 0) {
      spdlog::warn("discard: {}; the space is used again all the same, and this is said once",
                   done.message());
    }
    progress_.notifyAll();
  }
}

// Whole physical sectors only: a device may have to read and write the others, and with them their
// neighbours.
Status Volume::Discarder::discard(BlockRun run) {
  const uint64_t unit = std::max(device_.physicalSector(), blockSize_);
  const uint64_t start = roundUp(run.start.v * blockSize_, unit);
  const uint64_t end = roundDown((run.start + run.count).v * blockSize_, unit);
  if (start >= end || readOnly_.load(std::memory_order_acquire)) return Status::ok();
  TRY(device_.discard(DeviceOffset(start), ByteCount(end - start)));
  MutexLock lock(mutex_);
  ++counters_.discards;
  counters_.bytes += end - start;
  return Status::ok();
}

}  // namespace ourfs
