// The bytes of a journal record. Little-endian. docs/format.md says the same in prose.
//
//   record := header payload padding-to-8
//
// The next record starts where this one ends, or, if it belongs to a later journal write, at the
// next sector boundary. It carries this one's crc as `previousCrc`, which makes the chain.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ourfs {

inline constexpr uint32_t kRecordMagic = 0x4a52554fu;  // "OURJ"
inline constexpr uint64_t kRecordAlignment = 8;

struct RecordHeader {
  uint32_t magic = kRecordMagic;
  uint32_t crc = 0;  // crc32c of the header with this field zero, then the payload
  uint32_t payloadLength = 0;
  uint32_t previousCrc = 0;  // crc of the record before
  uint64_t lsn = 0;          // of this header's first byte
  uint64_t generation = 0;   // of the mount that wrote it
  uint64_t durableLsn = 0;   // what was known durable when it was appended
  uint32_t flags = 0;        // none defined; anything else breaks the chain
  uint32_t reserved = 0;
};
static_assert(sizeof(RecordHeader) == 48);
static_assert(offsetof(RecordHeader, crc) == 4);
static_assert(offsetof(RecordHeader, payloadLength) == 8);
static_assert(offsetof(RecordHeader, previousCrc) == 12);
static_assert(offsetof(RecordHeader, lsn) == 16);
static_assert(offsetof(RecordHeader, generation) == 24);
static_assert(offsetof(RecordHeader, durableLsn) == 32);
static_assert(offsetof(RecordHeader, flags) == 40);

}  // namespace ourfs
