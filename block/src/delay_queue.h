// DelayQueue: runs functions later, in a thread of its own that starts with the first of them.
// The destructor runs what is left, at once.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <thread>

#include "common/mutex.h"

namespace ourfs {

class DelayQueue {
 public:
  DelayQueue() = default;
  ~DelayQueue();
  DelayQueue(const DelayQueue&) = delete;
  DelayQueue& operator=(const DelayQueue&) = delete;

  void after(std::chrono::microseconds delay, std::function<void()> f);

 private:
  using Clock = std::chrono::steady_clock;
  void run();

  Mutex mutex_;
  CondVar changed_;
  std::multimap<Clock::time_point, std::function<void()>> queue_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);
};

}  // namespace ourfs
