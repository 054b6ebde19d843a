#include "backlog.h"

namespace ourfs {

void Backlog::sealed(uint64_t firstSequence) {
  MutexLock l(mu_);
  if (firstSequence <= flushedUpTo_) return;
  first_.push_back(firstSequence);
  memtables_.store(first_.size(), std::memory_order_relaxed);
}

void Backlog::flushed(uint64_t lastSequence) {
  MutexLock l(mu_);
  if (lastSequence > flushedUpTo_) flushedUpTo_ = lastSequence;
  while (!first_.empty() && first_.front() <= flushedUpTo_) first_.pop_front();
  memtables_.store(first_.size(), std::memory_order_relaxed);
  ++moves_;
  changed_.notifyAll();
}

void Backlog::setLevel0(int files) {
  MutexLock l(mu_);
  level0_.store(files, std::memory_order_relaxed);
  ++moves_;
  changed_.notifyAll();
}

void Backlog::moved() {
  MutexLock l(mu_);
  ++moves_;
  changed_.notifyAll();
}

void Backlog::await(const std::function<bool()>& crowded, std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  MutexLock l(mu_);
  while (crowded()) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) return;
    changed_.waitFor(mu_, deadline - now);
  }
}

}  // namespace ourfs
