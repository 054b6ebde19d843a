// Discarder: the thread that gives freed blocks back to the device, before they can be used again
// (mount option `discard`).
//
// Invariants:
//   1. What is here is busy in the allocator: queued by it once the transaction that freed it is
//      durable, and free only after its discard has completed, or if it is never submitted.
//      Mutants: space.discard_early queues it when it is freed, space.free_before_discard lets it
//      be used when the discard is submitted.
//   2. One discard is in flight at a time, of at most kMostBytes. What is queued meanwhile is
//      merged into runs.
//   3. A discard is a hint: what fails, or does not fit into the queue, is free all the same.
//
// Threads: any. Its mutex comes before the allocator's. What the thread waits for is the device
// alone.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <thread>

#include "block/block_device.h"
#include "common/mutex.h"
#include "fs/volume.h"

namespace ourfs {

class Volume::Discarder {
 public:
  // Nothing is submitted while `readOnly`.
  Discarder(BlockDevice& device, SpaceAllocator& space, uint32_t blockSize,
            const std::atomic<bool>& readOnly);
  ~Discarder();  // as after drop(); nobody may queue any more

  // Blocks whose transaction is durable. Never waits for the device; the log lock may be held.
  void queue(BlockRun run);
  // What was queued before is free when this returns: undiscarded, but for what is in flight.
  void drop();
  // Waits until everything is discarded, at most `limit`; then drops what is left.
  void finish(std::chrono::milliseconds limit);

  DiscardCounters counters() const;

 private:
  static constexpr uint64_t kMostBytes = 64 * MiB;  // how long somebody may have to wait for space
  static constexpr size_t kMostRuns = 65536;        // in the queue: 5 MiB of memory

  void run();
  void add(BlockRun run) REQUIRES(mutex_);
  BlockRun next() REQUIRES(mutex_);
  void dropQueue() REQUIRES(mutex_);
  void awaitInFlight() REQUIRES(mutex_);
  Status discard(BlockRun run);

  BlockDevice& device_;
  SpaceAllocator& space_;
  const uint32_t blockSize_;
  const std::atomic<bool>& readOnly_;
  mutable Mutex mutex_;
  CondVar wake_, progress_;
  std::map<uint64_t, uint64_t> runs_ GUARDED_BY(mutex_);  // first block -> blocks, not touching
  uint64_t cursor_ GUARDED_BY(mutex_) = 0;                // the next run begins here or behind
  uint64_t begun_ GUARDED_BY(mutex_) = 0, ended_ GUARDED_BY(mutex_) = 0;  // discards
  bool stopping_ GUARDED_BY(mutex_) = false;
  DiscardCounters counters_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace ourfs
