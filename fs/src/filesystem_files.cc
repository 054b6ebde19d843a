// Filesystem: open files.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "common/sync_point.h"
#include "filesystem_impl.h"

namespace ourfs {

Result<OpenFilePtr> FilesystemImpl::openInode(const InodePtr& inode, int flags) {
  const std::shared_ptr<Mapping> mapping = inode->mappingIfAny();
  // Without a mapping no write has failed yet, and the first error will be news.
  const bool sample = mapping && !mutantEnabled("files.open_without_sample");
  const ErrSeq::Cursor cursor = sample ? mapping->errors.sample() : ErrSeq::Cursor{0};
  table_.addOpen(inode);
  return OpenFilePtr(std::make_unique<OpenFile>(inode, flags, cursor).release());
}

Result<OpenFilePtr> FilesystemImpl::open(InodeNo ino, int flags) {
  TRY_ASSIGN(InodePtr inode, table_.get(ino));
  if (inode->isDirectory()) return Status::error(EISDIR);
  if (!inode->isRegular()) return Status::error(inode->type == S_IFLNK ? ELOOP : ENXIO);
  if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC)) TRY(checkWritable());
  if (flags & O_TRUNC) {
    ExclusiveLock lock(inode->lock);
    TRY(changeSize(inode, 0));
  }
  return openInode(inode, flags);
}

void FilesystemImpl::release(OpenFilePtr file) {
  if (!file) return;
  const InodePtr inode = file->inode;
  file.reset();
  table_.dropOpen(inode);
}

// Two at a time on one open file must not both be told the same error, so it is looked up under
// the mutex, when all else is done.
Status FilesystemImpl::flush(OpenFile& file) {
  const std::shared_ptr<Mapping> mapping = file.inode->mappingIfAny();
  if (!mapping) return Status::ok();
  MutexLock lock(file.mutex);
  const int errnum = mapping->errors.checkAndAdvance(file.cursor);
  return errnum ? Status::error(errnum) : Status::ok();
}

Status FilesystemImpl::fsync(OpenFile& file, bool dataOnly) {
  // What was acknowledged before the failure may be lost: no fsync may say otherwise.
  if (!volume_.failure().isOk()) return Status::error(EIO);
  if (volume_.readOnly()) return Status::ok();
  return file.inode->isRegular() ? syncFile(file, dataOnly) : fsyncDirectory(file);
}

Status FilesystemImpl::syncFile(OpenFile& file, bool dataOnly) {
  const Status synced = data_->fsync(*file.inode, dataOnly);
  const Status told = flush(file);
  return told.isOk() ? synced : told;
}

Status FilesystemImpl::syncWrite(OpenFile& file) {
  const bool everything = options_.sync || (file.flags & O_SYNC) == O_SYNC;
  if (!everything && !(file.flags & O_DSYNC)) return Status::ok();
  return syncFile(file, !everything);
}

Result<ByteCount> FilesystemImpl::read(OpenFile& file, FileOffset pos, std::span<std::byte> into) {
  if (!file.inode->isRegular()) return Status::error(EISDIR);
  TRY_ASSIGN(ByteCount done, data_->read(*file.inode, pos, into));
  touchAtime(*file.inode);
  return done;
}

Result<ByteCount> FilesystemImpl::write(OpenFile& file, FileOffset pos,
                                        std::span<const std::byte> from,
                                        FileData::WriteFlags flags) {
  TRY(checkWritable());
  if (!file.inode->isRegular()) return Status::error(EISDIR);
  TRY_ASSIGN(ByteCount done,
             withSpace([&] { return data_->write(*file.inode, pos, from, flags); }));
  // What the kernel's cache hands over was acknowledged long ago; an fsync of its own follows.
  if (!flags.fromKernelCache) TRY(syncWrite(file));
  return done;
}

Status FilesystemImpl::fallocate(OpenFile& file, int mode, FileOffset pos, ByteCount length) {
  TRY(checkWritable());
  if (!file.inode->isRegular()) return Status::error(ENODEV);
  TRY(withSpace([&] { return data_->fallocate(*file.inode, mode, pos, length); }));
  return syncWrite(file);
}

Result<FileOffset> FilesystemImpl::lseek(OpenFile& file, FileOffset pos, int whence) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return Status::error(EINVAL);
  if (!file.inode->isRegular()) return Status::error(EINVAL);
  return data_->seek(*file.inode, pos, whence == SEEK_DATA);
}

Result<ByteCount> FilesystemImpl::copyRange(OpenFile& from, FileOffset fromPos, OpenFile& to,
                                            FileOffset toPos, ByteCount length) {
  constexpr uint64_t kStep = 1 * MiB, kMost = 256 * MiB;  // the caller asks again for the rest
  TRY(checkWritable());
  if (!from.inode->isRegular() || !to.inode->isRegular()) return Status::error(EINVAL);
  if (to.flags & O_APPEND) return Status::error(EBADF);
  const uint64_t size = from.inode->currentSize();
  if (fromPos.v >= size) return ByteCount(0);
  length = std::min(length, FileOffset(size) - fromPos);
  if (toPos.v > kMaxFileSize || length.v > kMaxFileSize - toPos.v) return Status::error(EFBIG);
  const bool overlaps = fromPos < toPos + length && toPos < fromPos + length;
  if (from.inode == to.inode && overlaps) return Status::error(EINVAL);

  length = std::min(length, ByteCount(kMost));
  std::vector<std::byte> buffer(std::min(length.v, kStep));
  ByteCount done(0);
  Status failed;
  while (done < length) {
    const std::span<std::byte> piece(buffer.data(), std::min(buffer.size(), (length - done).v));
    auto got = data_->read(*from.inode, fromPos + done, piece);
    auto put = got;
    if (got && got->v > 0) {
      put = withSpace([&] {
        return data_->write(*to.inode, toPos + done, piece.first(got->v), FileData::WriteFlags());
      });
    }
    if (!put) failed = put.status();
    if (!put || put->v == 0) break;
    done += *put;
  }
  touchAtime(*from.inode);
  const bool anyBytes = done.v > 0 && !mutantEnabled("files.copy_error_hides_bytes");
  if (!anyBytes && !failed.isOk()) return failed;
  TRY(syncWrite(to));
  return done;
}

Status FilesystemImpl::makeMapsStale(InodeNo ino) {
  const InodePtr inode = table_.find(ino);
  const std::shared_ptr<Mapping> mapping = inode ? inode->mappingIfAny() : nullptr;
  if (!mapping) return Status::error(ENOENT);
  MutexLock lock(mapping->extents.mutex());
  mapping->extents.bump();
  return Status::ok();
}

}  // namespace ourfs
