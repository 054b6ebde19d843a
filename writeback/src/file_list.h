// FileList: the files that writeback knows, those of them that are dirty, and whose turn it is.
//
// A dirty file waits until it is old enough or memory is short; then it is active: the active files
// get one slice after the other, in turn, until each was written once. mapping.queued says that the
// file is in one of the two lists, or in the hands of a flusher.
//
// Threads: any. Nothing is locked under the mutex but, for a moment, that of a page cache.
#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "dirty_file.h"

namespace ourfs {

class FileList {
 public:
  using Clock = std::chrono::steady_clock;

  // The file became dirty, or has clean folios that reclaim should know of.
  void add(const std::shared_ptr<Mapping>& mapping);

  // A file whose turn it is: active, or dirty since before `expired`, or any if `pressure`. The
  // caller gives it back. Null if there is none.
  std::shared_ptr<DirtyFile> take(Clock::time_point expired, bool pressure);
  // `more`: the slice ended before the file did.
  void giveBack(const std::shared_ptr<DirtyFile>& file, bool more);

  // While a file is used, forget() waits.
  std::shared_ptr<DirtyFile> use(const std::shared_ptr<Mapping>& mapping);
  std::vector<std::shared_ptr<DirtyFile>> useBusy();  // dirty, or with I/O in flight
  std::shared_ptr<DirtyFile> useNextForReclaim();
  void unuse(
      const std::shared_ptr<DirtyFile>& file);  // takes it off the list if it is clean by now

  void forget(const std::shared_ptr<Mapping>& mapping);

  size_t inRound() const;  // files that reclaim goes over
  size_t dirty() const;

 private:
  using Files = std::list<std::shared_ptr<DirtyFile>>;
  std::shared_ptr<DirtyFile>& entry(const std::shared_ptr<Mapping>& mapping) REQUIRES(mutex_);
  void put(Files& list, DirtyFile::Place place, const std::shared_ptr<DirtyFile>& file)
      REQUIRES(mutex_);
  void leaveList(DirtyFile& file) REQUIRES(mutex_);
  void wait(const std::shared_ptr<DirtyFile>& file) REQUIRES(mutex_);
  void joinRound(const std::shared_ptr<DirtyFile>& file) REQUIRES(mutex_);
  void leaveRound(DirtyFile& file) REQUIRES(mutex_);
  void activateFirst() REQUIRES(mutex_);
  void settle(const std::shared_ptr<DirtyFile>& file) REQUIRES(mutex_);
  void release(DirtyFile& file) REQUIRES(mutex_);

  mutable Mutex mutex_;
  CondVar unused_;
  std::unordered_map<const Mapping*, std::shared_ptr<DirtyFile>> files_ GUARDED_BY(mutex_);
  Files round_ GUARDED_BY(mutex_);    // files with folios; reclaim's next one is in front
  Files waiting_ GUARDED_BY(mutex_);  // by mapping.dirtiedAt
  Files active_ GUARDED_BY(mutex_);
  size_t running_ GUARDED_BY(mutex_) = 0;
  bool waitingsTurn_ GUARDED_BY(mutex_) = false;  // a slice ended before its file did
};

}  // namespace ourfs
