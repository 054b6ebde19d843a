#include "reclaimer.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/sync_point.h"
#include "fs/file_data.h"

namespace ourfs {

namespace {

constexpr std::chrono::milliseconds kRetry{5};   // somebody holds a pointer for a moment
constexpr std::chrono::seconds kLargeFile{5};    // to free one, with a slow disk
constexpr std::chrono::milliseconds kGather{5};  // what is freed waits no longer for its batch
constexpr size_t kBatch = FileData::kRecordsPerStep;
using Clock = std::chrono::steady_clock;

}  // namespace

Reclaimer::Reclaimer(InodeTable& inodes, std::function<Status(Inode&)> contents,
                     std::function<Status(std::span<const InodePtr>)> records)
    : inodes_(inodes), contents_(std::move(contents)), records_(std::move(records)) {}

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
  // In between the thread is busy, or gathering.
  if (queue_.size() == 1 || queue_.size() == kBatch) wake_.notifyOne();
}

// Leaves those who remove many files the time to fill a batch.
void Reclaimer::gather() {
  const auto end = Clock::now() + kGather;
  while (!stop_ && hurried_ == 0 && queue_.size() < kBatch) {
    const auto now = Clock::now();
    if (now >= end) return;
    (void)wake_.waitFor(mutex_, end - now);
  }
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
    gather();
    if (stop_) return;
    const auto end = queue_.begin() + static_cast<ptrdiff_t>(std::min(queue_.size(), kBatch));
    const std::vector<InodeNo> batch(queue_.begin(), end);
    queue_.erase(queue_.begin(), end);
    busy_ = true;
    lock.unlock();
    const std::vector<InodeNo> again = reclaim(batch);
    lock.lock();
    busy_ = false;
    progress_.notifyAll();
    if (again.empty()) continue;
    queue_.insert(queue_.end(), again.begin(), again.end());
    if (!stop_) (void)wake_.waitFor(mutex_, kRetry);
  }
}

std::vector<InodeNo> Reclaimer::reclaim(std::span<const InodeNo> inos) {
  Batch batch;
  auto begin = Clock::now();
  while (!inos.empty() && !stopping()) {
    SYNC_POINT("reclaimer.before_reclaim");
    const Step step = empty(inos.front(), batch);
    if (step == Step::NoSpace) break;
    if (step == Step::Held) batch.again.push_back(inos.front());
    inos = inos.subspan(1);
    // Large files: what is finished does not wait for all of them.
    if (Clock::now() - begin < kGather) continue;
    erase(batch);
    begin = Clock::now();
  }
  erase(batch);
  batch.again.insert(batch.again.end(), inos.begin(), inos.end());
  return std::move(batch.again);
}

Reclaimer::Step Reclaimer::empty(InodeNo ino, Batch& batch) {
  // It may be in the queue twice, and get() would wait for it to be gone.
  const auto same = [ino](const InodePtr& inode) { return inode->ino == ino; };
  if (std::ranges::any_of(batch.leaving, same)) return Step::Done;
  // After a crash it is not in core; if it is gone already there is nothing to do.
  if (!inodes_.get(ino)) {
    settled(ino, false);
    return Step::Done;
  }
  InodePtr inode;
  const auto retired = inodes_.beginRetire(ino, inode);
  if (retired == InodeTable::Retired::InUse) return Step::Done;  // queued again by its last user
  if (retired == InodeTable::Retired::Held) return Step::Held;
  if (retired == InodeTable::Retired::Absent) {
    settled(ino, false);
    return Step::Done;
  }
  bool unlinked = false, hasBlocks = false;
  {
    MutexLock attr(inode->attrMutex);
    unlinked = inode->record.nlink == 0;
    hasBlocks = inode->record.blocks != 0;
  }
  const Status emptied = unlinked ? contents_(*inode) : Status::ok();
  if (unlinked && emptied.isOk()) {
    batch.leaving.push_back(std::move(inode));
    if (!hasBlocks) {
      ++batch.uncounted;
    } else {
      MutexLock lock(mutex_);
      ++freed_;
      progress_.notifyAll();
    }
    return Step::Done;
  }
  inodes_.endRetire(inode, false);
  if (emptied.errnum() == ENOSPC) return Step::NoSpace;
  if (!emptied.isOk()) {
    spdlog::warn("inode {}: its space could not be freed: {}", ino.v, emptied.message());
  }
  settled(ino, false);
  return Step::Done;
}

void Reclaimer::erase(Batch& batch) {
  if (batch.leaving.empty()) return;
  const Status erased = records_(batch.leaving);
  if (!erased.isOk() && erased.errnum() != ENOSPC) {
    spdlog::warn("{} unlinked inodes could not be removed: {}", batch.leaving.size(),
                 erased.message());
  }
  for (const InodePtr& inode : batch.leaving) {
    inodes_.endRetire(inode, erased.isOk());
    if (erased.errnum() == ENOSPC) {
      batch.again.push_back(inode->ino);
    } else {
      settled(inode->ino, erased.isOk());
    }
  }
  if (erased.isOk()) {
    MutexLock lock(mutex_);
    freed_ += batch.uncounted;
    progress_.notifyAll();
  }
  batch.leaving.clear();
  batch.uncounted = 0;
}

void Reclaimer::settled(InodeNo ino, bool gone) {
  MutexLock lock(mutex_);
  expected_.erase(ino.v);
  if (gone) ++done_;
}

bool Reclaimer::drain(std::chrono::milliseconds limit) {
  const auto end = Clock::now() + limit;
  MutexLock lock(mutex_);
  ++hurried_;
  wake_.notifyOne();
  while (!stop_ && (busy_ || !queue_.empty())) {
    const auto now = Clock::now();
    if (now >= end) break;
    (void)progress_.waitFor(mutex_, end - now);
  }
  --hurried_;
  return !busy_ && queue_.empty();
}

bool Reclaimer::awaitSpace(uint64_t before, std::chrono::milliseconds limit) {
  constexpr size_t kLookAt = 32;
  const auto start = Clock::now();
  MutexLock lock(mutex_);
  ++hurried_;
  wake_.notifyOne();
  while (!stop_ && freed_ == before) {
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
  --hurried_;
  return freed_ != before;
}

size_t Reclaimer::waiting() {
  MutexLock lock(mutex_);
  return expected_.size();
}

uint64_t Reclaimer::freed() {
  MutexLock lock(mutex_);
  return freed_;
}

uint64_t Reclaimer::reclaimed() {
  MutexLock lock(mutex_);
  return done_;
}

}  // namespace ourfs
