// Connection: what the handlers of all operations share, and the handlers' list.
#pragma once

#include <atomic>
#include <unordered_set>

#include "common/mutex.h"
#include "fs/fuse_session.h"
#include "fuse/request.h"

namespace ourfs {

struct Connection {
  Connection(int fd, Filesystem& filesystem, const FuseSessionOptions& o);

  Filesystem& fs;
  const FuseSessionOptions options;
  const ReplyChannel channel;
  const uint32_t blockSize;
  std::atomic<bool> posixAcl{false};        // as negotiated
  std::atomic<bool> writebackCache{false};  // as negotiated
  std::atomic<bool> longSetxattr{false};    // as negotiated: SETXATTR carries more flags

  // ---- attributes as the protocol has them ----
  fuse_attr attr(const Attributes& attributes) const;
  fuse_entry_out entry(const Attributes& attributes) const;
  fuse_attr_out attrOut(const Attributes& attributes) const;
  StatxOut statxOut(const Attributes& attributes) const;
  uint64_t attrValid(const Attributes& attributes) const;  // seconds

  // ---- open files ----
  // The kernel gives a handle back with RELEASE, but not when the connection is aborted.
  uint64_t keep(OpenFilePtr file) EXCLUDES(openMutex_);
  OpenFilePtr take(uint64_t handle) EXCLUDES(openMutex_);
  void releaseAll() EXCLUDES(openMutex_);

  // The umask that the filesystem has to apply; the kernel did it unless there are ACLs.
  uint32_t umask(uint32_t requested) const { return posixAcl.load() ? requested & 0777 : 0; }

 private:
  Mutex openMutex_;  // innermost
  std::unordered_set<OpenFile*> open_ GUARDED_BY(openMutex_);
};

// An open file's handle, as the kernel keeps it.
inline OpenFile* openFile(uint64_t handle) { return reinterpret_cast<OpenFile*>(handle); }

// Seconds for which names and attributes hold: nobody but this connection changes them.
inline constexpr uint64_t kForever = uint64_t{1} << 30;

using Handler = void (*)(Connection&, Request&);
Handler handlerOf(uint32_t opcode);  // null: ENOSYS

// Replies with the result, or gives its lookup back when nobody waits any more.
void replyEntry(Connection& c, Request& r, const Result<Attributes>& result);
// Errors of requests about an inode itself: one that is gone is stale, not a missing name.
int staleIfMissing(int errnum);

// connection_init.cc
void handleInit(Connection& c, Request& r);
// names.cc
void handleLookup(Connection& c, Request& r);
void handleForget(Connection& c, Request& r);
void handleBatchForget(Connection& c, Request& r);
void handleMknod(Connection& c, Request& r);
void handleMkdir(Connection& c, Request& r);
void handleSymlink(Connection& c, Request& r);
void handleLink(Connection& c, Request& r);
void handleUnlink(Connection& c, Request& r);
void handleRmdir(Connection& c, Request& r);
void handleRename(Connection& c, Request& r);
void handleRename2(Connection& c, Request& r);
void handleReadlink(Connection& c, Request& r);
// attributes.cc
void handleGetattr(Connection& c, Request& r);
void handleStatx(Connection& c, Request& r);
void handleSetattr(Connection& c, Request& r);
void handleStatfs(Connection& c, Request& r);
void handleSetxattr(Connection& c, Request& r);
void handleGetxattr(Connection& c, Request& r);
void handleListxattr(Connection& c, Request& r);
void handleRemovexattr(Connection& c, Request& r);
// files.cc
void handleOpen(Connection& c, Request& r);
void handleCreate(Connection& c, Request& r);
void handleTmpfile(Connection& c, Request& r);
void handleRelease(Connection& c, Request& r);
void handleFlush(Connection& c, Request& r);
void handleFsync(Connection& c, Request& r);
void handleSyncfs(Connection& c, Request& r);
// file_data.cc
void handleRead(Connection& c, Request& r);
void handleWrite(Connection& c, Request& r);
void handleFallocate(Connection& c, Request& r);
void handleLseek(Connection& c, Request& r);
void handleCopyFileRange(Connection& c, Request& r);
void handleCopyFileRange64(Connection& c, Request& r);
// directories.cc
void handleOpendir(Connection& c, Request& r);
void handleReaddir(Connection& c, Request& r);
void handleReaddirplus(Connection& c, Request& r);
void handleFsyncdir(Connection& c, Request& r);

}  // namespace ourfs
