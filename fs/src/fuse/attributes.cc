// Requests about attributes: stat, statx, setattr, statfs, extended attributes.
#include <sys/stat.h>

#include "fuse/connection.h"

namespace ourfs {

namespace {

void replyAttributes(Connection& c, Request& r, const Result<Attributes>& result) {
  if (result) {
    r.reply(c.attrOut(*result));
  } else {
    r.fail(staleIfMissing(result.errnum()));
  }
}

Timestamp timestamp(uint64_t sec, uint32_t nsec) { return {static_cast<int64_t>(sec), nsec}; }

AttributeChange changeOf(const fuse_setattr_in& in) {
  AttributeChange change;
  if (in.valid & FATTR_MODE) change.mode = in.mode;
  if (in.valid & FATTR_UID) change.uid = in.uid;
  if (in.valid & FATTR_GID) change.gid = in.gid;
  if (in.valid & FATTR_SIZE) change.size = in.size;
  change.atimeNow = (in.valid & FATTR_ATIME_NOW) != 0;
  change.mtimeNow = (in.valid & FATTR_MTIME_NOW) != 0;
  if ((in.valid & FATTR_ATIME) && !change.atimeNow)
    change.atime = timestamp(in.atime, in.atimensec);
  if ((in.valid & FATTR_MTIME) && !change.mtimeNow)
    change.mtime = timestamp(in.mtime, in.mtimensec);
  if (in.valid & FATTR_CTIME) change.ctime = timestamp(in.ctime, in.ctimensec);
  change.killPrivileges = (in.valid & FATTR_KILL_SUIDGID) != 0;
  return change;
}

bool validTimes(const fuse_setattr_in& in) {
  constexpr uint32_t kSecond = 1'000'000'000;
  return (!(in.valid & FATTR_ATIME) || in.atimensec < kSecond) &&
         (!(in.valid & FATTR_MTIME) || in.mtimensec < kSecond) &&
         (!(in.valid & FATTR_CTIME) || in.ctimensec < kSecond);
}

}  // namespace

void handleGetattr(Connection& c, Request& r) { replyAttributes(c, r, c.fs.getattr(r.node())); }

void handleStatx(Connection& c, Request& r) {
  auto found = c.fs.getattr(r.node());
  if (found) {
    r.reply(c.statxOut(*found));
  } else {
    r.fail(staleIfMissing(found.errnum()));
  }
}

void handleSetattr(Connection& c, Request& r) {
  auto in = r.take<fuse_setattr_in>();
  if (!r.ok() || !validTimes(in)) {
    r.fail(EINVAL);
    return;
  }
  replyAttributes(c, r, c.fs.setattr(r.caller(), r.node(), changeOf(in)));
}

void handleStatfs(Connection& c, Request& r) {
  StatfsReply s = c.fs.statfs();
  fuse_statfs_out out{};
  out.st.blocks = s.blocks;
  out.st.bfree = s.free;
  out.st.bavail = s.available;
  out.st.files = s.files;
  out.st.ffree = s.filesFree;
  out.st.bsize = s.blockSize;
  out.st.frsize = s.blockSize;
  out.st.namelen = s.nameMax;
  r.reply(out);
}

// The caller may set the ACL but may not keep the file setgid: the kernel leaves clearing it to us.
static Status dropSetgid(Connection& c, Request& r) {
  TRY_ASSIGN(Attributes now, c.fs.getattr(r.node()));
  if (!(now.record.mode & S_ISGID)) return Status::ok();
  AttributeChange change;
  change.mode = now.record.mode & ~uint32_t{S_ISGID};
  return statusOf(c.fs.setattr(r.caller(), r.node(), change));
}

void handleSetxattr(Connection& c, Request& r) {
  fuse_setxattr_in in{};
  if (c.longSetxattr.load()) {
    in = r.take<fuse_setxattr_in>();
  } else {
    in.size = r.take<uint32_t>();
    in.flags = r.take<uint32_t>();
  }
  std::string_view name = r.takeName();
  auto value = r.takeBytes(in.size);
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  std::string_view text(reinterpret_cast<const char*>(value.data()), value.size());
  Status set = c.fs.setxattr(r.caller(), r.node(), name, text, static_cast<int>(in.flags));
  if (set.isOk() && (in.setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID)) set = dropSetgid(c, r);
  r.fail(staleIfMissing(set.errnum()));
}

namespace {

// The convention of getxattr(2) and listxattr(2): size 0 asks how long the answer is.
void replySized(Request& r, uint32_t room, const Result<std::string>& value) {
  if (!value) {
    r.fail(staleIfMissing(value.errnum()));
  } else if (room == 0) {
    r.reply(fuse_getxattr_out{static_cast<uint32_t>(value->size()), 0});
  } else if (value->size() > room) {
    r.fail(ERANGE);
  } else {
    r.replyBytes(std::as_bytes(std::span(*value)));
  }
}

}  // namespace

void handleGetxattr(Connection& c, Request& r) {
  auto in = r.take<fuse_getxattr_in>();
  std::string_view name = r.takeName();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  replySized(r, in.size, c.fs.getxattr(r.node(), name));
}

void handleListxattr(Connection& c, Request& r) {
  auto in = r.take<fuse_getxattr_in>();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  replySized(r, in.size, c.fs.listxattr(r.node()));
}

void handleRemovexattr(Connection& c, Request& r) {
  std::string_view name = r.takeName();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  r.fail(staleIfMissing(c.fs.removexattr(r.caller(), r.node(), name).errnum()));
}

}  // namespace ourfs
