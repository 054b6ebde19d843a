// Which bytes of a volume are metadata, and which of them something depends on.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "block/block_device.h"
#include "fs/superblock.h"

namespace ourfs::images {

enum class Part : uint8_t {
  Superblock,  // both copies
  Table,       // the current slot of the file table, without its last delta
  TableEnd,    // that delta: without it the table is the one before, and the journal makes it good
  Journal,     // records that are replayed and that a later one proves
  LogEnd,      // the records behind them: one that is damaged is taken for a torn write
  Index,  // units of the MANIFEST that CURRENT names, and of the tables that it names; a crash also
          // leaves files that RocksDB throws away when it opens
  Dead,   // everything else: what is not written yet, or not valid any more
};
inline constexpr size_t kParts = 7;
const char* partName(Part part);

struct Piece {
  uint64_t start = 0, end = 0;  // bytes of the volume
  Part part = Part::Dead;
};

// The log, as only an open volume knows it: what a mount replays is [tail, end).
struct LogRange {
  uint64_t tail = 0, end = 0;
};

class MetadataMap {
 public:
  // Null if the metadata cannot be read.
  static std::optional<MetadataMap> of(BlockDevice& device, const LogRange& log);

  const std::vector<Piece>& live() const { return live_; }  // in order, without Dead
  // All metadata: superblocks to journal, and the index's pool.
  const std::vector<Piece>& regions() const { return regions_; }
  Part partAt(uint64_t byte) const;
  // Where the units of the MANIFEST begin, in its order.
  const std::vector<uint64_t>& manifest() const { return manifest_; }

 private:
  void addTable(BlockDevice& device, const Superblock& s, unsigned slot);
  bool addJournal(BlockDevice& device, const Superblock& s, const LogRange& log);
  void addRing(const Superblock& s, uint64_t lsn, uint64_t length, Part part);

  std::vector<Piece> live_, regions_;
  std::vector<uint64_t> manifest_;
};

}  // namespace ourfs::images
