// Reclaimer: the thread that frees unlinked inodes once nobody uses them.
//
// Invariant: an inode is reclaimed only while it has left the table's reach (InodeTable::retire),
// so that no request can use it meanwhile. What is not reclaimed keeps its orphan key and is found
// at the next mount.
//
// Threads: any. Holds no lock of its own while it reclaims.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <thread>
#include <unordered_set>

#include "common/mutex.h"
#include "fs/inode.h"

namespace ourfs {

class Reclaimer {
 public:
  // `reclaim` frees everything of the inode, which nobody uses.
  Reclaimer(InodeTable& inodes, std::function<Status(Inode&)> reclaim);
  ~Reclaimer();  // stops
  // `scan` runs first in the thread: it queues what a crash left behind.
  void start(std::function<void()> scan);
  void stop();

  // The inode has lost its last name: its space will come back.
  void expect(InodeNo ino);
  // It has a name again.
  void cancel(InodeNo ino);
  // It has lost its last user too, or may have.
  void queue(InodeNo ino);

  // Waits until the queue is empty, at most `limit`. True if it is.
  bool drain(std::chrono::milliseconds limit);
  // For writers without space: waits until more than `before` inodes have been reclaimed, if one is
  // unlinked. One that is being reclaimed gets more time than `limit`. False: there is none, or it
  // is still open.
  bool awaitSpace(uint64_t before, std::chrono::milliseconds limit);
  bool stopping();

  size_t waiting();  // unlinked, not reclaimed yet
  uint64_t reclaimed();

 private:
  void run();
  bool reclaimOne(InodeNo ino);  // false: somebody holds it for a moment

  InodeTable& inodes_;
  const std::function<Status(Inode&)> reclaim_;
  Mutex mutex_;
  CondVar wake_, progress_;
  std::deque<InodeNo> queue_ GUARDED_BY(mutex_);
  std::unordered_set<uint64_t> expected_ GUARDED_BY(mutex_);
  uint64_t done_ GUARDED_BY(mutex_) = 0;
  bool busy_ GUARDED_BY(mutex_) = false;  // one is taken from the queue, or the scan runs
  bool stop_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ourfs
