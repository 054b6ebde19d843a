#include "delay_queue.h"

#include "service_thread.h"

namespace ourfs {

DelayQueue::~DelayQueue() {
  std::thread thread;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    thread = std::move(thread_);
  }
  changed_.notifyAll();
  if (thread.joinable()) thread.join();
}

void DelayQueue::after(std::chrono::microseconds delay, std::function<void()> f) {
  MutexLock lock(mutex_);
  queue_.emplace(Clock::now() + delay, std::move(f));
  if (!thread_.joinable()) thread_ = startServiceThread([this] { run(); });
  changed_.notifyOne();
}

void DelayQueue::run() {
  MutexLock lock(mutex_);
  for (;;) {
    if (queue_.empty()) {
      if (stopping_) return;
      changed_.wait(mutex_);
      continue;
    }
    const auto left = queue_.begin()->first - Clock::now();
    if (left.count() > 0 && !stopping_) {
      changed_.waitFor(mutex_, left);
      continue;
    }
    std::function<void()> f = std::move(queue_.begin()->second);
    queue_.erase(queue_.begin());
    lock.unlock();
    f();
    lock.lock();
  }
}

}  // namespace ourfs
