// TestVolume: the filesystem below writeback, in small: an allocator, extent maps, no metadata on
// disk. A file's content is what its extent map and the device say. Every rule that a filesystem
// could see broken is checked and kept in violations().
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "block/fault_device.h"
#include "block/memory_device.h"
#include "block/record_device.h"
#include "common/sync_point.h"
#include "iomap/operations.h"
#include "writeback/writeback.h"

namespace ourfs::test {

// Copies what a write brings before it passes it on: writers may change a folio during its
// writeback, and the thread sanitizer must not see the device read it.
class CopyingDevice : public BlockDevice {
 public:
  using Watch = std::function<void(DeviceOffset, ByteCount)>;
  CopyingDevice(BlockDevice& inner, Watch submitted, Watch written)
      : inner_(inner), submitted_(std::move(submitted)), written_(std::move(written)) {}
  void submit(IoRequest request) override;
  ByteCount size() const override { return inner_.size(); }
  uint32_t logicalSector() const override { return inner_.logicalSector(); }
  uint32_t physicalSector() const override { return inner_.physicalSector(); }
  bool readOnly() const override { return false; }
  std::string name() const override { return "copying"; }

 private:
  BlockDevice& inner_;
  const Watch submitted_, written_;  // of data writes; those that failed were not written
};

struct VolumeOptions {
  uint32_t blockSize = 4096;
  ByteCount size{64 * MiB};
  ByteCount cacheLimit{16 * MiB};
  uint64_t largestPiece = UINT64_MAX;  // blocks that one allocation gives
  int reservations = 1000;             // how many prepare() gives at a time
  bool recording = true;
};

struct FinishedIo {
  FileOffset offset;
  ByteCount length;
  FileOffset newSize;
};

class TestVolume : public IomapOps, public WritebackOps {
 public:
  explicit TestVolume(const VolumeOptions& options = {});
  ~TestVolume() override;

  std::shared_ptr<Mapping> newFile();
  // A writer that locks first and maps second: never stale. Tells no writeback.
  Status store(Mapping& mapping, uint64_t pos, const std::string& data);
  void truncate(Mapping& mapping, uint64_t size);
  void preallocate(Mapping& mapping, uint64_t length);  // of an empty file: one Unwritten extent
  void punch(Mapping& mapping, uint64_t from, uint64_t to);      // whole blocks
  void freeRange(Mapping& mapping, uint64_t from, uint64_t to);  // whole blocks, nothing cached
  void freeBehind(Mapping& mapping, uint64_t size);              // the volume's part of a truncate
  std::string onDisk(Mapping& mapping);                          // up to i_size, past the cache
  // What is not zero behind the end of the file in its last block on disk; "" if all is.
  std::string behindTheEnd(Mapping& mapping);
  std::string content(Mapping& mapping);  // through the cache
  Extent extentAt(Mapping& mapping, uint64_t pos);
  std::vector<Extent> extents(Mapping& mapping);

  uint64_t freeBlocks() const;
  int reservationsHeld() const;
  void waitForReserver();            // until a prepare() waits for a reservation
  void allowReservations(int more);  // beyond options.reservations
  std::vector<FinishedIo> finished() const;
  std::vector<std::string> violations() const;
  // Dirty and not in the middle of anything: each dirty block has space behind it.
  std::string dirtyWithoutSpace(Mapping& mapping);
  std::vector<RecordedIo> dataWrites() const;
  void failMaps(int errnum) { mapError_ = errnum; }
  void failPrepare(int errnum) { prepareError_ = errnum; }
  void failFinish(int errnum) { finishError_ = errnum; }
  IoContext io(DirtiedHook hook = [](Mapping&) {}) { return {device, *this, std::move(hook)}; }

  Result<Iomap> begin(Mapping& mapping, FileOffset pos, ByteCount length,
                      IomapIntent intent) override;
  Status end(Mapping& mapping, const Iomap& map, FileOffset pos, ByteCount done,
             IomapIntent intent) override;
  void punchDelalloc(Mapping& mapping, FileOffset from, FileOffset to) override;
  Result<Iomap> mapForWriteback(Mapping& mapping, FileOffset pos, ByteCount length) override;
  Result<std::shared_ptr<void>> prepare() override;
  Status finish(Ioend& ioend) override;
  void abort(Ioend& ioend) override;

  // Holds the next data writes (that touch `at`) until released.
  int holdWrites(uint64_t times = 1, std::optional<DeviceOffset> at = {});
  int failWrites(int errnum, uint64_t times = 1);
  void waitForHeld(uint64_t count);

  const VolumeOptions options;
  const std::unique_ptr<MemoryDevice> memory;
  const std::unique_ptr<RecordDevice> record;
  const std::unique_ptr<FaultDevice> fault;
  CopyingDevice device;
  FolioPool pool;
  MappingCounters counters;

 private:
  ByteCount bytes(uint64_t blocks) const { return ByteCount(blocks * options.blockSize); }
  Iomap toMap(Mapping& mapping, const Extent& extent) const;
  DeviceOffset allocate(uint64_t want, uint64_t& got);  // blocks
  void dataSubmitted(DeviceOffset at, ByteCount length);
  void dataWritten(DeviceOffset at, ByteCount length);
  void release(const Extent& extent);
  void setHole(Mapping& mapping, FileOffset from, FileOffset to) REQUIRES(mapping.extents.mutex());
  void fillEdges(Mapping& mapping, LockedFolio& folio, uint32_t from, uint32_t to);
  Status storeInFolio(Mapping& mapping, uint64_t pos, std::string_view data);
  void violated(const std::string& what);
  void checkDataFirst(const Ioend& ioend, DeviceOffset address, ByteCount length);

  mutable std::mutex mutex_;
  std::condition_variable reservationFreed_;
  std::set<uint64_t> free_;     // block numbers; the lowest first: freed ones are used again soon
  std::set<uint64_t> written_;  // since they were allocated
  uint64_t cursor_ = 0;         // where the next piece may begin, if pieces are small
  int held_ = 0, waiting_ = 0, more_ = 0;  // reservations
  std::vector<FinishedIo> finished_;
  std::vector<std::string> violations_;
  std::atomic<int> mapError_{0}, prepareError_{0}, finishError_{0};
  std::atomic<uint64_t> nextIno_{10};
};

std::string pattern(uint64_t seed, size_t length);  // no zero byte in it

}  // namespace ourfs::test
