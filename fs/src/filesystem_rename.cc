// Filesystem: rename, with NOREPLACE, EXCHANGE and WHITEOUT.
#include <dirent.h>
#include <linux/fs.h>

#include <cstdio>

#include "filesystem_impl.h"

namespace ourfs {

struct FilesystemImpl::RenameStep {
  InodePtr from, to;  // the directories; the same for a rename inside one
  std::string_view name, newName;
  uint32_t flags = 0;
  InodePtr source, target;  // what the names lead to; target may be null
  std::optional<Directory> fromNames, toNames;

  bool crossing() const { return from != to; }
  bool movesDirectory() const { return source->isDirectory(); }
  bool hitsDirectory() const { return target && target->isDirectory(); }
  // One object for one directory: its buckets are staged once.
  Directory& namesTo() { return crossing() ? *toNames : *fromNames; }
};

Status FilesystemImpl::rename(const Caller& caller, InodeNo parent, std::string_view name,
                              InodeNo newParent, std::string_view newName, uint32_t flags) {
  constexpr uint32_t known = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
  if (flags & ~known) return Status::error(EINVAL);
  if ((flags & RENAME_EXCHANGE) && (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))) {
    return Status::error(EINVAL);
  }
  TRY(checkWritable());
  for (std::string_view each : {name, newName}) {
    TRY(checkName(each));
    if (each == "." || each == "..") return Status::error(EBUSY);
  }
  RenameStep step;
  TRY_ASSIGN(step.from, directoryOf(parent));
  TRY_ASSIGN(step.to, directoryOf(newParent));
  step.name = name;
  step.newName = newName;
  step.flags = flags;
  TRY_ASSIGN(Lsn lsn, withSpace([&] { return renameOnce(caller, step); }));
  if (step.target) unlinked(step.target);
  return finish(lsn);
}

// Whether `directory` is `ancestor` or lies below it. The caller holds the rename mutex, so parents
// stay.
Result<bool> FilesystemImpl::isInside(InodeNo directory, const InodePtr& ancestor) {
  constexpr int kMaxDepth = 1 << 20;
  InodeNo at = directory;
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    if (at == ancestor->ino) return true;
    if (at == kRootInode) return false;
    TRY_ASSIGN(InodePtr inode, table_.get(at));
    MutexLock attr(inode->attrMutex);
    at = InodeNo(inode->record.parent);
  }
  return Status::corrupt("directories form a circle; run fsck.ourfs");
}

Result<Lsn> FilesystemImpl::renameOnce(const Caller& caller, RenameStep& step) {
  std::optional<MutexLock> tree;
  if (step.crossing()) tree.emplace(renameMutex_);
  InodeLocks locks;
  (void)locks.add(step.from);
  (void)locks.add(step.to);
  for (bool lookAgain = true; lookAgain;) {
    lookAgain = false;
    step.fromNames.emplace(namesOf(*step.from));
    step.toNames.emplace(namesOf(*step.to));
    TRY_ASSIGN(step.source, findAndLock(*step.fromNames, step.name, locks, &lookAgain));
    if (lookAgain) continue;
    TRY_ASSIGN(step.target, findAndLock(step.namesTo(), step.newName, locks, &lookAgain));
  }
  if (!step.source) return Status::error(ENOENT);
  TRY(checkAlive(*step.from));
  TRY(checkAlive(*step.to));
  if (step.target && (step.flags & RENAME_NOREPLACE)) return Status::error(EEXIST);
  if (!step.target && (step.flags & RENAME_EXCHANGE)) return Status::error(ENOENT);
  // Two names of one file: nothing happens, says POSIX.
  if (step.source == step.target) return Lsn(0);

  if (step.crossing() && step.movesDirectory()) {
    TRY_ASSIGN(bool inside, isInside(step.to->ino, step.source));
    if (inside) return Status::error(EINVAL);
  }
  if (step.crossing() && step.hitsDirectory()) {
    TRY_ASSIGN(bool inside, isInside(step.from->ino, step.target));
    if (inside) return Status::error(step.flags & RENAME_EXCHANGE ? EINVAL : ENOTEMPTY);
  }
  return step.flags & RENAME_EXCHANGE ? commitExchange(step) : commitRename(caller, step);
}

Result<Lsn> FilesystemImpl::commitRename(const Caller& caller, RenameStep& step) {
  const bool whiteout = step.flags & RENAME_WHITEOUT;
  if (step.target && step.movesDirectory() && !step.hitsDirectory()) return Status::error(ENOTDIR);
  if (step.target && !step.movesDirectory() && step.hitsDirectory()) return Status::error(EISDIR);

  TRY_ASSIGN(auto room, volume_.log().reserve(kNamespaceRoom));
  Transaction t;
  RecordChange change({step.from.get(), step.to.get(), step.source.get(), step.target.get()});
  InodeRecord& from = change.of(*step.from);
  InodeRecord& to = change.of(*step.to);
  InodeRecord& source = change.of(*step.source);
  if (step.hitsDirectory() && change.of(*step.target).entries != 0) return Status::error(ENOTEMPTY);
  if (step.movesDirectory() && step.crossing() && !step.target && to.nlink >= kMaxDirectoryLinks) {
    return Status::error(EMLINK);
  }

  InodeNo whiteoutNumber;
  if (whiteout) {
    whiteoutNumber = volume_.newInodeNumber(t);
    NewInode spec;
    spec.mode = S_IFCHR;
    t.put(inodeKey(whiteoutNumber), encodeInode(whiteoutNumber, newRecord(caller, from, spec)));
    TRY(step.fromNames->replace(step.name, whiteoutNumber, DT_CHR));
  } else {
    TRY(step.fromNames->remove(step.name));
    from.entries -= 1;
  }
  uint64_t cookie = UINT64_MAX;
  const uint8_t type = direntType(source.mode);
  if (step.target) {
    TRY(step.namesTo().replace(step.newName, step.source->ino, type));
    InodeRecord& target = change.of(*step.target);
    target.nlink = step.hitsDirectory() ? 0 : target.nlink - 1;
    to.nlink -= step.hitsDirectory() ? 1 : 0;
  } else {
    TRY_ASSIGN(cookie, step.namesTo().insert(step.newName, step.source->ino, type));
    to.entries += 1;
  }
  step.fromNames->emit(t);
  if (step.crossing()) step.toNames->emit(t);
  if (step.movesDirectory()) {
    from.nlink -= 1;
    to.nlink += 1;
    source.parent = step.to->ino.v;
  }
  const Timestamp now = wallClock();
  from.mtime = from.ctime = to.mtime = to.ctime = source.ctime = now;
  if (step.target) change.of(*step.target).ctime = now;
  TRY_ASSIGN(Lsn lsn, change.commit(volume_.log(), std::move(t), std::move(room)));
  if (whiteout) inodeCount_.created(whiteoutNumber);
  lowerHint(*step.to, cookie);
  return lsn;
}

Result<Lsn> FilesystemImpl::commitExchange(RenameStep& step) {
  TRY_ASSIGN(auto room, volume_.log().reserve(kNamespaceRoom));
  RecordChange change({step.from.get(), step.to.get(), step.source.get(), step.target.get()});
  InodeRecord& from = change.of(*step.from);
  InodeRecord& to = change.of(*step.to);
  InodeRecord& source = change.of(*step.source);
  InodeRecord& target = change.of(*step.target);
  TRY(step.fromNames->replace(step.name, step.target->ino, direntType(target.mode)));
  TRY(step.namesTo().replace(step.newName, step.source->ino, direntType(source.mode)));
  Transaction t;
  step.fromNames->emit(t);
  if (step.crossing()) step.toNames->emit(t);
  if (step.movesDirectory()) {
    from.nlink -= 1;
    to.nlink += 1;
    source.parent = step.to->ino.v;
  }
  if (step.hitsDirectory()) {
    to.nlink -= 1;
    from.nlink += 1;
    target.parent = step.from->ino.v;
  }
  from.mtime = from.ctime = to.mtime = to.ctime = source.ctime = target.ctime = wallClock();
  return change.commit(volume_.log(), std::move(t), std::move(room));
}

}  // namespace ourfs
