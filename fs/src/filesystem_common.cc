// Filesystem: what all operations share.
#include <dirent.h>

#include "filesystem_impl.h"

namespace ourfs {

uint8_t direntType(uint32_t mode) { return static_cast<uint8_t>(IFTODT(mode)); }

void OpenFileDeleter::operator()(OpenFile* file) const { delete file; }

Status FilesystemImpl::checkWritable() const {
  return volume_.readOnly() ? Status::error(EROFS) : Status::ok();
}

Status FilesystemImpl::checkName(std::string_view name) const {
  if (name.empty()) return Status::error(ENOENT);
  if (name.size() > kMaxNameLength) return Status::error(ENAMETOOLONG);
  if (name.find('/') != name.npos || name.find('\0') != name.npos) return Status::error(EINVAL);
  return Status::ok();
}

Result<InodePtr> FilesystemImpl::directoryOf(InodeNo ino) {
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  if (!inode->isDirectory()) return Status::error(ENOTDIR);
  return inode;
}

Status FilesystemImpl::checkAlive(const Inode& directory) {
  MutexLock attr(directory.attrMutex);
  return directory.record.nlink == 0 ? Status::error(ENOENT) : Status::ok();
}

InodeRecord FilesystemImpl::recordOf(const Inode& inode) {
  MutexLock attr(inode.attrMutex);
  return inode.record;
}

Attributes FilesystemImpl::attributesOf(const Inode& inode) {
  Attributes result;
  result.ino = inode.ino;
  std::shared_ptr<Mapping> mapping;
  {
    MutexLock attr(inode.attrMutex);
    result.record = inode.record;
    mapping = inode.mapping;
  }
  result.generation = result.record.generation;
  result.record.symlink.clear();
  if (mapping) {
    result.record.size = mapping->size.load();
    MutexLock extents(mapping->extents.mutex());
    result.record.blocks += mapping->extents.delallocBytes().v;
  }
  return result;
}

// What `name` leads to, locked; null if there is no such name.
Result<InodePtr> FilesystemImpl::findAndLock(Directory& names, std::string_view name,
                                             InodeLocks& locks, bool* lookAgain) {
  TRY_ASSIGN(auto entry, names.find(name));
  if (!entry) return InodePtr();
  auto inode = table_.get(entry->ino);
  if (inode.errnum() == ENOENT) {
    return Status::corrupt("a name leads to inode " + std::to_string(entry->ino.v) +
                           ", which does not exist; run fsck.ourfs");
  }
  if (inode && !locks.add(*inode)) *lookAgain = true;
  return inode;
}

Status FilesystemImpl::finish(Lsn lsn) {
  return options_.sync || options_.dirsync ? volume_.log().flush(lsn) : Status::ok();
}

void FilesystemImpl::unlinked(const InodePtr& inode) {
  {
    MutexLock attr(inode->attrMutex);
    if (inode->record.nlink != 0) return;
  }
  // The pointer that the caller holds keeps it from being reclaimed before it is expected.
  reclaimer_.expect(inode->ino);
  if (!table_.inUse(inode->ino)) reclaimer_.queue(inode->ino);
}

void FilesystemImpl::touchAtime(Inode& inode) {
  constexpr int64_t kDay = 24 * 60 * 60;
  if (options_.atime == AtimeMode::None || volume_.readOnly()) return;
  const Timestamp now = wallClock();
  MutexLock attr(inode.attrMutex);
  InodeRecord& r = inode.record;
  const bool fresh = r.atime > r.mtime && r.atime > r.ctime && now.sec - r.atime.sec < kDay;
  if (options_.atime == AtimeMode::Relative && fresh) return;
  r.atime = now;
  inode.attrDirty = true;
}

// `before`: how many had been reclaimed when the operation began. What came back while it was
// failing is worth another try, too.
bool FilesystemImpl::moreSpace(int round, uint64_t before) {
  constexpr std::chrono::milliseconds kForgetComes{50}, kAllReclaimed{5000};
  spaceWaits_.fetch_add(1, std::memory_order_relaxed);
  if (round == 0) return reclaimer_.awaitSpace(before, kForgetComes);
  if (round > 1) return false;
  if (reclaimer_.waiting() > 0) return reclaimer_.drain(kAllReclaimed);
  return reclaimer_.freed() != before;
}

}  // namespace ourfs
