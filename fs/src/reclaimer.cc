#include "reclaimer.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/sync_point.h"

namespace ourfs {

namespace {

constexpr std::chrono::milliseconds kRetry{5};  // somebody holds a pointer for a moment
constexpr std::chrono::seconds kLargeFile{5};   // to free one, with a slow disk
using Clock = std::chrono::steady_clock;

}  // namespace

Reclaimer::Reclaimer(InodeTable& inodes, std::function<Status(Inode&)> reclaim)
    : inodes_(inodes), reclaim_(std::move(reclaim)) {}

Reclaimer::~Reclaimer() { stop(); }

void Reclaimer::start(std::function<void()> scan) {
  {
    MutexLock lock(mutex_);
    busy_ = true;
  }
  thread_ = std::thread([this, scan = std::move(scan)] {
    scan();
    run();
  });
}

void Reclaimer::stop() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
    wake_.notifyAll();
    progress_.notifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

bool Reclaimer::stopping() {
  MutexLock lock(mutex_);
  return stop_;
}

void Reclaimer::expect(InodeNo ino) {
  MutexLock lock(mutex_);
  expected_.insert(ino.v);
}

void Reclaimer::cancel(InodeNo ino) {
  MutexLock lock(mutex_);
  expected_.erase(ino.v);
}

void Reclaimer::queue(InodeNo ino) {
  MutexLock lock(mutex_);
  expected_.insert(ino.v);
  queue_.push_back(ino);
  wake_.notifyOne();
}

void Reclaimer::run() {
  MutexLock lock(mutex_);
  busy_ = false;
  progress_.notifyAll();
  while (!stop_) {
    if (queue_.empty()) {
      wake_.wait(mutex_);
      continue;
    }
    const InodeNo ino = queue_.front();
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    SYNC_POINT("reclaimer.before_reclaim");
    const bool settled = reclaimOne(ino);
    lock.lock();
    busy_ = false;
    progress_.notifyAll();
    if (settled) continue;
    queue_.push_back(ino);
    if (!stop_) (void)wake_.waitFor(mutex_, kRetry);
  }
}

bool Reclaimer::reclaimOne(InodeNo ino) {
  // After a crash it is not in core; if it is gone already there is nothing to do.
  auto loaded = inodes_.get(ino);
  if (!loaded) {
    MutexLock lock(mutex_);
    expected_.erase(ino.v);
    return true;
  }
  loaded->reset();
  Status failed;
  const auto retired = inodes_.retire(ino, [&](Inode& inode) {
    {
      MutexLock attr(inode.attrMutex);
      if (inode.record.nlink != 0) return false;
    }
    failed = reclaim_(inode);
    return failed.isOk();
  });
  if (retired == InodeTable::Retired::Held || failed.errnum() == ENOSPC) return false;
  if (!failed.isOk()) {
    spdlog::warn("inode {}: its space could not be freed: {}", ino.v, failed.message());
  }
  MutexLock lock(mutex_);
  if (retired != InodeTable::Retired::InUse) expected_.erase(ino.v);
  if (retired == InodeTable::Retired::Gone) ++done_;
  return true;
}

bool Reclaimer::drain(std::chrono::milliseconds limit) {
  const auto end = Clock::now() + limit;
  MutexLock lock(mutex_);
  while (!stop_ && (busy_ || !queue_.empty())) {
    const auto now = Clock::now();
    if (now >= end) return false;
    (void)progress_.waitFor(mutex_, end - now);
  }
  return !busy_ && queue_.empty();
}

bool Reclaimer::awaitSpace(uint64_t before, std::chrono::milliseconds limit) {
  constexpr size_t kLookAt = 32;
  const auto start = Clock::now();
  MutexLock lock(mutex_);
  while (!stop_ && done_ == before) {
    if (!busy_ && queue_.empty()) {
      // The kernel forgets an unlinked file right after its last use: wait for that unless all are
      // open.
      std::vector<InodeNo> waiting;
      for (uint64_t ino : expected_) {
        if (waiting.size() == kLookAt) break;
        waiting.emplace_back(ino);
      }
      lock.unlock();
      const bool soon = std::any_of(waiting.begin(), waiting.end(),
                                    [&](InodeNo ino) { return !inodes_.isOpen(ino); });
      lock.lock();
      if (!soon) break;
    }
    const auto end = start + (busy_ ? std::max<Clock::duration>(limit, kLargeFile) : limit);
    const auto now = Clock::now();
    if (now >= end) break;
    (void)progress_.waitFor(mutex_, std::min<Clock::duration>(end - now, kRetry));
  }
  return done_ != before;
}

size_t Reclaimer::waiting() {
  MutexLock lock(mutex_);
  return expected_.size();
}

uint64_t Reclaimer::reclaimed() {
  MutexLock lock(mutex_);
  return done_;
}

}  // namespace ourfs
