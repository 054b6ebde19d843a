// Requests about names: lookup and forget, and everything that makes, moves or removes a name.
#include "fuse/connection.h"

namespace ourfs {

void handleLookup(Connection& c, Request& r) {
  std::string_view name = r.takeName();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  auto found = c.fs.lookup(r.node(), name);
  if (!found && found.errnum() == ENOENT && name != "." && name != "..") {
    fuse_entry_out negative{};  // node 0: the kernel remembers that there is no such name
    negative.entry_valid = kForever;
    r.reply(negative);
    return;
  }
  replyEntry(c, r, found);
}

void handleForget(Connection& c, Request& r) {
  auto in = r.take<fuse_forget_in>();
  r.noReply();
  if (r.ok()) c.fs.forget(r.node(), in.nlookup);
}

void handleBatchForget(Connection& c, Request& r) {
  auto in = r.take<fuse_batch_forget_in>();
  r.noReply();
  for (uint32_t n = 0; n < in.count; ++n) {
    auto one = r.take<fuse_forget_one>();
    if (!r.ok()) return;
    c.fs.forget(InodeNo(one.nodeid), one.nlookup);
  }
}

void handleMknod(Connection& c, Request& r) {
  auto in = r.take<fuse_mknod_in>();
  std::string_view name = r.takeName();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  replyEntry(c, r, c.fs.mknod(r.caller(c.umask(in.umask)), r.node(), name, in.mode, in.rdev));
}

void handleMkdir(Connection& c, Request& r) {
  auto in = r.take<fuse_mkdir_in>();
  std::string_view name = r.takeName();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  replyEntry(c, r, c.fs.mkdir(r.caller(c.umask(in.umask)), r.node(), name, in.mode));
}

void handleSymlink(Connection& c, Request& r) {
  std::string_view name = r.takeName();
  std::string_view target = r.takeName();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  replyEntry(c, r, c.fs.symlink(r.caller(), r.node(), name, target));
}

void handleLink(Connection& c, Request& r) {
  auto in = r.take<fuse_link_in>();
  std::string_view name = r.takeName();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  replyEntry(c, r, c.fs.link(r.caller(), InodeNo(in.oldnodeid), r.node(), name));
}

void handleUnlink(Connection& c, Request& r) {
  std::string_view name = r.takeName();
  r.fail(r.ok() ? c.fs.unlink(r.caller(), r.node(), name) : Status::error(EINVAL));
}

void handleRmdir(Connection& c, Request& r) {
  std::string_view name = r.takeName();
  r.fail(r.ok() ? c.fs.rmdir(r.caller(), r.node(), name) : Status::error(EINVAL));
}

namespace {

void rename(Connection& c, Request& r, uint64_t newParent, uint32_t flags) {
  std::string_view name = r.takeName();
  std::string_view newName = r.takeName();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  r.fail(c.fs.rename(r.caller(), r.node(), name, InodeNo(newParent), newName, flags));
}

}  // namespace

void handleRename(Connection& c, Request& r) {
  auto in = r.take<fuse_rename_in>();
  rename(c, r, in.newdir, 0);
}

void handleRename2(Connection& c, Request& r) {
  auto in = r.take<fuse_rename2_in>();
  rename(c, r, in.newdir, in.flags);
}

void handleReadlink(Connection& c, Request& r) {
  auto target = c.fs.readlink(r.node());
  if (!target) {
    r.fail(staleIfMissing(target.errnum()));
    return;
  }
  r.replyBytes(std::as_bytes(std::span(*target)));
}

}  // namespace ourfs
