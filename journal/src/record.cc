#include "record.h"

#include <algorithm>

#include "common/checksum.h"

namespace ourfs {

namespace {
// Room for the largest record beside two part-filled sectors, with one sector of slack.
constexpr uint64_t kMinSectors = 8;
constexpr uint64_t kMaxSector = MiB;   // what the buffers for reading and writing hold
constexpr uint64_t kMaxPayload = GiB;  // payloadLength is a u32
}  // namespace

uint64_t maxPayloadBytes(const JournalGeometry& geometry) {
  return std::min(geometry.size.v / 4, kMaxPayload);
}

std::string geometryFault(const BlockDevice& device, const JournalGeometry& geometry) {
  const uint64_t sector = geometry.sector;
  if (!isPowerOfTwo(sector) || sector < device.logicalSector() || sector > kMaxSector) {
    return "bad sector size";
  }
  if (!isAligned(geometry.start.v, sector)) return "ring start is not aligned";
  if (!isAligned(geometry.size.v, sector)) return "ring size is not a multiple of the sector";
  if (geometry.size.v < kMinSectors * sector) return "ring is too small";
  if (geometry.size.v > device.size().v || geometry.start.v > device.size().v - geometry.size.v) {
    return "ring lies beyond the end of the device";
  }
  return "";
}

uint32_t recordCrc(RecordHeader header, std::span<const std::byte> payload) {
  header.crc = 0;
  return crc32c(payload, crc32c(std::as_bytes(std::span(&header, 1))));
}

}  // namespace ourfs
