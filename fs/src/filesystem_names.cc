// Filesystem: looking names up and making them.
#include <dirent.h>
#include <fcntl.h>

#include "filesystem_impl.h"

namespace ourfs {

Result<Attributes> FilesystemImpl::lookup(InodeNo parentNumber, std::string_view name) {
  if (name == ".") return lookupSelf(parentNumber);
  TRY(checkName(name));
  TRY_ASSIGN(InodePtr parent, directoryOf(parentNumber));
  InodeNo number;
  SharedLock lock(parent->lock);
  if (name == "..") {
    number = InodeNo(recordOf(*parent).parent);
  } else {
    Directory names = namesOf(*parent);
    TRY_ASSIGN(auto entry, names.find(name));
    if (!entry) return Status::error(ENOENT);
    number = entry->ino;
  }
  auto inode = table_.get(number);
  if (inode.errnum() == ENOENT) {
    return Status::corrupt("a name leads to inode " + std::to_string(number.v) +
                           ", which does not exist; run fsck.ourfs");
  }
  if (!inode) return inode.status();
  table_.addLookup(*inode);
  return attributesOf(**inode);
}

// Of a file, too: so the kernel finds the inode behind a file handle (NFS, open_by_handle_at)
// again.
Result<Attributes> FilesystemImpl::lookupSelf(InodeNo ino) {
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  SharedLock lock(inode->lock);
  if (recordOf(*inode).nlink == 0) return Status::error(ENOENT);  // it may be on its way out
  table_.addLookup(inode);
  return attributesOf(*inode);
}

void FilesystemImpl::forget(InodeNo ino, uint64_t count) {
  table_.forget(ino, count);
  shrinkTable();
}

void FilesystemImpl::lowerHint(Inode& directory, uint64_t cookie) {
  if (cookie < directory.firstCookieHint.load()) directory.firstCookieHint.store(cookie);
}

InodeRecord FilesystemImpl::newRecord(const Caller& caller, const InodeRecord& parent,
                                      const NewInode& spec) {
  InodeRecord r;
  r.mode = spec.mode;
  r.uid = caller.uid;
  r.gid = caller.gid;
  if (parent.mode & S_ISGID) {
    r.gid = parent.gid;
    if (S_ISDIR(spec.mode)) r.mode |= S_ISGID;
  }
  r.nlink = S_ISDIR(spec.mode) ? 2 : 1;
  r.generation = static_cast<uint32_t>(volume_.superblock().generation);
  r.rdev = spec.rdev;
  r.symlink = spec.target;
  r.size = spec.target.size();
  r.atime = r.mtime = r.ctime = r.btime = wallClock();
  return r;
}

Result<InodePtr> FilesystemImpl::makeInodeOnce(const Caller& caller, InodeNo parentNumber,
                                               std::string_view name, const NewInode& spec,
                                               Lsn* lsn) {
  TRY_ASSIGN(InodePtr parent, directoryOf(parentNumber));
  const bool named = !name.empty(), isDirectory = S_ISDIR(spec.mode);
  InodeLocks locks;
  (void)locks.add(parent);
  TRY(checkAlive(*parent));
  Directory names = namesOf(*parent);
  if (named) {
    TRY_ASSIGN(auto existing, names.find(name));
    if (existing) return Status::error(EEXIST);
  }
  const InodeRecord above = recordOf(*parent);
  if (isDirectory && above.nlink >= kMaxDirectoryLinks) return Status::error(EMLINK);

  InodeRecord record = newRecord(caller, above, spec);
  InheritedAcl acl{record.mode, {}, {}};
  if (!S_ISLNK(spec.mode)) {
    std::optional<std::string> defaults;
    if (options_.posixAcl) {
      TRY_ASSIGN(defaults, readXattr(volume_.index(), parent->ino, above.flags, kDefaultAclName));
    }
    TRY_ASSIGN(acl, inheritAcl(defaults, record.mode, caller.umask));
  }
  record.mode = acl.mode;
  if (acl.access || acl.defaults) record.flags = kInodeHasXattr | kInodeHasAcl;
  if (isDirectory) record.parent = parent->ino.v;
  if (!named) record.nlink = 0;

  const ByteCount aclBytes((acl.access ? acl.access->size() : 0) +
                           (acl.defaults ? acl.defaults->size() : 0));
  TRY_ASSIGN(auto room, volume_.log().reserve(kNamespaceRoom + aclBytes));
  Transaction t;
  const InodeNo number = volume_.newInodeNumber(t);
  RecordChange change({named ? parent.get() : nullptr});
  uint64_t cookie = UINT64_MAX;
  if (named) {
    TRY_ASSIGN(cookie, names.insert(name, number, direntType(record.mode)));
    names.emit(t);
    InodeRecord& p = change.of(*parent);
    p.entries += 1;
    p.nlink += isDirectory ? 1 : 0;
    p.mtime = p.ctime = record.ctime;
  } else {
    t.put(orphanKey(number), "");
  }
  t.put(inodeKey(number), encodeInode(number, record));
  if (acl.access) t.put(xattrKey(number, kAccessAclName), *acl.access);
  if (acl.defaults) t.put(xattrKey(number, kDefaultAclName), *acl.defaults);
  TRY_ASSIGN(*lsn, change.commit(volume_.log(), std::move(t), std::move(room)));

  InodePtr inode = table_.insertNew(number, record);
  table_.addLookup(inode);
  inode->raiseLastLsn(*lsn);
  inodeCount_.created(number);
  if (named) {
    lowerHint(*parent, cookie);
  } else {
    reclaimer_.expect(number);
    MutexLock attr(inode->attrMutex);
    inode->linkable = spec.linkable;
  }
  return inode;
}

Result<InodePtr> FilesystemImpl::makeInode(const Caller& caller, InodeNo parent,
                                           std::string_view name, const NewInode& spec) {
  TRY(checkWritable());
  Lsn lsn;
  TRY_ASSIGN(InodePtr inode,
             withSpace([&] { return makeInodeOnce(caller, parent, name, spec, &lsn); }));
  if (Status synced = finish(lsn); !synced.isOk()) {
    table_.forget(inode->ino, 1);
    return synced;
  }
  return inode;
}

Result<Attributes> FilesystemImpl::mknod(const Caller& caller, InodeNo parent,
                                         std::string_view name, uint32_t mode, uint32_t rdev) {
  TRY(checkName(name));
  if ((mode & S_IFMT) == 0) mode |= S_IFREG;
  const bool device = S_ISCHR(mode) || S_ISBLK(mode);
  if (!device && !S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode)) return Status::error(EPERM);
  NewInode spec;
  spec.mode = mode;
  spec.rdev = device ? rdev : 0;
  TRY_ASSIGN(InodePtr inode, makeInode(caller, parent, name, spec));
  return attributesOf(*inode);
}

Result<Attributes> FilesystemImpl::mkdir(const Caller& caller, InodeNo parent,
                                         std::string_view name, uint32_t mode) {
  TRY(checkName(name));
  if (name == "." || name == "..") return Status::error(EEXIST);
  NewInode spec;
  spec.mode = S_IFDIR | (mode & ~uint32_t{S_IFMT});
  TRY_ASSIGN(InodePtr inode, makeInode(caller, parent, name, spec));
  return attributesOf(*inode);
}

Result<Attributes> FilesystemImpl::symlink(const Caller& caller, InodeNo parent,
                                           std::string_view name, std::string_view target) {
  TRY(checkName(name));
  if (target.empty()) return Status::error(ENOENT);
  if (target.size() > kMaxSymlinkLength) return Status::error(ENAMETOOLONG);
  NewInode spec;
  spec.mode = S_IFLNK | 0777;
  spec.target = target;
  TRY_ASSIGN(InodePtr inode, makeInode(caller, parent, name, spec));
  return attributesOf(*inode);
}

Result<std::pair<Attributes, OpenFilePtr>> FilesystemImpl::create(const Caller& caller,
                                                                  InodeNo parent,
                                                                  std::string_view name,
                                                                  uint32_t mode, int flags) {
  TRY(checkName(name));
  NewInode spec;
  spec.mode = S_IFREG | (mode & ~uint32_t{S_IFMT});
  auto made = makeInode(caller, parent, name, spec);
  if (made) {
    TRY_ASSIGN(OpenFilePtr file, openInode(*made, flags));
    return std::pair(attributesOf(**made), std::move(file));
  }
  if (made.errnum() != EEXIST || (flags & O_EXCL)) return made.status();
  TRY_ASSIGN(Attributes found, lookup(parent, name));
  auto file = open(found.ino, flags);
  if (!file) {
    forget(found.ino, 1);
    return file.status();
  }
  return std::pair(std::move(found), std::move(*file));
}

Result<std::pair<Attributes, OpenFilePtr>> FilesystemImpl::tmpfile(const Caller& caller,
                                                                   InodeNo parent, uint32_t mode,
                                                                   int flags) {
  NewInode spec;
  spec.mode = S_IFREG | (mode & ~uint32_t{S_IFMT});
  spec.linkable = (flags & O_EXCL) == 0;
  TRY_ASSIGN(InodePtr inode, makeInode(caller, parent, "", spec));
  TRY_ASSIGN(OpenFilePtr file, openInode(inode, flags));
  return std::pair(attributesOf(*inode), std::move(file));
}

Result<Attributes> FilesystemImpl::link(const Caller&, InodeNo ino, InodeNo newParent,
                                        std::string_view newName) {
  TRY(checkWritable());
  TRY(checkName(newName));
  TRY_ASSIGN(Attributes linked, withSpace([&] { return linkOnce(ino, newParent, newName); }));
  if (InodePtr inode = table_.find(ino)) {
    if (Status synced = finish(Lsn(inode->lastLsn.load())); !synced.isOk()) {
      table_.forget(ino, 1);
      return synced;
    }
  }
  return linked;
}

Result<Attributes> FilesystemImpl::linkOnce(InodeNo ino, InodeNo newParent,
                                            std::string_view newName) {
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  TRY_ASSIGN(InodePtr parent, directoryOf(newParent));
  if (inode->isDirectory()) return Status::error(EPERM);
  InodeLocks locks;
  (void)locks.add(parent);
  (void)locks.add(inode);
  TRY(checkAlive(*parent));
  Directory names = namesOf(*parent);
  TRY_ASSIGN(auto existing, names.find(newName));
  if (existing) return Status::error(EEXIST);

  TRY_ASSIGN(auto room, volume_.log().reserve(kNamespaceRoom));
  bool wasOrphan = false;
  {
    RecordChange change({parent.get(), inode.get()});
    InodeRecord& r = change.of(*inode);
    inode->attrMutex.assertHeld();
    wasOrphan = r.nlink == 0;
    if (wasOrphan && !inode->linkable) return Status::error(ENOENT);
    if (r.nlink >= kMaxLinks) return Status::error(EMLINK);
    Transaction t;
    TRY_ASSIGN(uint64_t cookie, names.insert(newName, ino, direntType(r.mode)));
    names.emit(t);
    InodeRecord& p = change.of(*parent);
    p.entries += 1;
    r.nlink += 1;
    p.mtime = p.ctime = r.ctime = wallClock();
    TRY(change.commit(volume_.log(), std::move(t), std::move(room)));
    lowerHint(*parent, cookie);
  }
  if (wasOrphan) reclaimer_.cancel(ino);
  table_.addLookup(inode);
  return attributesOf(*inode);
}

Result<std::string> FilesystemImpl::readlink(InodeNo ino) {
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  if (inode->type != S_IFLNK) return Status::error(EINVAL);
  touchAtime(*inode);
  MutexLock attr(inode->attrMutex);
  return inode->record.symlink;
}

}  // namespace ourfs
