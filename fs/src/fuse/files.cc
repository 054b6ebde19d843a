// Requests about open files: open, create, close, sync.
#include <fcntl.h>
#include <sys/sysinfo.h>

#include "fuse/connection.h"

namespace ourfs {

namespace {

// What the kernel may hold dirty before it asks us for room: its vm.dirty_ratio is a fifth of
// memory.
bool kernelMayHoldMoreThanIsFree(Connection& c) {
  struct sysinfo info {};
  if (sysinfo(&info) != 0) return false;
  StatfsReply s = c.fs.statfs();
  return s.available * s.blockSize < uint64_t{info.totalram} * info.mem_unit / 5;
}

// The flags that the filesystem sees. The kernel's writeback cache reads pages through write-only
// files, and has placed what O_APPEND appends.
int flagsFor(const Connection& c, uint32_t flags) {
  int f = static_cast<int>(flags) & ~(O_CREAT | O_EXCL | O_NOCTTY);
  if (!c.writebackCache.load()) return f;
  if ((f & O_ACCMODE) == O_WRONLY) f = (f & ~O_ACCMODE) | O_RDWR;
  return f & ~O_APPEND;
}

// KEEP_CACHE: nobody else changes data. NOFLUSH: close(2) reports no error of background writeback
// here, as on XFS and ext4; fsync does. It may not be had with the kernel's writeback cache, which
// flushes then. O_DIRECT is the kernel's to do with its writeback cache: it may hold a longer file
// than we know of, and a read that asks us alone would end at our end.
uint32_t openFlags(Connection& c, uint32_t flags) {
  uint32_t reply = FOPEN_KEEP_CACHE;
  bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if (!c.writebackCache.load()) {
    reply |= FOPEN_NOFLUSH;
    if (flags & O_DIRECT) reply |= FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
  } else if (writes && kernelMayHoldMoreThanIsFree(c)) {
    reply |= FOPEN_DIRECT_IO;  // so that ENOSPC reaches the writer
  }
  return reply;
}

fuse_open_out openOut(uint64_t handle, uint32_t flags) { return {handle, flags, 0}; }

struct CreateOut {
  fuse_entry_out entry;
  fuse_open_out open;
};

void replyCreated(Connection& c, Request& r, Result<std::pair<Attributes, OpenFilePtr>> made,
                  uint32_t flags) {
  if (!made) {
    r.fail(made.status());
    return;
  }
  auto& [attributes, file] = *made;
  uint64_t handle = c.keep(std::move(file));
  if (!r.reply(CreateOut{c.entry(attributes), openOut(handle, openFlags(c, flags))})) {
    c.fs.release(c.take(handle));
    c.fs.forget(attributes.ino, 1);
  }
}

// O_TRUNC: the kernel leaves it to us, with the privileges to clear.
Status truncateForOpen(Connection& c, Request& r, const fuse_open_in& in) {
  AttributeChange change;
  change.size = 0;
  change.mtimeNow = true;  // even if the file is empty already
  change.killPrivileges = (in.open_flags & FUSE_OPEN_KILL_SUIDGID) != 0;
  return statusOf(c.fs.setattr(r.caller(), r.node(), change));
}

}  // namespace

void handleOpen(Connection& c, Request& r) {
  auto in = r.take<fuse_open_in>();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  int flags = flagsFor(c, in.flags);
  auto file = c.fs.open(r.node(), flags & ~O_TRUNC);
  if (!file) {
    r.fail(staleIfMissing(file.errnum()));
    return;
  }
  if (in.flags & O_TRUNC) {
    Status truncated = truncateForOpen(c, r, in);
    if (!truncated) {
      c.fs.release(std::move(*file));
      r.fail(staleIfMissing(truncated.errnum()));
      return;
    }
  }
  // The kernel takes its cached mode for true after an open that has cleared setuid.
  if ((in.flags & O_TRUNC) && (in.open_flags & FUSE_OPEN_KILL_SUIDGID))
    c.channel.invalidateAttributes(r.node());
  uint64_t handle = c.keep(std::move(*file));
  if (!r.reply(openOut(handle, openFlags(c, in.flags)))) c.fs.release(c.take(handle));
}

void handleCreate(Connection& c, Request& r) {
  auto in = r.take<fuse_create_in>();
  std::string_view name = r.takeName();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  int flags = flagsFor(c, in.flags) & ~O_TRUNC;
  replyCreated(c, r, c.fs.create(r.caller(c.umask(in.umask)), r.node(), name, in.mode, flags),
               in.flags);
}

void handleTmpfile(Connection& c, Request& r) {
  auto in = r.take<fuse_create_in>();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  int flags = flagsFor(c, in.flags) & ~O_TRUNC;
  replyCreated(c, r, c.fs.tmpfile(r.caller(c.umask(in.umask)), r.node(), in.mode, flags), in.flags);
}

void handleRelease(Connection& c, Request& r) {
  auto in = r.take<fuse_release_in>();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  c.fs.release(c.take(in.fh));
  r.done();
}

void handleFlush(Connection& c, Request& r) {
  auto in = r.take<fuse_flush_in>();
  r.fail(r.ok() ? c.fs.flush(*openFile(in.fh)) : Status::error(EINVAL));
}

void handleFsync(Connection& c, Request& r) {
  auto in = r.take<fuse_fsync_in>();
  bool dataOnly = (in.fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;
  r.fail(r.ok() ? c.fs.fsync(*openFile(in.fh), dataOnly) : Status::error(EINVAL));
}

void handleSyncfs(Connection& c, Request& r) { r.fail(c.fs.syncAll()); }

}  // namespace ourfs
