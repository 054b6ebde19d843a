// BlockWriter: appends to a file in blocks, in large writes.
//
// Bytes gather in a private buffer of units; full buffers go to the device. sync() ends the last
// unit. The caller owns it alone.
#pragma once

#include <string_view>

#include "common/aligned_buffer.h"
#include "index_file.h"

namespace ourfs {

class BlockWriter {
 public:
  BlockWriter(FileContext& context, std::shared_ptr<IndexFile> file);
  Status append(std::string_view bytes);
  // Everything appended so far is on the device (not flushed), the last unit ended.
  Status writeOut();
  // writeOut, and the file's new size is in the table's next sync. For a MANIFEST that sync is part
  // of it, after beforePersist.
  Status sync();
  uint64_t size() const { return size_; }

 private:
  Status writeUnits(uint64_t count);
  Result<std::vector<BlockRun>> allocate(uint64_t blocks);
  Status syncManifest();

  FileContext& context_;
  const std::shared_ptr<IndexFile> file_;
  const bool isManifest_;
  AlignedBuffer buffer_;
  uint64_t bufferUnits_ = 0;  // capacity
  uint64_t fullUnits_ = 0;    // in the buffer
  uint64_t fill_ = 0;         // payload bytes in the unit behind them
  uint64_t unitsWritten_ = 0;
  uint64_t blocks_ = 0;         // allocated
  std::vector<BlockRun> runs_;  // of the whole file
  uint64_t size_ = 0;
};

}  // namespace ourfs
