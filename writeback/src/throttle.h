// Throttle: keeps dirty and in-writeback memory within its limit, by letting writers wait.
//
// A writer waits until there is room again, but never for more than is needed: when as much was
// written as all who wait bring, it goes on, even if others have filled the room meanwhile. Memory
// is thus at most the limit and one write per writer.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "common/mutex.h"
#include "common/units.h"
#include "iomap/page_cache.h"

namespace ourfs {

class Throttle {
 public:
  Throttle(const FolioPool& pool, ByteCount background, ByteCount limit);

  bool overBackground() const { return pool_.dirty.load() > background_.v; }
  bool anyWaiting() const { return waitingBytes_.load() != 0; }
  // `help` starts flushers; called without locks, now and then. True: it was over the limit.
  bool wait(ByteCount about, const std::function<void()>& help);

  void completed(uint64_t bytes);  // so much was written, or given up
  // Waits until anything completes, or the time is over.
  void awaitProgress(std::chrono::microseconds most);

 private:
  uint64_t used() const { return pool_.dirty.load() + pool_.writeback.load(); }
  bool over(ByteCount about) const { return used() != 0 && used() + about.v > limit_.v; }

  const FolioPool& pool_;
  const ByteCount background_, limit_;
  Mutex mutex_;
  CondVar progress_;
  uint64_t completed_ GUARDED_BY(mutex_) = 0;
  std::atomic<uint64_t> waitingBytes_{0};  // changed under the mutex
};

}  // namespace ourfs
