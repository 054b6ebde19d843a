#include "fuse/connection.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>

namespace ourfs {

namespace {

constexpr uint32_t kSmallestPreferredIo = 4096;
// With the kernel's writeback cache, blocks and sizes of files change without a request that tells
// it.
constexpr uint64_t kWritebackFileSeconds = 1;

constexpr std::array<Handler, kOpEnd> makeHandlers() {
  std::array<Handler, kOpEnd> h{};
  h[FUSE_LOOKUP] = handleLookup;
  h[FUSE_FORGET] = handleForget;
  h[FUSE_GETATTR] = handleGetattr;
  h[FUSE_SETATTR] = handleSetattr;
  h[FUSE_READLINK] = handleReadlink;
  h[FUSE_SYMLINK] = handleSymlink;
  h[FUSE_MKNOD] = handleMknod;
  h[FUSE_MKDIR] = handleMkdir;
  h[FUSE_UNLINK] = handleUnlink;
  h[FUSE_RMDIR] = handleRmdir;
  h[FUSE_RENAME] = handleRename;
  h[FUSE_LINK] = handleLink;
  h[FUSE_OPEN] = handleOpen;
  h[FUSE_READ] = handleRead;
  h[FUSE_WRITE] = handleWrite;
  h[FUSE_STATFS] = handleStatfs;
  h[FUSE_RELEASE] = handleRelease;
  h[FUSE_FSYNC] = handleFsync;
  h[FUSE_SETXATTR] = handleSetxattr;
  h[FUSE_GETXATTR] = handleGetxattr;
  h[FUSE_LISTXATTR] = handleListxattr;
  h[FUSE_REMOVEXATTR] = handleRemovexattr;
  h[FUSE_FLUSH] = handleFlush;
  h[FUSE_INIT] = handleInit;
  h[FUSE_OPENDIR] = handleOpendir;
  h[FUSE_READDIR] = handleReaddir;
  h[FUSE_RELEASEDIR] = handleRelease;
  h[FUSE_FSYNCDIR] = handleFsyncdir;
  h[FUSE_CREATE] = handleCreate;
  h[FUSE_BATCH_FORGET] = handleBatchForget;
  h[FUSE_FALLOCATE] = handleFallocate;
  h[FUSE_READDIRPLUS] = handleReaddirplus;
  h[FUSE_RENAME2] = handleRename2;
  h[FUSE_LSEEK] = handleLseek;
  h[FUSE_COPY_FILE_RANGE] = handleCopyFileRange;
  h[FUSE_SYNCFS] = handleSyncfs;
  h[FUSE_TMPFILE] = handleTmpfile;
  h[kOpStatx] = handleStatx;
  h[kOpCopyFileRange64] = handleCopyFileRange64;
  return h;
}

constexpr std::array<Handler, kOpEnd> kHandlers = makeHandlers();

StatxTime statxTime(const Timestamp& t) { return {t.sec, t.nsec, 0}; }

}  // namespace

Handler handlerOf(uint32_t opcode) {
  return opcode < kHandlers.size() ? kHandlers[opcode] : nullptr;
}

int staleIfMissing(int errnum) { return errnum == ENOENT ? ESTALE : errnum; }

Connection::Connection(int fd, Filesystem& filesystem, const FuseSessionOptions& o)
    : fs(filesystem), options(o), channel(fd), blockSize(filesystem.statfs().blockSize) {}

uint64_t Connection::keep(OpenFilePtr file) {
  OpenFile* raw = file.release();
  MutexLock lock(openMutex_);
  open_.insert(raw);
  return reinterpret_cast<uint64_t>(raw);
}

OpenFilePtr Connection::take(uint64_t handle) {
  OpenFile* raw = openFile(handle);
  MutexLock lock(openMutex_);
  open_.erase(raw);
  return OpenFilePtr(raw);
}

void Connection::releaseAll() {
  std::unordered_set<OpenFile*> left;
  {
    MutexLock lock(openMutex_);
    left.swap(open_);
  }
  for (OpenFile* file : left) fs.release(OpenFilePtr(file));
}

uint64_t Connection::attrValid(const Attributes& attributes) const {
  return writebackCache.load() && S_ISREG(attributes.record.mode) ? kWritebackFileSeconds
                                                                  : kForever;
}

fuse_attr Connection::attr(const Attributes& attributes) const {
  const InodeRecord& i = attributes.record;
  fuse_attr a{};
  a.ino = attributes.ino.v;
  a.size = i.size;
  a.blocks = i.blocks / 512;
  a.atime = static_cast<uint64_t>(i.atime.sec);
  a.mtime = static_cast<uint64_t>(i.mtime.sec);
  a.ctime = static_cast<uint64_t>(i.ctime.sec);
  a.atimensec = i.atime.nsec;
  a.mtimensec = i.mtime.nsec;
  a.ctimensec = i.ctime.nsec;
  a.mode = i.mode;
  a.nlink = i.nlink;
  a.uid = i.uid;
  a.gid = i.gid;
  a.rdev = i.rdev;
  a.blksize = std::max(blockSize, kSmallestPreferredIo);
  return a;
}

fuse_entry_out Connection::entry(const Attributes& attributes) const {
  fuse_entry_out out{};
  out.nodeid = attributes.ino.v;
  out.generation = attributes.generation;
  out.entry_valid = kForever;
  out.attr_valid = attrValid(attributes);
  out.attr = attr(attributes);
  return out;
}

fuse_attr_out Connection::attrOut(const Attributes& attributes) const {
  fuse_attr_out out{};
  out.attr_valid = attrValid(attributes);
  out.attr = attr(attributes);
  return out;
}

StatxOut Connection::statxOut(const Attributes& attributes) const {
  const InodeRecord& i = attributes.record;
  StatxOut out;
  out.attrValid = attrValid(attributes);
  out.mask = STATX_BASIC_STATS | STATX_BTIME;
  out.blksize = std::max(blockSize, kSmallestPreferredIo);
  out.nlink = i.nlink;
  out.uid = i.uid;
  out.gid = i.gid;
  out.mode = static_cast<uint16_t>(i.mode);
  out.ino = attributes.ino.v;
  out.size = i.size;
  out.blocks = i.blocks / 512;
  out.atime = statxTime(i.atime);
  out.btime = statxTime(i.btime);
  out.ctime = statxTime(i.ctime);
  out.mtime = statxTime(i.mtime);
  // InodeRecord::rdev is the kernel's 32-bit encoding: 12 bits of major between the minor's two
  // parts.
  out.rdevMajor = (i.rdev >> 8) & 0xfff;
  out.rdevMinor = (i.rdev & 0xff) | ((i.rdev >> 12) & 0xfff00);
  return out;
}

void replyEntry(Connection& c, Request& r, const Result<Attributes>& result) {
  if (!result) {
    r.fail(result.status());
  } else if (!r.reply(c.entry(*result))) {
    c.fs.forget(result->ino, 1);
  }
}

}  // namespace ourfs
