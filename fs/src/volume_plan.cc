// Where the regions of a new volume lie.
#include <spdlog/fmt/fmt.h>
#include <sys/random.h>

#include <algorithm>

#include "clock.h"
#include "fs/superblock.h"

namespace ourfs {

namespace {

constexpr uint64_t kRegionAlignment = 64 * KiB;
constexpr uint64_t kMaxJournalSize = 64 * MiB;  // that is chosen; a user may ask for more

Status invalid(std::string line) { return Status::error(EINVAL, std::move(line)); }

Status fillRandom(void* into, size_t size) {
  return getrandom(into, size, 0) == static_cast<ssize_t>(size)
             ? Status::ok()
             : Status::error(EIO, "the kernel gives no random numbers");
}

uint64_t tableSlotSize(uint64_t volume) {
  // Below 128 MiB a full-sized slot would be felt.
  const uint64_t least = volume < 128 * MiB ? 128 * KiB : 256 * KiB;
  return roundUp(std::clamp(volume / 4096, least, 16 * MiB), kRegionAlignment);
}

Result<uint64_t> journalSizeFor(uint64_t volume, uint64_t asked) {
  if (asked == 0) {
    return roundUp(std::clamp(volume / 64, kMinJournalSize, kMaxJournalSize), kRegionAlignment);
  }
  if (asked < kMinJournalSize) return invalid("the journal is too small: at least 1 MiB");
  if (asked > volume / 4)
    return invalid("the journal is too large: at most a quarter of the volume");
  return roundUp(asked, kRegionAlignment);
}

Status checkOptions(const FormatOptions& options, uint32_t logicalSector) {
  if (!isPowerOfTwo(options.blockSize) || options.blockSize < kMinBlockSize ||
      options.blockSize > kMaxBlockSize) {
    return invalid(fmt::format("block size {}: it must be a power of two from 1024 to 65536",
                               options.blockSize));
  }
  if (!isPowerOfTwo(logicalSector) || logicalSector > kSuperblockSize) {
    return invalid(fmt::format("sectors of {} bytes are not supported", logicalSector));
  }
  if (options.blockSize < logicalSector) {
    return invalid(fmt::format("block size {} is below the device's sector size {}",
                               options.blockSize, logicalSector));
  }
  if (options.label.size() > 63) return invalid("the label is longer than 63 bytes");
  const bool printable = std::none_of(options.label.begin(), options.label.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (!printable) return invalid("the label has control characters");
  return Status::ok();
}

}  // namespace

Result<Superblock> planVolume(ByteCount deviceSize, uint32_t logicalSector, uint32_t physicalSector,
                              const FormatOptions& options) {
  TRY(checkOptions(options, logicalSector));
  Superblock s;
  s.blockSize = options.blockSize;
  s.label = options.label;
  s.volumeSize = ByteCount(roundDown(deviceSize.v, s.blockSize));
  if (s.volumeSize.v < kMinVolumeSize) {
    return invalid(fmt::format("the device has {} bytes, a volume needs at least {} (32 MiB)",
                               deviceSize.v, kMinVolumeSize));
  }
  s.uuid = options.uuid;
  if (s.uuid == std::array<uint8_t, 16>{}) {
    TRY(fillRandom(s.uuid.data(), s.uuid.size()));
    s.uuid[6] = static_cast<uint8_t>((s.uuid[6] & 0x0f) | 0x40);  // RFC 4122, version 4
    s.uuid[8] = static_cast<uint8_t>((s.uuid[8] & 0x3f) | 0x80);
  }
  TRY(fillRandom(&s.nameKey, sizeof(s.nameKey)));
  s.created = s.lastChecked = wallClock();

  s.tableStart = DeviceOffset(kSuperblockRegion);
  s.tableSlotSize = ByteCount(tableSlotSize(s.volumeSize.v));
  s.journalStart = s.tableStart + s.tableSlotSize + s.tableSlotSize;
  s.journalSector = std::clamp<uint32_t>(physicalSector, 4096, 64 * KiB);
  if (!isPowerOfTwo(s.journalSector)) {
    return invalid(fmt::format("physical sectors of {} bytes are not supported", physicalSector));
  }
  TRY_ASSIGN(const uint64_t journal, journalSizeFor(s.volumeSize.v, options.journalSize.v));
  s.journalSize = ByteCount(journal);
  s.dataStart = s.journalStart + s.journalSize;
  const DeviceRange metadata = metadataRange(s);
  if (metadata.length.v > s.volumeSize.v - s.volumeSize.v / 4) {
    return invalid("the journal and the index leave no room for data: choose a smaller journal");
  }
  return s;
}

IndexGeometry indexGeometry(const Superblock& s) {
  IndexGeometry geometry;
  geometry.blockSize = s.blockSize;
  geometry.tableStart = s.tableStart;
  geometry.tableSlotSize = s.tableSlotSize;
  geometry.volumeSize = s.volumeSize;
  return geometry;
}

BlockRun initialPool(const Superblock& s) {
  const uint64_t reserve = indexGeometry(s).poolReserve().v;
  const uint64_t bytes = roundUp(reserve + reserve / 8, kRegionAlignment);
  return {BlockNo(s.dataStart.v / s.blockSize), BlockCount(bytes / s.blockSize)};
}

DeviceRange metadataRange(const Superblock& s) {
  const BlockRun pool = initialPool(s);
  return {DeviceOffset(0), ByteCount((pool.start + pool.count).v * s.blockSize)};
}

}  // namespace ourfs
