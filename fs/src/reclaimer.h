// Reclaimer: the thread that frees unlinked inodes once nobody uses them.
//
// Each loses what it has on its own, then the records of many go in one transaction: removing a
// tree of small files would else take the log twice for each, and its lock from whoever removes
// them.
//
// Invariant: an inode is reclaimed only while it has left the table's reach
// (InodeTable::beginRetire), so that no request can use it meanwhile. Many may be in that state at
// once, and whoever asks the table for one of them waits: he must hold nothing that `contents` or
// `records` could need. What is not reclaimed keeps its orphan key and is found at the next mount.
//
// Threads: any. Holds no lock of its own while it reclaims.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <span>
#include <thread>
#include <unordered_set>
#include <vector>

#include "common/mutex.h"
#include "fs/inode.h"

namespace ourfs {

class Reclaimer {
 public:
  // `contents` frees what an inode has, `records` erases at most FileData::kRecordsPerStep inodes
  // that have nothing any more, all or none. Nobody uses them.
  Reclaimer(InodeTable& inodes, std::function<Status(Inode&)> contents,
            std::function<Status(std::span<const InodePtr>)> records);
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
  // For writers without space: waits until the space of more than `before` inodes has come back, if
  // one is unlinked. One that is being reclaimed gets more time than `limit`. False: there is none,
  // or it is still open.
  bool awaitSpace(uint64_t before, std::chrono::milliseconds limit);
  bool stopping();

  size_t waiting();  // unlinked, not reclaimed yet
  uint64_t reclaimed();
  uint64_t freed();  // inodes whose space has come back, though their records may still be there

 private:
  void run();
  void gather() REQUIRES(mutex_);
  struct Batch {
    std::vector<InodePtr> leaving;  // have nothing any more but their records
    size_t uncounted = 0;           // of them: not in freed_ yet
    std::vector<InodeNo> again;     // to be tried again
  };
  enum class Step { Done, Held, NoSpace };
  std::vector<InodeNo> reclaim(std::span<const InodeNo> inos);  // answers what is to be tried again
  Step empty(InodeNo ino, Batch& batch);
  void erase(Batch& batch);
  void settled(InodeNo ino, bool gone);

  InodeTable& inodes_;
  const std::function<Status(Inode&)> contents_;
  const std::function<Status(std::span<const InodePtr>)> records_;
  Mutex mutex_;
  CondVar wake_, progress_;
  std::deque<InodeNo> queue_ GUARDED_BY(mutex_);
  std::unordered_set<uint64_t> expected_ GUARDED_BY(mutex_);
  uint64_t done_ GUARDED_BY(mutex_) = 0, freed_ GUARDED_BY(mutex_) = 0;
  bool busy_ GUARDED_BY(mutex_) = false;     // some are taken from the queue, or the scan runs
  unsigned hurried_ GUARDED_BY(mutex_) = 0;  // callers who wait for what is in the queue
  bool stop_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace ourfs
