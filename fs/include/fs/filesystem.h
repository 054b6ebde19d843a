// Filesystem: the seam between a transport (FUSE over /dev/fuse today) and the filesystem.
//
// One function per request. Knows no FUSE type: a transport translates. Every function may be
// called from any thread and takes all locks it needs. Errors are Status with a positive errno.
// Permission checks are the kernel's (default_permissions); what the kernel leaves to a server is
// done here: setuid/setgid clearing, ACL inheritance and masks, sticky is the kernel's.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/file_data.h"
#include "fs/inode.h"
#include "fs/volume.h"

namespace ourfs {

struct Caller {
  uint32_t uid = 0, gid = 0;
  int32_t pid = 0;
  uint32_t umask =
      0;  // of create, mkdir, mknod, when the kernel leaves it to the server (POSIX ACLs)
};

struct Attributes {  // what stat shows
  InodeNo ino;
  uint32_t generation = 0;
  InodeRecord
      record;  // size and blocks are the current ones, delayed allocation included; no symlink text
};

// Which attributes setattr changes.
struct AttributeChange {
  std::optional<uint32_t> mode, uid, gid;
  std::optional<uint64_t> size;
  std::optional<Timestamp> atime, mtime, ctime;
  bool atimeNow = false, mtimeNow = false;
  bool killPrivileges = false;  // chown and truncate by an unprivileged user
};

struct DirectoryEntry {
  std::string_view name;
  InodeNo ino;
  uint8_t type = 0;         // DT_*
  uint64_t nextCookie = 0;  // d_off: continue with it
  const Attributes* attributes =
      nullptr;  // readdirplus: of the entry, already counted as a lookup if taken
};

struct StatfsReply {
  uint32_t blockSize = 0, nameMax = 255;
  uint64_t blocks = 0, free = 0, available = 0, files = 0, filesFree = 0;
};

enum class AtimeMode { None, Relative, Strict };

struct FilesystemOptions {
  AtimeMode atime = AtimeMode::Relative;
  bool sync = false, dirsync = false;  // mount -o sync, dirsync
  bool posixAcl = true;
  bool kernelWritebackCache = false;
  std::chrono::seconds commitInterval{5};
  FileDataOptions data;
};

class OpenFile;  // an open file or directory: the transport keeps it as the handle
struct OpenFileDeleter {
  void operator()(OpenFile*) const;
};
using OpenFilePtr = std::unique_ptr<OpenFile, OpenFileDeleter>;

class Filesystem {
 public:
  // Starts background threads (flushers, commit interval, orphan reclaim). `volume` outlives it.
  static Result<std::unique_ptr<Filesystem>> start(Volume& volume,
                                                   const FilesystemOptions& options);
  virtual ~Filesystem() = default;
  // Syncs everything, stops the threads. The volume can be closed afterwards.
  virtual Status stop() = 0;

  // ---- names ----
  // Each result that names an inode counts as one lookup of it; forget gives them back.
  virtual Result<Attributes> lookup(InodeNo parent, std::string_view name) = 0;
  virtual void forget(InodeNo ino, uint64_t count) = 0;
  virtual Result<Attributes> mknod(const Caller&, InodeNo parent, std::string_view name,
                                   uint32_t mode, uint32_t rdev) = 0;
  virtual Result<Attributes> mkdir(const Caller&, InodeNo parent, std::string_view name,
                                   uint32_t mode) = 0;
  virtual Result<Attributes> symlink(const Caller&, InodeNo parent, std::string_view name,
                                     std::string_view target) = 0;
  virtual Result<Attributes> link(const Caller&, InodeNo ino, InodeNo newParent,
                                  std::string_view newName) = 0;
  virtual Status unlink(const Caller&, InodeNo parent, std::string_view name) = 0;
  virtual Status rmdir(const Caller&, InodeNo parent, std::string_view name) = 0;
  // flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT
  virtual Status rename(const Caller&, InodeNo parent, std::string_view name, InodeNo newParent,
                        std::string_view newName, uint32_t flags) = 0;
  virtual Result<std::string> readlink(InodeNo ino) = 0;

  // ---- attributes ----
  virtual Result<Attributes> getattr(InodeNo ino) = 0;
  virtual Result<Attributes> setattr(const Caller&, InodeNo ino, const AttributeChange& change) = 0;
  virtual StatfsReply statfs() = 0;
  virtual Status setxattr(const Caller&, InodeNo ino, std::string_view name, std::string_view value,
                          int flags) = 0;  // XATTR_CREATE, XATTR_REPLACE
  virtual Result<std::string> getxattr(InodeNo ino, std::string_view name) = 0;
  virtual Result<std::string> listxattr(InodeNo ino) = 0;  // names, each with its NUL
  virtual Status removexattr(const Caller&, InodeNo ino, std::string_view name) = 0;

  // ---- open files ---- (flags: O_*)
  virtual Result<OpenFilePtr> open(InodeNo ino, int flags) = 0;
  virtual Result<std::pair<Attributes, OpenFilePtr>> create(const Caller&, InodeNo parent,
                                                            std::string_view name, uint32_t mode,
                                                            int flags) = 0;
  virtual Result<std::pair<Attributes, OpenFilePtr>> tmpfile(const Caller&, InodeNo parent,
                                                             uint32_t mode, int flags) = 0;
  virtual void release(OpenFilePtr file) = 0;
  virtual Status flush(OpenFile& file) = 0;  // close(2): reports background errors
  virtual Status fsync(OpenFile& file, bool dataOnly) = 0;
  virtual Result<ByteCount> read(OpenFile& file, FileOffset pos, std::span<std::byte> into) = 0;
  virtual Result<ByteCount> write(OpenFile& file, FileOffset pos, std::span<const std::byte> from,
                                  FileData::WriteFlags flags) = 0;
  virtual Status fallocate(OpenFile& file, int mode, FileOffset pos, ByteCount length) = 0;
  virtual Result<FileOffset> lseek(OpenFile& file, FileOffset pos, int whence) = 0;
  virtual Result<ByteCount> copyRange(OpenFile& from, FileOffset fromPos, OpenFile& to,
                                      FileOffset toPos, ByteCount length) = 0;

  // ---- directories ----
  virtual Result<OpenFilePtr> openDirectory(InodeNo ino) = 0;
  // From `cookie` (0: the start, with "." and ".."), until `take` answers false. `plus`: with
  // attributes; an entry that was taken counts as a lookup (not "." and "..").
  virtual Status readDirectory(OpenFile& directory, uint64_t cookie, bool plus,
                               const std::function<bool(const DirectoryEntry&)>& take) = 0;
  virtual Status fsyncDirectory(OpenFile& directory) = 0;

  // SYNCFS: all data, names and attributes are durable. Tells once what background writeback lost.
  virtual Status syncAll() = 0;
  virtual std::string stats(bool json) = 0;  // `ourfs stats`
  // For tests of a live mount: every map of this file's data that a thread holds becomes stale.
  // ENOENT if none of it is in core.
  virtual Status makeMapsStale(InodeNo ino) = 0;
  virtual Volume& volume() = 0;
  virtual FileData& data() = 0;
};

}  // namespace ourfs
