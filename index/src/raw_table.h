// The inside of RocksDB's files, read without RocksDB, for salvage: tables (block-based format,
// version 5, keys in byte order) and MANIFESTs. Every byte is doubted: no bytes crash these.
//
// After RocksDB's documentation: "Rocksdb BlockBasedTable Format", "Block format" and "MANIFEST" of
// its wiki. RocksDB's own checksums are not looked at: units have ours. Why not by RocksDB itself:
// docs/adr/0004.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "common/result.h"

namespace ourfs {

struct RawEntry {
  std::string_view key, value;
  uint64_t sequence = 0;
  bool isPut = false;  // else a deletion
};

// Bytes [offset, offset + length) of a file.
using ReadBytes = std::function<Result<std::string>(uint64_t offset, uint64_t length)>;

struct RawTableCallbacks {
  std::function<void(const RawEntry&)> entry;
  std::function<void(const Status&)> damaged;  // a block is left out, and why
};
// An error if not even the table's index can be read. `partitioned`: whether that has two levels,
// in case the table's properties cannot be read.
Status readRawTable(uint64_t size, bool partitioned, const ReadBytes& read,
                    const RawTableCallbacks& callbacks);

// The number of the table that these are the bytes of; none if only its footer can be read. EUCLEAN
// if that is not there.
Result<std::optional<uint64_t>> numberOfRawTable(uint64_t size, const ReadBytes& read);

struct ManifestTables {
  std::set<uint64_t> inUse;  // numbers of tables
  uint64_t nextNumber = 0;   // files that it cannot know of have this one or a higher one
};
Result<ManifestTables> tablesOfManifest(std::string_view manifest);

// EUCLEAN unless `in` is one LZ4 block of exactly `size` bytes.
Result<std::string> lz4Decode(std::string_view in, size_t size);

}  // namespace ourfs
