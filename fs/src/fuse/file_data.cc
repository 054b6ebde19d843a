// Requests about the data of open files.
#include <fcntl.h>
#include <sys/stat.h>

#include "fuse/connection.h"

namespace ourfs {

namespace {

// One request copies at most so much, so that a large copy can be interrupted between requests.
constexpr uint64_t kMaxCopy = 64 * MiB;

bool hasPrivileges(const InodeRecord& record) {
  return (record.mode & S_ISUID) || (record.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) ||
         (record.flags & kInodeHasCapability);
}

}  // namespace

void handleRead(Connection& c, Request& r) {
  auto in = r.take<fuse_read_in>();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  auto area = r.replyArea(in.size);
  auto got = c.fs.read(*openFile(in.fh), FileOffset(in.offset), area);
  if (got) {
    r.replyFromArea(got->v);
  } else {
    r.fail(got.status());
  }
}

void handleWrite(Connection& c, Request& r) {
  auto in = r.take<fuse_write_in>();
  auto data = r.takeBytes(in.size);
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  FileData::WriteFlags flags;
  flags.fromKernelCache = (in.write_flags & FUSE_WRITE_CACHE) != 0;
  flags.mayExtend = !flags.fromKernelCache || c.writebackCache.load();
  // No `append`: one connection, so the kernel's position for O_APPEND is the end of the file, and
  // what it keeps cached lies there.
  flags.direct = (in.flags & O_DIRECT) != 0 && !flags.fromKernelCache;
  if (in.write_flags & FUSE_WRITE_KILL_SUIDGID) {
    auto now = c.fs.getattr(r.node());
    flags.killPrivileges = now && hasPrivileges(now->record);
  }
  auto written = c.fs.write(*openFile(in.fh), FileOffset(in.offset), data, flags);
  // The kernel does not expect the mode to change by a write.
  if (written && flags.killPrivileges) c.channel.invalidateAttributes(r.node());
  if (written) {
    r.reply(fuse_write_out{static_cast<uint32_t>(written->v), 0});
  } else {
    r.fail(written.status());
  }
}

void handleFallocate(Connection& c, Request& r) {
  auto in = r.take<fuse_fallocate_in>();
  r.fail(r.ok() ? c.fs.fallocate(*openFile(in.fh), static_cast<int>(in.mode), FileOffset(in.offset),
                                 ByteCount(in.length))
                : Status::error(EINVAL));
}

void handleLseek(Connection& c, Request& r) {
  auto in = r.take<fuse_lseek_in>();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  auto found = c.fs.lseek(*openFile(in.fh), FileOffset(in.offset), static_cast<int>(in.whence));
  if (found) {
    r.reply(fuse_lseek_out{found->v});
  } else {
    r.fail(found.status());
  }
}

namespace {

Result<ByteCount> copyRange(Connection& c, Request& r) {
  auto in = r.take<fuse_copy_file_range_in>();
  if (!r.ok() || in.flags) return Status::error(EINVAL);
  return c.fs.copyRange(*openFile(in.fh_in), FileOffset(in.off_in), *openFile(in.fh_out),
                        FileOffset(in.off_out), ByteCount(std::min(in.len, kMaxCopy)));
}

}  // namespace

void handleCopyFileRange(Connection& c, Request& r) {
  auto copied = copyRange(c, r);
  if (copied) {
    r.reply(fuse_write_out{static_cast<uint32_t>(copied->v), 0});
  } else {
    r.fail(copied.status());
  }
}

void handleCopyFileRange64(Connection& c, Request& r) {
  auto copied = copyRange(c, r);
  if (copied) {
    r.reply(CopyFileRangeOut{copied->v});
  } else {
    r.fail(copied.status());
  }
}

}  // namespace ourfs
