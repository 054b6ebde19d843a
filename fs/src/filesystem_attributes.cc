// Filesystem: stat, setattr, statfs.
#include <algorithm>

#include "filesystem_impl.h"

namespace ourfs {

namespace {

// What a change of owner, or a write by somebody without privileges, takes away from a file.
void dropPrivileges(Transaction& t, InodeNo ino, InodeRecord& r, bool setuid) {
  if (setuid) {
    r.mode &= ~uint32_t{S_ISUID};
    if (r.mode & S_IXGRP) r.mode &= ~uint32_t{S_ISGID};
  }
  if (r.flags & kInodeHasCapability) t.erase(xattrKey(ino, kCapabilityName));
  r.flags &= ~kInodeHasCapability;
}

bool validTime(const std::optional<Timestamp>& t) { return !t || t->nsec < 1'000'000'000; }

}  // namespace

Result<Attributes> FilesystemImpl::getattr(InodeNo ino) {
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  return attributesOf(*inode);
}

Result<Attributes> FilesystemImpl::setattr(const Caller&, InodeNo ino,
                                           const AttributeChange& change) {
  TRY(checkWritable());
  if (!validTime(change.atime) || !validTime(change.mtime) || !validTime(change.ctime)) {
    return Status::error(EINVAL);
  }
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  Lsn lsn;
  {
    ExclusiveLock lock(inode->lock);
    if (change.size) TRY(withSpace([&] { return changeSize(inode, *change.size); }));
    TRY_ASSIGN(lsn, withSpace([&] { return changeRecord(inode, change); }));
  }
  if (options_.sync) TRY(volume_.log().flush(lsn));
  return attributesOf(*inode);
}

Status FilesystemImpl::changeSize(const InodePtr& inode, uint64_t size) {
  if (inode->isDirectory()) return Status::error(EISDIR);
  if (!inode->isRegular()) return Status::error(EINVAL);
  if (size > kMaxFileSize) return Status::error(EFBIG);
  return data_->truncate(*inode, FileOffset(size), true);
}

Result<Lsn> FilesystemImpl::changeRecord(const InodePtr& inode, const AttributeChange& change) {
  const InodeRecord before = recordOf(*inode);
  const bool owner = change.uid || change.gid;
  const bool times =
      change.atime || change.mtime || change.ctime || change.atimeNow || change.mtimeNow;
  const bool dropsSetuid = (owner || change.killPrivileges) && !inode->isDirectory() &&
                           (before.mode & (S_ISUID | S_ISGID));
  const bool dropsCapability =
      (owner || change.killPrivileges || change.size) && (before.flags & kInodeHasCapability);
  if (!change.mode && !owner && !times && !dropsSetuid && !dropsCapability) {
    return Lsn(inode->lastLsn.load());
  }

  std::optional<Acl> acl;
  if (change.mode) {
    TRY_ASSIGN(auto stored, readXattr(volume_.index(), inode->ino, before.flags, kAccessAclName));
    if (stored) {
      TRY_ASSIGN(acl, Acl::decode(*stored));
    }
  }
  std::string aclBytes;
  if (acl) {
    acl->setMode(*change.mode);
    aclBytes = acl->encode();
  }
  TRY_ASSIGN(auto room, volume_.log().reserve(kAttributeRoom + ByteCount(aclBytes.size())));
  Transaction t;
  RecordChange update({inode.get()});
  InodeRecord& r = update.of(*inode);
  const Timestamp now = wallClock();
  if (dropsSetuid || dropsCapability) dropPrivileges(t, inode->ino, r, dropsSetuid);
  if (change.mode) r.mode = inode->type | (*change.mode & ~uint32_t{S_IFMT});
  if (acl) t.put(xattrKey(inode->ino, kAccessAclName), aclBytes);
  r.uid = change.uid.value_or(r.uid);
  r.gid = change.gid.value_or(r.gid);
  if (change.atimeNow) r.atime = now;
  if (change.mtimeNow) r.mtime = now;
  r.atime = change.atime.value_or(r.atime);
  r.mtime = change.mtime.value_or(r.mtime);
  r.ctime = change.ctime.value_or(now);
  return update.commit(volume_.log(), std::move(t), std::move(room));
}

StatfsReply FilesystemImpl::statfs() {
  // What was unlinked just before should count as free.
  constexpr std::chrono::milliseconds kPatience{200};
  constexpr uint64_t kBytesPerInode = 1024;  // about what an inode with a name takes in the index
  reclaimer_.drain(kPatience);
  const SpaceCounts space = volume_.space().counts();
  StatfsReply reply;
  reply.blockSize = volume_.blockSize();
  reply.nameMax = kMaxNameLength;
  reply.blocks = space.total.v;
  reply.available = space.available().v;
  reply.free = std::max(reply.available, space.free.v + space.busy.v - space.reserved.v);
  reply.filesFree = reply.available * reply.blockSize / kBytesPerInode;
  reply.files = inodeCount_.value() + reply.filesFree;
  return reply;
}

}  // namespace ourfs
