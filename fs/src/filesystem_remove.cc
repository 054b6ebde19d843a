// Filesystem: unlink and rmdir.
#include "filesystem_impl.h"

namespace ourfs {

Status FilesystemImpl::unlink(const Caller&, InodeNo parent, std::string_view name) {
  return removeName(parent, name, false);
}

Status FilesystemImpl::rmdir(const Caller&, InodeNo parent, std::string_view name) {
  if (name == ".") return Status::error(EINVAL);
  if (name == "..") return Status::error(ENOTEMPTY);
  return removeName(parent, name, true);
}

Status FilesystemImpl::removeName(InodeNo parentNumber, std::string_view name, bool directory) {
  TRY(checkWritable());
  TRY(checkName(name));
  TRY_ASSIGN(InodePtr parent, directoryOf(parentNumber));
  InodePtr child;
  Lsn lsn;
  {
    InodeLocks locks;
    (void)locks.add(parent);
    std::optional<Directory> names;
    for (bool lookAgain = true; lookAgain;) {
      lookAgain = false;
      names.emplace(namesOf(*parent));
      TRY_ASSIGN(child, findAndLock(*names, name, locks, &lookAgain));
    }
    if (!child) return Status::error(ENOENT);
    if (directory && !child->isDirectory()) return Status::error(ENOTDIR);
    if (!directory && child->isDirectory()) return Status::error(EISDIR);

    TRY_ASSIGN(auto room, volume_.log().reserve(kNamespaceRoom, Privilege::Freeing));
    RecordChange change({parent.get(), child.get()});
    InodeRecord& p = change.of(*parent);
    InodeRecord& c = change.of(*child);
    if (directory && c.entries != 0) return Status::error(ENOTEMPTY);
    TRY(names->remove(name));
    Transaction t;
    names->emit(t);
    p.entries -= 1;
    p.nlink -= directory ? 1 : 0;
    c.nlink = directory ? 0 : c.nlink - 1;
    p.mtime = p.ctime = c.ctime = wallClock();
    TRY_ASSIGN(lsn, change.commit(volume_.log(), std::move(t), std::move(room)));
  }
  unlinked(child);
  return finish(lsn);
}

}  // namespace ourfs
