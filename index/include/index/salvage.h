// IndexSalvage: the keys and values of an index that does not open: as many as can be read.
//
// It goes without RocksDB, which would refuse, or abort: the file table names the tables, and a
// table is read block by block. If the file table is lost, the whole device is read: every unit of
// an index file says which file it belongs to, and where. A block that is damaged costs the keys
// that it holds. Of a key that several tables hold the one with the highest sequence number counts.
// A MANIFEST says which tables were in use. Without one all count, and a compaction may have taken
// the sequence numbers from the newer ones: then what was there before the table was made is older.
//
// Reads only. Holds all keys in memory: their bytes and values, and 24 bytes each.
// Threads: one.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "block/block_device.h"
#include "index/batch.h"
#include "index/index.h"

namespace ourfs {

class IndexSalvage {
 public:
  // One line of what could not be read.
  using Note = std::function<void(const std::string&)>;

  // Block size and volume size, as the file table has them, for a volume that has lost its
  // superblocks. `guess`: where the table would be; only its place is looked at. EUCLEAN if no
  // slot has an intact snapshot there.
  static Result<IndexGeometry> findGeometry(BlockDevice& device, const IndexGeometry& guess);

  // EUCLEAN if there is no file table to be read, and no file of the index on the device; anything
  // else that is missing is noted. Without a file table only the size of a unit is taken from the
  // geometry's block size: 4096 does for all larger ones.
  static Result<std::unique_ptr<IndexSalvage>> read(
      BlockDevice& device, const IndexGeometry& geometry, const Note& note,
      const std::function<void(ByteCount done, ByteCount total)>& progress);

  // A transaction newer than everything so far. A key of several changes takes the last.
  void apply(const IndexBatch& batch);
  // REQUIRED before the calls below, after the last apply().
  void settle();

  std::optional<std::string_view> get(std::string_view key) const;
  // In order, until `each` answers false.
  void scan(std::string_view prefix,
            const std::function<bool(std::string_view key, std::string_view value)>& each) const;
  // Where replay begins; none if that was lost.
  std::optional<AppliedPosition> persisted() const;
  // None if the file table was lost.
  const std::vector<BlockRun>& ownedBlocks() const { return owned_; }
  // If the file table was lost: the first place of the index on the device.
  std::optional<DeviceOffset> foundAt() const { return foundAt_; }
  bool complete() const { return complete_; }  // nothing had to be noted

 private:
  struct Entry {
    const char* bytes = nullptr;  // key, then value
    uint32_t keySize = 0, valueSize = 0;
    uint64_t order = 0;  // sequence number * 256, or zeroOrder_; + 1 for a put
    std::string_view key() const { return {bytes, keySize}; }
    std::string_view value() const { return {bytes + keySize, valueSize}; }
  };
  IndexSalvage() = default;
  void rankNextTable();
  void add(std::string_view key, std::string_view value, uint64_t sequence, bool isPut);
  std::vector<Entry>::const_iterator lowerBound(std::string_view key) const;

  std::vector<std::unique_ptr<char[]>> arena_;
  size_t arenaLeft_ = 0;
  char* arenaNext_ = nullptr;
  std::vector<Entry> entries_;
  uint64_t nextSequence_ = 0;
  uint64_t zeroOrder_ = 0;  // of entries without a sequence number; the lowest bit is 0
  std::vector<BlockRun> owned_;
  std::optional<DeviceOffset> foundAt_;
  bool complete_ = true;
};

}  // namespace ourfs
