// FileData: the data of regular files: mapping, allocation, size, and everything that changes them.
// Implements what iomap/ and writeback/ ask of a filesystem.
//
// Where a block goes: Hole -> Delalloc at write() (a reservation) -> Unwritten in core, not stored,
// when writeback allocates -> Mapped, stored, in the ioend's transaction. fallocate and direct
// writes use Unwritten that is stored. Locks that the caller holds are named per function; see
// inode.h for the order.
#pragma once

#include <memory>

#include "fs/inode.h"
#include "fs/volume.h"
#include "iomap/operations.h"
#include "writeback/writeback.h"

namespace ourfs {

struct FileDataOptions {
  ByteCount cacheLimit{256 * MiB};
  WritebackOptions writeback;
};

class FileData : public IomapOps, public WritebackOps {
 public:
  FileData(Volume& volume, InodeTable& inodes, const FileDataOptions& options);
  ~FileData() override;

  // The mapping of a regular file, with its extents loaded from the index.
  Result<std::shared_ptr<Mapping>> mappingOf(Inode& inode);

  // ---- operations; each takes the locks it needs, the caller holds none ----
  Result<ByteCount> read(Inode& inode, FileOffset pos, std::span<std::byte> into);
  struct WriteFlags {
    bool fromKernelCache = false;  // a store of the kernel's page cache (mmap, writeback cache)
    bool mayExtend = true;         // fromKernelCache: the kernel owns the size
    bool append = false;           // O_APPEND: the position is i_size, taken under the inode lock
    bool direct = false;           // O_DIRECT
    bool killPrivileges = false;   // clear setuid, setgid and security.capability
  };
  Result<ByteCount> write(Inode& inode, FileOffset pos, std::span<const std::byte> from,
                          WriteFlags flags);
  // Writes back, waits, and makes durable. `dataOnly`: fdatasync. Errors of earlier background
  // writeback are in Mapping::errors; whoever has an open file asks there, with its cursor.
  Status fsync(Inode& inode, bool dataOnly);
  Status flushRange(Inode& inode, FileOffset from,
                    FileOffset to);  // data written back, not durable
  Status fallocate(Inode& inode, int mode, FileOffset pos, ByteCount length);  // FALLOC_FL_*
  Result<FileOffset> seek(Inode& inode, FileOffset pos, bool data);  // SEEK_DATA, SEEK_HOLE
  // The extents as the index and the cache have them (the `ourfs extents` command).
  Result<std::vector<Extent>> extents(Inode& inode);

  // ---- for the namespace; the caller holds inode.lock exclusively ----
  // Sets i_size, zeroes tails, frees blocks, in bounded transactions. Sets mtime and ctime if
  // `touch`.
  Status truncate(Inode& inode, FileOffset size, bool touch);
  // Writes the inode's record if attrDirty. Returns when committed, not when durable.
  Status commitAttributes(Inode& inode);
  // Frees what an unlinked inode has: extents and attributes, in bounded steps. The caller has made
  // sure that nobody uses it.
  Status reclaimContents(Inode& inode);
  // Erases the records and orphan keys of at most kRecordsPerStep inodes that have nothing any
  // more, in one transaction. Nobody uses them.
  static constexpr size_t kRecordsPerStep = 64;
  Status eraseRecords(std::span<const InodePtr> inodes);
  // Forgets the cached data of an inode that leaves the table. REQUIRES: clean.
  void drop(Inode& inode);

  // sync(2), syncfs(2), unmount: all data and attributes of all inodes, then the journal with a
  // device flush.
  Status syncAll();

  FolioPool& pool();
  Writeback& writeback();
  MappingCounters& counters();

  // ---- IomapOps ----
  Result<Iomap> begin(Mapping& mapping, FileOffset pos, ByteCount length,
                      IomapIntent intent) override;
  Status end(Mapping& mapping, const Iomap& map, FileOffset pos, ByteCount done,
             IomapIntent intent) override;
  void punchDelalloc(Mapping& mapping, FileOffset from, FileOffset to) override;
  // ---- WritebackOps ----
  Result<Iomap> mapForWriteback(Mapping& mapping, FileOffset pos, ByteCount length) override;
  Result<std::shared_ptr<void>> prepare() override;
  void written(Mapping& mapping) override;
  Status finish(Ioend& ioend) override;
  void abort(Ioend& ioend) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ourfs
