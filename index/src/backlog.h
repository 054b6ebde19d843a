// Backlog: what has been applied and is not where it should end up: memtables that wait for their
// flush, and level-0 files that wait for compaction. Reservations wait on it, never apply().
//
// Threads: any.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>

#include "common/mutex.h"

namespace ourfs {

class Backlog {
 public:
  // A full memtable whose first entry has this sequence number will be flushed.
  void sealed(uint64_t firstSequence);
  // Everything up to this sequence number has been flushed. May come before its sealed().
  void flushed(uint64_t lastSequence);
  void setLevel0(int files);
  void moved();  // something has changed that somebody may wait for

  uint64_t memtables() const { return memtables_.load(std::memory_order_relaxed); }
  int level0() const { return level0_.load(std::memory_order_relaxed); }
  uint64_t moves() const { return moves_.load(std::memory_order_relaxed); }  // changes so far
  // Waits for a change while `crowded` answers true, at most so long.
  void await(const std::function<bool()>& crowded, std::chrono::milliseconds limit);

 private:
  Mutex mu_;
  CondVar changed_;
  std::deque<uint64_t> first_ GUARDED_BY(mu_);  // of each sealed memtable
  uint64_t flushedUpTo_ GUARDED_BY(mu_) = 0;
  std::atomic<uint64_t> memtables_ = 0;
  std::atomic<int> level0_ = 0;
  std::atomic<uint64_t> moves_ = 0;
};

}  // namespace ourfs
