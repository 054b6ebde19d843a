// IndexFile: one file of RocksDB on the volume, or in memory only.
//
// Where its bytes are: in the units of its blocks (Blocks), in the file table (Inline), or nowhere
// on the device (Volatile: WAL files, and with readOnly everything new).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "block/block_device.h"
#include "chunk_pool.h"
#include "common/aligned_buffer.h"
#include "common/mutex.h"
#include "file_table.h"
#include "io_group.h"
#include "unit.h"

namespace ourfs {

// What all files of one index share.
struct FileContext {
  BlockDevice& device;
  IndexGeometry geometry;
  FileTable& table;
  ChunkPool& pool;
  std::function<Status()> beforePersist;
  std::atomic<uint64_t> manifestSyncs{0};

  uint64_t unitSize() const { return unitSizeFor(geometry.blockSize); }
  uint64_t payload() const { return unitSize() - kUnitHeader; }
  uint64_t unitsPerBlock() const { return geometry.blockSize / unitSize(); }
};

// A fixed state of a file's blocks: answers where a byte is, reads and verifies.
// Threads: any; it does not change.
class FileReader {
 public:
  FileReader(FileContext& context, TableFile file);
  uint64_t size() const { return size_; }
  // Reads up to n bytes; fewer only at the end. EUCLEAN if a unit is not what was written.
  Result<size_t> read(uint64_t offset, size_t n, char* into) const;
  // All of them, or EUCLEAN.
  Result<std::string> readExactly(uint64_t offset, uint64_t length) const;
  // Every unit. `read` is told of the bytes of each piece that was read.
  Status verify(const std::function<void(uint64_t)>& read) const;

 private:
  struct Place {
    uint64_t unit;
    uint64_t offset;  // in its payload
  };
  Place find(uint64_t offset) const;
  uint64_t lengthOf(uint64_t unit) const;  // of its payload
  Status readUnits(uint64_t first, uint64_t count, AlignedBuffer& into) const;

  FileContext& context_;
  const TableFile file_;
  uint64_t size_ = 0;
  std::vector<uint64_t> segmentByte_, segmentUnit_;  // where each begins
  std::vector<uint64_t> runBlock_;
};

// Calls `each` with the pieces of units [first, first + count) that are contiguous on the device.
// REQUIRES: the runs hold them.
void forEachPiece(const FileContext& context, const std::vector<BlockRun>& runs, uint64_t first,
                  uint64_t count,
                  const std::function<void(DeviceOffset at, uint64_t unit, uint64_t units)>& each);

enum class FileKind { Blocks, Inline, Volatile };

class IndexFile {
 public:
  IndexFile(FileContext& context, FileKind kind, uint64_t id, std::string name);
  IndexFile(FileContext& context, TableFile known);  // from the table

  FileKind kind() const { return kind_; }
  uint64_t id() const { return id_; }
  std::string name() const;
  uint64_t size() const;
  std::shared_ptr<const FileReader> reader() const;                // Blocks
  size_t readMemory(uint64_t offset, size_t n, char* into) const;  // Inline, Volatile

  // ---- writing; one writer at a time ----
  void appendMemory(std::string_view bytes);
  Status syncInline();
  // The writer has put `bytes` more on the device, in `runs`, behind what was there.
  Status extend(uint64_t bytes, const std::vector<BlockRun>& runs);
  Status recordExtent();  // tells the table of what extend() brought
  Status renamed(const std::string& name);
  // Forgets its blocks; later writes fail.
  Status removed();

 private:
  FileContext& context_;
  const FileKind kind_;
  const uint64_t id_;
  mutable Mutex mu_;
  TableFile file_ GUARDED_BY(mu_);
  bool inTable_ GUARDED_BY(mu_) = false;
  bool removed_ GUARDED_BY(mu_) = false;
  uint64_t newBytes_ GUARDED_BY(mu_) = 0;  // extended, not recorded
  std::vector<BlockRun> newRuns_ GUARDED_BY(mu_);
};

}  // namespace ourfs
