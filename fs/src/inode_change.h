// What a namespace operation holds: inode locks, and the new versions of the records it changes.
#pragma once

#include <initializer_list>
#include <vector>

#include "fs/inode.h"
#include "fs/transaction.h"

namespace ourfs {

// Inodes locked exclusively, in order of number. Each is locked once, however often it is added.
class InodeLocks {
 public:
  InodeLocks() = default;
  ~InodeLocks();
  InodeLocks(const InodeLocks&) = delete;
  InodeLocks& operator=(const InodeLocks&) = delete;

  // Locks one more. False: the order of numbers made it let go of all of them in between, so
  // whatever was looked up under them has to be looked up again.
  bool add(const InodePtr& inode);

 private:
  std::vector<InodePtr> held_;  // in order of number
};

// What an fsync waits for: the last transaction that touched the inode. It may have been before the
// inode was dropped and loaded anew; then all that there is.
inline Lsn lastChange(const Inode& inode, TransactionLog& log) {
  const Lsn last(inode.lastLsn.load());
  return last.v != 0 ? last : log.journal().head().end;
}

// New versions of the records of a few inodes, for one transaction. Holds their attrMutexes, in
// order of number, from construction to the end of commit, so that records reach the log in the
// order in which they were made. Without a commit nothing has changed.
//
// REQUIRES: the transaction's room has been reserved (that may wait).
class RecordChange {
 public:
  explicit RecordChange(
      std::initializer_list<Inode*> inodes);  // nulls and repetitions are left out
  ~RecordChange();
  RecordChange(const RecordChange&) = delete;
  RecordChange& operator=(const RecordChange&) = delete;

  InodeRecord& of(const Inode& inode);
  // Adds the records to the transaction, and the orphan keys of those that lost or got back their
  // last name; commits; makes them current.
  Result<Lsn> commit(TransactionLog& log, Transaction transaction, TransactionLog::Room room);

 private:
  struct Version {
    Inode* inode;
    InodeRecord record;
  };
  std::vector<Version> versions_;  // in order of number
};

}  // namespace ourfs
