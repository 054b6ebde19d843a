#include "host_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "common/aligned_buffer.h"
#include "common/sync_point.h"

namespace ourfs {

namespace {

constexpr std::chrono::milliseconds kLockPoll{5};

}  // namespace

Result<std::unique_ptr<HostFile>> HostFile::open(const std::string& path,
                                                 const UringOptions& options) {
  std::unique_ptr<HostFile> file(new HostFile(path, options.readOnly));
  TRY(file->openDescriptor());
  if (options.exclusiveLock && !mutantEnabled("device.no_lock")) TRY(file->lock(options.lockWait));
  TRY(file->blockSpecial_ ? file->measureDevice() : file->measureFile());
  if (file->size_.v == 0) return Status::error(EINVAL, path + " is empty");
  return file;
}

HostFile::~HostFile() {
  if (fd_ < 0) return;
  // The ring may keep the open file for a moment longer than its descriptor, and the lock with it.
  flock(fd_, LOCK_UN);
  close(fd_);
}

Status HostFile::failure(int errnum) const { return Status::error(errnum).withContext(path_); }

Status HostFile::openDescriptor() {
  // Looked at first, because opening a pipe waits and opening a character device may act.
  struct stat st {};
  if (stat(path_.c_str(), &st) != 0) return failure(errno);
  blockSpecial_ = S_ISBLK(st.st_mode);
  if (!blockSpecial_ && !S_ISREG(st.st_mode)) {
    return Status::error(EINVAL, path_ + " is neither a regular file nor a block device");
  }
  const int flags = (readOnly_ ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  fd_ = ::open(path_.c_str(), flags | O_DIRECT);
  if (fd_ < 0 && errno == EINVAL) {
    direct_ = false;
    memoryAlignment_ = 1;
    fd_ = ::open(path_.c_str(), flags);
  }
  if (fd_ < 0) return failure(errno);
  struct stat opened {};
  if (fstat(fd_, &opened) != 0) return failure(errno);
  if ((opened.st_mode & S_IFMT) != (st.st_mode & S_IFMT)) {
    return Status::error(EINVAL, path_ + " was replaced while it was opened");
  }
  return Status::ok();
}

Status HostFile::lock(std::chrono::milliseconds wait) {
  const int how = (readOnly_ ? LOCK_SH : LOCK_EX) | LOCK_NB;
  const auto deadline = std::chrono::steady_clock::now() + wait;
  while (flock(fd_, how) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return failure(errno);
    if (std::chrono::steady_clock::now() >= deadline) {
      return Status::error(EBUSY, path_ + " is in use (mounted or being checked)");
    }
    std::this_thread::sleep_for(kLockPoll);
  }
  return Status::ok();
}

Status HostFile::measureDevice() {
  uint64_t bytes = 0;
  int logical = 0;
  unsigned physical = 0;
  int writeProtected = 0;
  if (ioctl(fd_, BLKGETSIZE64, &bytes) != 0 || ioctl(fd_, BLKSSZGET, &logical) != 0 ||
      ioctl(fd_, BLKPBSZGET, &physical) != 0 || ioctl(fd_, BLKROGET, &writeProtected) != 0) {
    return failure(errno);
  }
  if (writeProtected != 0 && !readOnly_) return Status::error(EROFS, path_ + " is read-only");
  logicalSector_ = std::max(static_cast<uint32_t>(logical), uint32_t{512});
  physicalSector_ = std::max(physical, logicalSector_);
  if (direct_) memoryAlignment_ = logicalSector_;
  size_ = ByteCount(roundDown(bytes, logicalSector_));
  return Status::ok();
}

Status HostFile::measureFile() {
  struct stat st {};
  if (fstat(fd_, &st) != 0) return failure(errno);
  if (direct_) TRY(measureDirect());
  physicalSector_ = std::max(physicalSector_, logicalSector_);
  size_ = ByteCount(roundDown(static_cast<uint64_t>(st.st_size), logicalSector_));
  return Status::ok();
}

Status HostFile::measureDirect() {
#ifdef STATX_DIOALIGN
  struct statx sx {};
  if (statx(fd_, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
      (sx.stx_mask & STATX_DIOALIGN) != 0) {
    if (sx.stx_dio_offset_align == 0) return stopDirect();
    logicalSector_ = std::max(sx.stx_dio_offset_align, uint32_t{512});
    memoryAlignment_ = std::max(sx.stx_dio_mem_align, uint32_t{1});
    return Status::ok();
  }
#endif
  for (uint32_t alignment : {512u, 4096u}) {
    if (!directReadWorks(alignment)) continue;
    logicalSector_ = memoryAlignment_ = alignment;
    return Status::ok();
  }
  return stopDirect();
}

bool HostFile::directReadWorks(uint32_t alignment) const {
  // Memory that is aligned to `alignment` and not to more.
  AlignedBuffer memory(size_t{2} * 4096);
  ssize_t n = -1;
  do {
    n = pread(fd_, memory.data() + alignment, alignment, 0);
  } while (n < 0 && errno == EINTR);
  return n >= 0;
}

Status HostFile::stopDirect() {
  const int flags = fcntl(fd_, F_GETFL);
  if (flags < 0 || fcntl(fd_, F_SETFL, flags & ~O_DIRECT) != 0) return failure(errno);
  direct_ = false;
  memoryAlignment_ = 1;
  return Status::ok();
}

int HostFile::discard(DeviceOffset offset, ByteCount length) const {
  int rc = 0;
  if (blockSpecial_) {
    uint64_t range[2] = {offset.v, length.v};
    rc = ioctl(fd_, BLKDISCARD, range);
  } else {
    rc = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset.v),
                   static_cast<off_t>(length.v));
  }
  if (rc == 0 || errno == EOPNOTSUPP || errno == ENOTTY) return 0;
  return -errno;
}

Status HostFile::preallocate(DeviceOffset offset, ByteCount length) const {
  if (readOnly_) return Status::error(EROFS, path_ + " is open read-only");
  if (offset.v > size_.v || length.v > size_.v - offset.v) {
    return Status::error(EINVAL, path_ + ": preallocation beyond the end");
  }
  if (blockSpecial_ || length.v == 0) return Status::ok();
  while (fallocate(fd_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset.v),
                   static_cast<off_t>(length.v)) != 0) {
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP || errno == ENOSYS) return Status::ok();
    return failure(errno == EDQUOT || errno == EFBIG ? ENOSPC : errno);
  }
  return Status::ok();
}

}  // namespace ourfs
