// A unit: the piece of an index file that carries a header with a checksum. Units fill the file's
// blocks in order. A Sync ends the unit it is in, and the next one begins a new unit, so that bytes
// that are already durable are never written again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/result.h"
#include "common/units.h"
#include "format.h"

namespace ourfs {

inline constexpr uint64_t kUnitHeader = sizeof(UnitHeader);
constexpr uint64_t unitSizeFor(uint32_t blockSize) {
  return blockSize < kMaxUnit ? blockSize : kMaxUnit;
}

// The seed of all checksums of one volume's index.
uint32_t seedOf(uint64_t tableId);

// Fills in the header and zeroes what lies behind the payload. REQUIRES: the payload is in place.
void sealUnit(std::span<std::byte> unit, uint64_t fileId, uint32_t number, uint64_t length,
              uint32_t seed);
// EUCLEAN with one line unless it is exactly the unit that was written there.
Status checkUnit(std::span<const std::byte> unit, uint64_t fileId, uint32_t number, uint64_t length,
                 uint32_t seed);

// ---- salvage ----
// What a unit says of itself. The seed is the one with which its checksum would be right: bytes
// that were never a unit get one, too, but any, and not that of others.
struct UnitClaim {
  uint64_t fileId = 0;
  uint32_t number = 0;
  uint32_t crc = 0, seed = 0;
  uint16_t length = 0;
};
// Nothing if these bytes cannot be a unit, whatever the seed. A byte of the rest costs a step.
std::optional<UnitClaim> claimOf(std::span<const std::byte> unit);
// Of all table ids that have this seed, the one whose lower half is 0.
uint64_t tableIdOf(uint32_t seed);

}  // namespace ourfs
