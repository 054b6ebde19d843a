// FileData's inside: what its source files share.
#pragma once

#include <sys/stat.h>

#include <ctime>
#include <optional>

#include "fs/file_data.h"

namespace ourfs {

// A Mapping that finds its way back to its inode, for ioends.
class FileMapping : public Mapping, public std::enable_shared_from_this<FileMapping> {
 public:
  using Mapping::Mapping;
  std::weak_ptr<Inode> owner;  // constant once the mapping is published
  // Data writes that completed, and how many of them a device flush covers: an fsync with nothing
  // new spares its flush. The first one stands for those of a former mapping of the same file.
  std::atomic<uint64_t> writesDone{1}, writesFlushed{0};
  // The file was cut within a block: the zeros behind its end may be in the cache alone, and old
  // bytes on disk. They are written before a larger size can be stored.
  std::atomic<bool> cutTail{false};
};

inline Timestamp now() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return {t.tv_sec, static_cast<uint32_t>(t.tv_nsec)};
}

struct FileData::State {
  State(FileData& self, Volume& volume, InodeTable& inodes, const FileDataOptions& options);
  // Stops writeback and drops what is cached: after it nothing refers to a mapping.
  ~State();

  uint64_t blockOf(uint64_t bytes) const { return bytes / blockSize; }
  BlockCount blocksOf(ByteCount bytes) const { return BlockCount(bytes.v / blockSize); }
  BlockRun runOf(const Extent& e) const {
    return {BlockNo(blockOf(e.address.v)), blocksOf(e.length)};
  }
  FileOffset blockDown(FileOffset pos) const { return FileOffset(roundDown(pos.v, blockSize)); }
  FileOffset blockUp(FileOffset pos) const { return FileOffset(roundUp(pos.v, blockSize)); }

  // ENOSPC if the index could not take the extents that a new promise of space will bring.
  Status admitGrowth();

  // The keys that a change of the map asks for; and the space that it gave up.
  void recordDelta(Transaction& t, InodeNo ino, const ExtentDelta& delta) const;
  void releaseReplaced(Transaction& t, const ExtentDelta& delta);
  // Gives back the allocated space in the range that never got to the index.
  void freeUnstored(Mapping& mapping, FileOffset from, FileOffset to);

  // Adds the inode's record to `t` and commits. The extent mutex orders the log like the map.
  struct InodeUpdate {
    std::optional<uint64_t> storedSize;
    bool touch = false;  // mtime and ctime become now
  };
  Status commitWithInode(Inode& inode, FileMapping& mapping, Transaction t,
                         TransactionLog::Room room, const InodeUpdate& update)
      REQUIRES(mapping.extents.mutex());

  // Removes what [from, to) maps, in bounded transactions, last extents first, so that a crash in
  // between leaves a shorter file and never blocks behind its end. `shrinkTo`: the size goes along.
  // REQUIRES: inode and invalidate held exclusively, no folio over whole blocks of the range.
  Status removeExtents(Inode& inode, FileMapping& mapping, FileOffset from, FileOffset to,
                       std::optional<FileOffset> shrinkTo, bool touch);
  // Puts stored Unwritten extents behind the holes of [from, to). ENOSPC before anything changes.
  Status fillHoles(Inode& inode, FileMapping& mapping, FileOffset from, FileOffset to);

  // Bytes between the old EOF and its block's end become zero before the file grows past them.
  Status zeroEofTail(FileMapping& mapping, FileOffset upTo);
  // Between a write and its ioend, the block at EOF is dirty or in writeback, and the ioend stores
  // the size. Whatever drops dirty data below EOF stores the size itself, or fsync would find
  // nothing to write and leave the old one. First what lies before `upTo` is written, so that no
  // size is stored that would show zeros instead of it. REQUIRES: invalidate held exclusively.
  Status flushUnstored(FileMapping& mapping, FileOffset upTo);
  // Writes the block in which the file was cut, if it was: before anything makes the file larger.
  // REQUIRES: inode held exclusively, or invalidate shared: no truncate cuts it again meanwhile.
  Status flushCutTail(FileMapping& mapping);
  Status storeSize(Inode& inode, FileMapping& mapping, FileOffset size, bool touch);
  // The part of truncate that fallocate shares: the caller holds inode and invalidate.
  Status growTo(Inode& inode, FileMapping& mapping, FileOffset size, bool touch);

  Status punch(Inode& inode, FileMapping& mapping, FileOffset pos, ByteCount length);
  Status convertDirect(FileMapping& mapping, FileOffset pos, ByteCount length);
  Status killPrivileges(Inode& inode);
  void touchModified(Inode& inode);

  FileData& self;
  Volume& volume;
  InodeTable& inodes;
  const uint32_t blockSize;
  FolioPool pool;
  MappingCounters counters;
  std::unique_ptr<Writeback> writeback;
  IoContext io;
};

}  // namespace ourfs
