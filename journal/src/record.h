// Building and checking the bytes of one record. journal/format.h has the layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/units.h"
#include "journal/format.h"
#include "journal/journal.h"

namespace ourfs {

// What a record with so much payload takes in the log, padding included.
constexpr uint64_t recordBytes(uint64_t payload) {
  return roundUp(sizeof(RecordHeader) + payload, kRecordAlignment);
}

// The largest payload of a record in this ring; replay takes a longer one for garbage.
uint64_t maxPayloadBytes(const JournalGeometry& geometry);

// Empty, or what is wrong with it.
std::string geometryFault(const BlockDevice& device, const JournalGeometry& geometry);

// The checksum that belongs into `header.crc`, whatever is there now.
uint32_t recordCrc(RecordHeader header, std::span<const std::byte> payload);

}  // namespace ourfs
