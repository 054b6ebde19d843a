// FlushPass: one walk over the dirty folios of a file, that maps them and sends them to the device.
//
// Locks: one folio at a time; the extent lock only inside WritebackOps. While it waits (for a
// transaction's space, for a slot, for the writeback of a folio) it holds no folio lock, and no I/O
// that it has put together but not submitted, since others may be waiting for the folios of that.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ioend_queue.h"
#include "writeback/writeback.h"

namespace ourfs {

struct FlushContext {
  BlockDevice& device;
  WritebackOps& ops;
  IoendQueue& ioends;
  ByteCount ioSize;
  uint32_t maxInFlight;
};

// What a flush wants: everything, waiting for folios that are in writeback, or a slice of what is
// easy.
struct FlushGoal {
  FileOffset from, to;
  bool sync = true;
  ByteCount budget{UINT64_MAX};
};

class FlushPass {
 public:
  FlushPass(const FlushContext& context, std::shared_ptr<DirtyFile> file,
            std::shared_ptr<FlushWindow> window, const FlushGoal& goal);

  // Submits everything it found; does not wait for the I/O.
  void run();
  ByteCount started() const { return started_; }  // bytes
  uint64_t nextIndex() const { return index_; }   // of the first folio that it did not look at
  bool more() const { return more_; }             // the budget ended before the file

 private:
  // A run of dirty blocks of the folio at hand that goes into one I/O.
  struct Run {
    uint32_t from = 0, to = 0;  // blocks
    DeviceOffset address;
    IomapType type = IomapType::Mapped;
    bool boundary = false, commit = false;
    Status status;
  };
  enum class Outcome { Done, Again, Reserve };

  Outcome visit();
  Outcome writeFolio(LockedFolio& folio);
  void planRuns(LockedFolio& folio, uint32_t liveBlocks, FileOffset size);
  size_t affordable(FileOffset base, uint32_t blockSize) const;
  void startFolio(LockedFolio& folio, size_t runs, FileOffset size);
  void append(const LockedFolio& folio, const Run& run, FileOffset size,
              const std::shared_ptr<FolioShare>& share);

  Status mapAt(FileOffset pos);
  ByteCount dirtyRunAt(FileOffset pos);
  bool joins(const WriteIo& io, const Run& run, FileOffset pos, ByteCount length) const;
  void open(const Run& run, FileOffset pos, FileOffset size);
  void close();
  void submitReady();
  void submit(const std::shared_ptr<WriteIo>& io);
  void reserve();

  const FlushContext& context_;
  const std::shared_ptr<DirtyFile> file_;
  Mapping& mapping_;
  const std::shared_ptr<FlushWindow> window_;
  const FlushGoal goal_;
  const uint64_t endIndex_;
  uint64_t index_;
  ByteCount started_;
  bool more_ = false;

  Iomap map_;                      // of the last mapAt
  FileOffset runEnd_;              // dirty folios go on until here, when looked at last
  std::vector<Run> runs_;          // of the folio at hand
  std::shared_ptr<WriteIo> open_;  // still growing
  std::vector<std::shared_ptr<WriteIo>> ready_;
  std::shared_ptr<void> reservation_;  // for the next I/O that needs one
  Status reserveFailed_;
};

}  // namespace ourfs
