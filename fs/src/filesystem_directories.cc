// Filesystem: reading directories.
#include <dirent.h>

#include <algorithm>

#include "filesystem_impl.h"

namespace ourfs {

namespace {

// Cookies of what is not in the index; the one behind ".." is where the names begin.
constexpr uint64_t kDotCookie = 0, kDotDotCookie = 1, kNamesCookie = 2;
static_assert(kNamesCookie <= kFirstCookie);
constexpr size_t kFirstBatch = 64, kLargestBatch = 1024;

}  // namespace

Result<OpenFilePtr> FilesystemImpl::openDirectory(InodeNo ino) {
  TRY_ASSIGN(InodePtr inode, directoryOf(ino));
  return openInode(inode, 0);
}

Status FilesystemImpl::readDirectory(OpenFile& directory, uint64_t cookie, bool plus,
                                     const std::function<bool(const DirectoryEntry&)>& take) {
  Inode& inode = *directory.inode;
  if (!inode.isDirectory()) return Status::error(ENOTDIR);
  touchAtime(inode);
  SharedLock lock(inode.lock);
  const InodeRecord record = recordOf(inode);
  if (record.nlink == 0) return Status::ok();  // removed: not even "." is left
  if (cookie == kDotCookie) {
    if (!take({".", inode.ino, DT_DIR, kDotDotCookie, nullptr})) return Status::ok();
    cookie = kDotDotCookie;
  }
  if (cookie == kDotDotCookie) {
    if (!take({"..", InodeNo(record.parent), DT_DIR, kNamesCookie, nullptr})) return Status::ok();
    cookie = kNamesCookie;
  }
  if (record.entries == 0) return Status::ok();

  Directory names = namesOf(inode);
  const uint64_t hint = inode.firstCookieHint.load();
  bool fromStart = cookie <= hint || cookie <= kFirstCookie;
  cookie = std::max({cookie, hint, kFirstCookie});
  for (size_t batch = kFirstBatch;; batch = std::min(batch * 2, kLargestBatch)) {
    TRY_ASSIGN(std::vector<Dirent> found, names.read(cookie, batch));
    // Nobody can insert while we hold the lock: all before the first name are tombstones.
    if (fromStart && !found.empty()) inode.firstCookieHint.store(found.front().cookie);
    fromStart = false;
    for (const Dirent& each : found) {
      DirectoryEntry entry{each.name, each.ino, each.type, each.cookie + 1, nullptr};
      InodePtr child;
      Attributes attributes;
      if (plus) {
        // An inode that cannot be read is shown without attributes; a lookup will tell why.
        if (auto loaded = table_.get(each.ino)) {
          child = *loaded;
          attributes = attributesOf(*child);
          entry.attributes = &attributes;
        }
      }
      if (!take(entry)) return Status::ok();
      if (child) table_.addLookup(child);
    }
    if (found.size() < batch) return Status::ok();
    cookie = found.back().cookie + 1;
  }
}

Status FilesystemImpl::fsyncDirectory(OpenFile& directory) {
  if (!volume_.failure().isOk()) return Status::error(EIO);
  if (volume_.readOnly()) return Status::ok();
  TRY(data_->commitAttributes(*directory.inode));
  return volume_.log().flush(lastChange(*directory.inode, volume_.log()));
}

}  // namespace ourfs
