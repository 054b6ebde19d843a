// Filesystem: extended attributes and POSIX ACLs.
#include <sys/xattr.h>

#include "filesystem_impl.h"

namespace ourfs {

namespace {

// The list of names (each with its NUL) with `name` in it, or not.
std::string withName(std::string_view list, std::string_view name, bool present) {
  std::string out;
  while (!list.empty()) {
    const std::string_view each = list.substr(0, list.find('\0') + 1);
    if (each.substr(0, each.size() - 1) != name) out.append(each);
    list.remove_prefix(each.size());
  }
  if (present) out.append(name).push_back('\0');
  return out;
}

}  // namespace

Status FilesystemImpl::setxattr(const Caller&, InodeNo ino, std::string_view name,
                                std::string_view value, int flags) {
  TRY(checkWritable());
  TRY(checkXattrName(name, options_.posixAcl));
  if (value.size() > kMaxXattrValue) return Status::error(E2BIG);
  if (flags & ~(XATTR_CREATE | XATTR_REPLACE)) return Status::error(EINVAL);
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  TRY_ASSIGN(Lsn lsn, withSpace([&] {
               ExclusiveLock lock(inode->lock);
               return isAclName(name) ? storeAcl(inode, name, value)
                                      : storeXattr(inode, name, value, flags);
             }));
  return options_.sync ? volume_.log().flush(lsn) : Status::ok();
}

Result<std::string> FilesystemImpl::getxattr(InodeNo ino, std::string_view name) {
  TRY(checkXattrName(name, options_.posixAcl));
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  uint32_t flags = 0;
  {
    MutexLock attr(inode->attrMutex);
    flags = inode->record.flags;
  }
  TRY_ASSIGN(auto value, readXattr(volume_.index(), ino, flags, name));
  if (!value) return Status::error(ENODATA);
  return std::move(*value);
}

Result<std::string> FilesystemImpl::listxattr(InodeNo ino) {
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  SharedLock lock(inode->lock);
  return listXattrs(volume_.index(), ino, recordOf(*inode).flags);
}

Status FilesystemImpl::removexattr(const Caller&, InodeNo ino, std::string_view name) {
  TRY(checkWritable());
  TRY(checkXattrName(name, options_.posixAcl));
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  TRY_ASSIGN(Lsn lsn, withSpace([&] {
               ExclusiveLock lock(inode->lock);
               return dropXattr(inode, name, !isAclName(name));
             }));
  return options_.sync ? volume_.log().flush(lsn) : Status::ok();
}

Result<Lsn> FilesystemImpl::storeXattr(const InodePtr& inode, std::string_view name,
                                       std::string_view value, int flags) {
  TRY_ASSIGN(auto existing, readXattr(volume_.index(), inode->ino, recordOf(*inode).flags, name));
  if (existing && (flags & XATTR_CREATE)) return Status::error(EEXIST);
  if (!existing && (flags & XATTR_REPLACE)) return Status::error(ENODATA);
  return commitXattr(inode, name, std::string(value), std::nullopt);
}

Result<Lsn> FilesystemImpl::storeAcl(const InodePtr& inode, std::string_view name,
                                     std::string_view value) {
  if (inode->type == S_IFLNK) return Status::error(EOPNOTSUPP);
  TRY_ASSIGN(auto acl, Acl::decode(value));
  if (name == kDefaultAclName) {
    if (!inode->isDirectory() && acl) return Status::error(EACCES);
    if (!acl) return dropXattr(inode, name, false);
    return commitXattr(inode, name, acl->encode(), std::nullopt);
  }
  if (!acl) return dropXattr(inode, name, false);
  // A list that says no more than the mode is the mode.
  std::optional<std::string> stored;
  if (!acl->isMode()) stored = acl->encode();
  return commitXattr(inode, name, stored, acl->modeBits());
}

Result<Lsn> FilesystemImpl::dropXattr(const InodePtr& inode, std::string_view name,
                                      bool mustExist) {
  TRY_ASSIGN(auto existing, readXattr(volume_.index(), inode->ino, recordOf(*inode).flags, name));
  if (!existing) {
    if (mustExist) return Status::error(ENODATA);
    return Lsn(inode->lastLsn.load());
  }
  return commitXattr(inode, name, std::nullopt, std::nullopt);
}

// Stores or (without a value) removes one attribute; `permissions` become those of the mode.
Result<Lsn> FilesystemImpl::commitXattr(const InodePtr& inode, std::string_view name,
                                        const std::optional<std::string>& value,
                                        std::optional<uint32_t> permissions) {
  constexpr uint32_t kPermissions = 0777;
  TRY_ASSIGN(std::string before, listXattrs(volume_.index(), inode->ino, recordOf(*inode).flags));
  const std::string names = withName(before, name, value.has_value());
  if (names.size() > kMaxXattrList && names.size() > before.size()) return Status::error(ENOSPC);

  const ByteCount payload(kAttributeRoom.v + (value ? value->size() : 0));
  TRY_ASSIGN(auto room, volume_.log().reserve(std::min(payload, kXattrRoom)));
  Transaction t;
  RecordChange update({inode.get()});
  InodeRecord& r = update.of(*inode);
  if (value) {
    t.put(xattrKey(inode->ino, name), *value);
  } else {
    t.erase(xattrKey(inode->ino, name));
  }
  r.flags = (r.flags & ~kXattrFlags) | xattrFlags(names);
  if (permissions) r.mode = (r.mode & ~kPermissions) | *permissions;
  r.ctime = wallClock();
  return update.commit(volume_.log(), std::move(t), std::move(room));
}

}  // namespace ourfs
