// InodeCount: how many inodes the volume has, for statfs.
//
// Kept in core. A clean unmount stores it (setting "inodes", with the mount's generation); after a
// crash it is counted again, in the background, and is too low meanwhile.
#pragma once

#include <functional>
#include <span>
#include <unordered_set>

#include "common/mutex.h"
#include "fs/inode.h"
#include "fs/transaction.h"
#include "fs/volume.h"

namespace ourfs {

class InodeCount {
 public:
  // Takes the stored count, if the unmount that wrote it was the last thing that happened to the
  // volume.
  Status load(Volume& volume);
  bool known();
  // Counts the records, as long as `goOn` answers true.
  Status recount(Index& index, const std::function<bool()>& goOn);
  void store(const Volume& volume, Transaction& transaction);

  void created(InodeNo ino);
  // Around the transaction that erases these records, so that a recount does not count them
  // meanwhile.
  void beginRemove(std::span<const InodePtr> inodes);
  void endRemove(std::span<const InodePtr> inodes, bool removed);
  uint64_t value();

 private:
  bool counted(InodeNo ino) const REQUIRES(mutex_) { return known_ || ino < cursor_; }

  Mutex mutex_;
  uint64_t count_ GUARDED_BY(mutex_) = 0;
  bool known_ GUARDED_BY(mutex_) = false;
  InodeNo cursor_ GUARDED_BY(mutex_){0};                     // recount has seen what lies below
  std::unordered_set<uint64_t> leaving_ GUARDED_BY(mutex_);  // what it must not count
};

}  // namespace ourfs
