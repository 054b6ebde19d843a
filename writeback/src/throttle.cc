#include "throttle.h"

#include <algorithm>

#include "common/sync_point.h"

namespace ourfs {

namespace {
// What can shrink the memory without telling us (truncate) is noticed after so long.
constexpr std::chrono::milliseconds kLook{50};
constexpr std::chrono::microseconds kSoftDelay{4000};  // at most, for a write of kSoftBytes
constexpr uint64_t kSoftBytes = 128 * KiB;
}  // namespace

Throttle::Throttle(const FolioPool& pool, ByteCount background, ByteCount limit)
    : pool_(pool), background_(background), limit_(limit) {}

bool Throttle::wait(ByteCount about, const std::function<void()>& help) {
  const uint64_t soft = (background_.v + limit_.v) / 2;
  const uint64_t now = used();
  if (now > background_.v) help();
  if (!over(about)) {
    if (now <= soft || limit_.v <= soft) return false;
    // Slowing down before the wall makes the waits at the wall short.
    const uint64_t share =
        (now - soft) * 1000 / (limit_.v - soft) * std::min(about.v, kSoftBytes) / kSoftBytes;
    awaitProgress(kSoftDelay * static_cast<int64_t>(share) / 1000);
    return false;
  }
  MutexLock lock(mutex_);
  waitingBytes_ += about.v;
  const uint64_t enough = completed_ + waitingBytes_;
  while (over(about) && completed_ < enough) {
    lock.unlock();
    SYNC_POINT("throttle.wait");
    help();
    lock.lock();
    if (over(about) && completed_ < enough) progress_.waitFor(mutex_, kLook);
  }
  waitingBytes_ -= about.v;
  return true;
}

void Throttle::completed(uint64_t bytes) {
  MutexLock lock(mutex_);
  completed_ += bytes;
  progress_.notifyAll();
}

void Throttle::awaitProgress(std::chrono::microseconds most) {
  if (most.count() == 0) return;
  MutexLock lock(mutex_);
  progress_.waitFor(mutex_, most);
}

}  // namespace ourfs
