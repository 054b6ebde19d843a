#include "unit.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/checksum.h"
#include "common/codec.h"
#include "common/sync_point.h"

namespace ourfs {

namespace {

uint32_t crcOf(std::span<const std::byte> unit, uint32_t seed) {
  return crc32c(unit.subspan(sizeof(uint32_t)), seed);
}

}  // namespace

uint32_t seedOf(uint64_t tableId) {
  return crc32c(std::as_bytes(std::span<const uint64_t>(&tableId, 1)));
}

uint64_t tableIdOf(uint32_t seed) {
  // What stands in the checksum of the lower half has to become what stands in front of four zeros.
  const std::array<std::byte, 4> zeros{};
  return uint64_t{crc32c(zeros) ^ crc32cSeed(zeros, seed)} << 32;
}

std::optional<UnitClaim> claimOf(std::span<const std::byte> unit) {
  UnitHeader header;
  std::memcpy(&header, unit.data(), sizeof header);
  UnitClaim claim;
  claim.fileId = uint64_t{header.fileHigh} << 32 | header.fileLow;
  claim.number = header.number;
  claim.length = header.length;
  claim.crc = header.crc;
  if (claim.fileId == 0 || claim.length == 0 || claim.length > unit.size() - kUnitHeader) return {};
  const auto rest = unit.subspan(kUnitHeader + claim.length);
  if (std::ranges::any_of(rest, [](std::byte b) { return b != std::byte{0}; })) return {};
  claim.seed = crc32cSeed(unit.subspan(sizeof header.crc), header.crc);
  return claim;
}

void sealUnit(std::span<std::byte> unit, uint64_t fileId, uint32_t number, uint64_t length,
              uint32_t seed) {
  UnitHeader header{};
  header.length = static_cast<uint16_t>(length);
  header.fileHigh = static_cast<uint16_t>(fileId >> 32);
  header.fileLow = static_cast<uint32_t>(fileId);
  header.number = number;
  std::memset(unit.data() + kUnitHeader + length, 0, unit.size() - kUnitHeader - length);
  std::memcpy(unit.data(), &header, sizeof header);
  header.crc = crcOf(unit, seed);
  std::memcpy(unit.data(), &header, sizeof header);
}

Status checkUnit(std::span<const std::byte> unit, uint64_t fileId, uint32_t number, uint64_t length,
                 uint32_t seed) {
  if (mutantEnabled("index.skip_block_checksum")) return Status::ok();
  UnitHeader header;
  std::memcpy(&header, unit.data(), sizeof header);
  const char* what = nullptr;
  if (header.crc != crcOf(unit, seed)) {
    what = "wrong checksum";
  } else if ((uint64_t{header.fileHigh} << 32 | header.fileLow) != fileId) {
    what = "it belongs to another file";
  } else if (header.number != number) {
    what = "it belongs to another place in the file";
  } else if (header.length != length) {
    what = "wrong length";
  }
  if (what == nullptr) return Status::ok();
  return Status::corrupt("index file " + std::to_string(fileId) + ", unit " +
                         std::to_string(number) + ": " + what);
}

}  // namespace ourfs
