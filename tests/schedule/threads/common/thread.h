// Threads under the scheduler of tests/schedule: fibers. See mutex.h here.
#pragma once

#include <functional>
#include <utility>

#include "schedule/scheduler.h"

namespace ourfs {

class Thread {
 public:
  Thread() = default;
  explicit Thread(std::function<void()> body)
      : fiber_(test::startFiber("thread", std::move(body))) {}
  Thread(Thread&& other) noexcept : fiber_(std::exchange(other.fiber_, nullptr)) {}
  Thread& operator=(Thread&& other) noexcept {
    fiber_ = std::exchange(other.fiber_, nullptr);
    return *this;
  }
  bool joinable() const { return fiber_ != nullptr; }
  void join() { test::joinFiber(std::exchange(fiber_, nullptr)); }

 private:
  test::Fiber* fiber_ = nullptr;
};

}  // namespace ourfs
