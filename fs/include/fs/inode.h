// Inode and InodeTable: inodes in core.
//
// An inode's number is its FUSE node id. It lives in the table while the kernel knows it (lookup
// count), while a handle is open, while it is dirty, or while somebody holds a pointer.
//
// Locks, outermost first: rename, inode (`lock`; several in order of number), invalidate, folio,
// transaction reservation, extent map, attributes (`attrMutex`; several in order of number), log.
// Whoever commits a transaction that contains an inode's record holds its attrMutex from the
// encoding of the record to the end of commit, so that records reach the log in the order in which
// they were made. The inode lock is never taken by writeback or ioends; attrMutex is.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "common/mutex.h"
#include "common/result.h"
#include "index/schema.h"
#include "iomap/mapping.h"

namespace ourfs {

class Inode {
 public:
  Inode(InodeNo number, const InodeRecord& r);
  const InodeNo ino;
  const uint32_t type;  // S_IFMT bits of the mode
  SharedMutex lock;     // namespace and data operations on this inode

  mutable Mutex attrMutex;
  // What the index holds or will hold at the next commit. `record.size` and `record.blocks` are the
  // stored ones: a record may be encoded at any time without telling more than is on disk. The
  // current i_size of a regular file is currentSize(); delayed allocation is
  // mapping->extents.delallocBytes().
  InodeRecord record GUARDED_BY(attrMutex);
  bool attrDirty GUARDED_BY(attrMutex) = false;  // record differs from the index (times, size)
  bool orphan GUARDED_BY(attrMutex) = false;     // nlink is 0, the orphan key is in the index
  bool linkable GUARDED_BY(attrMutex) = false;   // made by O_TMPFILE: link() may name it

  // The end of the last transaction that touched it since it was loaded; 0: none did.
  std::atomic<uint64_t> lastLsn{0};
  void raiseLastLsn(Lsn lsn);

  // Regular files: made at first use of data (FileData::mappingOf), then constant. Null for other
  // types.
  std::shared_ptr<Mapping> mapping GUARDED_BY(attrMutex);
  std::shared_ptr<Mapping> mappingIfAny() const;
  uint64_t currentSize() const;  // i_size: mapping->size if there is a mapping, else record.size
  // Directories: no name has a cookie below this one (a hint that spares tombstones).
  std::atomic<uint64_t> firstCookieHint{0};

  bool isDirectory() const;
  bool isRegular() const;

 private:
  friend class InodeTable;
  uint64_t lookups_ = 0, opens_ = 0;  // the table's mutex
};

using InodePtr = std::shared_ptr<Inode>;

class InodeTable {
 public:
  // Reads a record that is not in core. ENOENT (mapped to ESTALE by the session), EUCLEAN.
  using Loader = std::function<Result<InodeRecord>(InodeNo)>;
  // Runs without the table's mutex when the last reference of an unlinked inode goes away.
  using Inactivate = std::function<void(InodePtr)>;
  InodeTable(Loader loader, Inactivate inactivate);
  ~InodeTable();

  Result<InodePtr> get(InodeNo ino);  // loads it; no count is taken
  InodePtr insertNew(InodeNo ino, const InodeRecord& record);
  InodePtr find(InodeNo ino);  // only if in core
  void addLookup(const InodePtr& inode, uint64_t n = 1);
  void forget(InodeNo ino, uint64_t n);
  void addOpen(const InodePtr& inode);
  void dropOpen(const InodePtr& inode);
  bool inUse(InodeNo ino);  // lookups or opens
  // All inodes in core now.
  std::vector<InodePtr> all();
  size_t size();
  size_t unused();  // of them without lookups and opens
  bool isOpen(InodeNo ino);
  // Drops inodes without lookups, opens or other holders, the longest unused first, until `keep`
  // unused ones are left. `busy` says that one may not go yet (dirty data or attributes); else it
  // has dropped what is cached of it.
  void shrink(size_t keep, const std::function<bool(Inode&)>& busy);

  enum class Retired {
    Gone,     // `away` answered true: it has left the table
    InUse,    // it has lookups or opens: forget or dropOpen will tell
    Held,     // somebody holds a pointer for a moment: try again
    Kept,     // `away` answered false
    Absent,   // not in core
    Leaving,  // beginRetire has taken it
  };
  // Makes an unused inode leave. `away` runs without the table's mutex; meanwhile find() still
  // answers the inode (for ioends), get() waits until it is gone, and all() leaves it out.
  Retired retire(InodeNo ino, const std::function<bool(Inode&)>& away);
  // The same in two steps, for several inodes at once. Leaving: `leaving` is set, and endRetire
  // must follow.
  Retired beginRetire(InodeNo ino, InodePtr& leaving);
  void endRetire(const InodePtr& leaving, bool gone);
  // Unmount: all lookups and opens are over. Inactivates as forget does.
  void releaseAll();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ourfs
