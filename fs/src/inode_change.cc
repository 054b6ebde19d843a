#include "inode_change.h"

#include <algorithm>

#include "common/sync_point.h"

namespace ourfs {

// The sets of locks are known at run time only, which the analysis cannot follow.

InodeLocks::~InodeLocks() NO_THREAD_SAFETY_ANALYSIS {
  for (const InodePtr& inode : held_) inode->lock.unlock();
}

bool InodeLocks::add(const InodePtr& inode) NO_THREAD_SAFETY_ANALYSIS {
  auto place =
      std::lower_bound(held_.begin(), held_.end(), inode,
                       [](const InodePtr& a, const InodePtr& b) { return a->ino < b->ino; });
  if (place != held_.end() && (*place)->ino == inode->ino) return true;
  const bool last = place == held_.end();
  if (last) {
    inode->lock.lock();
  } else if (!inode->lock.try_lock()) {
    for (const InodePtr& each : held_) each->lock.unlock();
    held_.insert(place, inode);
    for (const InodePtr& each : held_) each->lock.lock();
    return false;
  }
  held_.insert(place, inode);
  return true;
}

RecordChange::RecordChange(std::initializer_list<Inode*> inodes) NO_THREAD_SAFETY_ANALYSIS {
  versions_.reserve(inodes.size());
  for (Inode* inode : inodes) {
    if (inode) versions_.push_back({inode, {}});
  }
  std::sort(versions_.begin(), versions_.end(),
            [](const Version& a, const Version& b) { return a.inode->ino < b.inode->ino; });
  versions_.erase(
      std::unique(versions_.begin(), versions_.end(),
                  [](const Version& a, const Version& b) { return a.inode == b.inode; }),
      versions_.end());
  for (Version& version : versions_) {
    version.inode->attrMutex.lock();
    version.record = version.inode->record;
  }
}

RecordChange::~RecordChange() NO_THREAD_SAFETY_ANALYSIS {
  for (Version& version : versions_) version.inode->attrMutex.unlock();
}

InodeRecord& RecordChange::of(const Inode& inode) {
  return std::find_if(versions_.begin(), versions_.end(),
                      [&](const Version& v) { return v.inode == &inode; })
      ->record;
}

Result<Lsn> RecordChange::commit(TransactionLog& log, Transaction transaction,
                                 TransactionLog::Room room) NO_THREAD_SAFETY_ANALYSIS {
  for (const Version& version : versions_) {
    const Inode& inode = *version.inode;
    transaction.put(inodeKey(inode.ino), encodeInode(inode.ino, version.record));
    const bool unlinked = version.record.nlink == 0;
    if (unlinked && !inode.orphan && !mutantEnabled("names.no_orphan_key")) {
      transaction.put(orphanKey(inode.ino), "");
    }
    if (!unlinked && inode.orphan) transaction.erase(orphanKey(inode.ino));
  }
  TRY_ASSIGN(Lsn lsn, log.commit(std::move(transaction), std::move(room)));
  for (Version& version : versions_) {
    Inode& inode = *version.inode;
    inode.record = std::move(version.record);
    inode.orphan = inode.record.nlink == 0;
    inode.attrDirty = false;
    inode.raiseLastLsn(lsn);
  }
  return lsn;
}

}  // namespace ourfs
