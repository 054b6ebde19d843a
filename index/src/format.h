// The bytes of the index on the volume, apart from what RocksDB writes into its files.
// All integers are little-endian. docs/format.md says the same in prose.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ourfs {

// ---- file table ----
// slot  := SlotHeader body padding-to-4096 { delta }
// delta := DeltaHeader operations padding-to-4096
inline constexpr uint32_t kSlotMagic = 0x5446524f;   // "ORFT"
inline constexpr uint32_t kDeltaMagic = 0x4446524f;  // "ORFD"
inline constexpr uint32_t kTableVersion = 1;
inline constexpr uint64_t kTableSector = 4096;  // a delta begins at a multiple of it
inline constexpr uint64_t kInlineLimit = 4096;  // a file of up to so many bytes lives in the table

struct SlotHeader {
  uint32_t magic;
  uint32_t crc;  // of everything behind it, to the end of the body
  uint32_t version;
  uint32_t blockSize;
  uint64_t sequence;    // higher is newer; even in slot 0, odd in slot 1
  uint64_t tableId;     // random, chosen at mkfs; seeds the checksums of deltas and units
  uint64_t bodyLength;  // bytes
  uint64_t nextId;      // of files
  uint64_t volumeSize;
  uint64_t reserved;
};
static_assert(sizeof(SlotHeader) == 64);
static_assert(offsetof(SlotHeader, version) == 8);
static_assert(offsetof(SlotHeader, sequence) == 16);
static_assert(offsetof(SlotHeader, volumeSize) == 48);

struct DeltaHeader {
  uint32_t magic;
  uint32_t crc;  // of everything behind it, to the end of the operations; seeded by the table id
  uint32_t previous;  // the crc of the snapshot or delta in front
  uint32_t length;    // of the operations, bytes
  uint64_t sequence;  // of the slot
  uint32_t index;     // 1 for the first behind the snapshot
  uint32_t reserved;
};
static_assert(sizeof(DeltaHeader) == 32);
static_assert(offsetof(DeltaHeader, previous) == 8);
static_assert(offsetof(DeltaHeader, sequence) == 16);

enum class TableOp : uint8_t {
  AddPool = 1,     // runs
  Create = 2,      // id name
  Append = 3,      // id bytes runs
  SetInline = 4,   // id name bytes
  Rename = 5,      // id name
  Remove = 6,      // id
  Closed = 7,      // sequence of the slot that took over
  RemovePool = 8,  // runs
};

// ---- files ----
// unit := UnitHeader payload zeros; min(block size, 4096) bytes
inline constexpr uint64_t kMaxUnit = 4096;

struct UnitHeader {
  uint32_t crc;     // of the rest of the unit; seeded by the table id
  uint16_t length;  // of the payload, bytes
  uint16_t fileHigh;
  uint32_t fileLow;  // file id: fileHigh << 32 | fileLow
  uint32_t number;   // of the unit in its file
};
static_assert(sizeof(UnitHeader) == 16);

}  // namespace ourfs
