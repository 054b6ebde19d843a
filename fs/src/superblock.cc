#include "fs/superblock.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstring>

#include "common/codec.h"
#include "common/sync_point.h"
#include "superblock_format.h"

namespace ourfs {

namespace {

constexpr uint32_t kNanosecondsPerSecond = 1000000000;

SuperblockTime storedTime(const Timestamp& t) { return {t.sec, t.nsec, 0}; }
Timestamp loadedTime(const SuperblockTime& t) { return {t.sec, t.nsec}; }

Status damaged(const std::string& what) {
  return Status::corrupt("superblock: " + what + ": run fsck.ourfs");
}

Status checkTimes(const SuperblockFormat& f) {
  for (const SuperblockTime& t : {f.created, f.lastMounted, f.lastChecked}) {
    if (t.nsec >= kNanosecondsPerSecond || t.zero != 0) return damaged("a time cannot be right");
  }
  return Status::ok();
}

Status checkLabel(const SuperblockFormat& f) {
  const char* end = std::find(f.label, f.label + kLabelField, '\0');
  const bool padded = std::all_of(end, f.label + kLabelField, [](char c) { return c == '\0'; });
  if (end == f.label + kLabelField || !padded) return damaged("the label cannot be right");
  return Status::ok();
}

Status checkFeatures(const SuperblockFormat& f) {
  if (f.version > kFormatVersion) {
    return Status::error(
        EOPNOTSUPP, fmt::format("format version {} is newer than this program ({}): update ourfs",
                                f.version, kFormatVersion));
  }
  if (f.version == 0) return damaged("the format version is 0");
  if (const uint64_t unknown = f.incompat & ~kKnownIncompat; unknown != 0) {
    return Status::error(EOPNOTSUPP,
                         fmt::format("unknown incompat feature bits {:#x}: update ourfs", unknown));
  }
  return Status::ok();
}

// Regions lie in order, do not touch each other, are aligned, and end inside the volume.
Status checkRegions(const SuperblockFormat& f) {
  if (mutantEnabled("superblock.trust_regions")) return Status::ok();
  const uint64_t align = std::max<uint64_t>(f.blockSize, 64 * KiB);
  const uint64_t volume = f.volumeSize;
  if (!isPowerOfTwo(f.blockSize) || f.blockSize < kMinBlockSize || f.blockSize > kMaxBlockSize) {
    return damaged(fmt::format("the block size {} cannot be right", f.blockSize));
  }
  if (volume < kMinVolumeSize || volume > uint64_t{INT64_MAX} || !isAligned(volume, f.blockSize)) {
    return damaged(fmt::format("the volume size {} cannot be right", volume));
  }
  // Sizes first, so that the sums below cannot overflow.
  for (uint64_t value :
       {f.tableStart, f.tableSlotSize, f.journalStart, f.journalSize, f.dataStart}) {
    if (value == 0 || value >= volume) return damaged("a region lies outside of the volume");
  }
  if (f.tableStart < kSuperblockRegion || !isAligned(f.tableStart, 64 * KiB) ||
      !isAligned(f.tableSlotSize, 64 * KiB) ||
      f.tableStart + 2 * f.tableSlotSize > f.journalStart) {
    return damaged("the index file table's place cannot be right");
  }
  if (!isPowerOfTwo(f.journalSector) || f.journalSector < 512 || f.journalSector > 64 * KiB ||
      !isAligned(f.journalStart, 64 * KiB) || !isAligned(f.journalSize, f.journalSector) ||
      f.journalSize < kMinJournalSize || f.journalStart + f.journalSize > f.dataStart) {
    return damaged("the journal's place cannot be right");
  }
  if (!isAligned(f.dataStart, align)) return damaged("the start of the data cannot be right");
  return Status::ok();
}

uint32_t slotCrc(SuperblockFormat f) {
  f.crc = 0;
  return crc32c(std::as_bytes(std::span(&f, 1)));
}

bool isUndamaged(const SuperblockFormat& f) {
  return slotCrc(f) == f.crc || mutantEnabled("superblock.skip_checksum");
}

// A slot that was written whole: magic and checksum agree.
bool isWhole(const SuperblockFormat& f) {
  return std::memcmp(f.magic, kSuperblockMagic, sizeof(f.magic)) == 0 && isUndamaged(f);
}

SuperblockFormat formatOf(std::string_view bytes) {
  SuperblockFormat f;
  std::memcpy(&f, bytes.data(), sizeof(f));
  return f;
}

}  // namespace

std::string Superblock::uuidText() const {
  std::string text;
  for (size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", uuid[i]);
  }
  return text;
}

std::string encodeSuperblock(const Superblock& s) {
  SuperblockFormat f{};
  std::memcpy(f.magic, kSuperblockMagic, sizeof(f.magic));
  f.version = s.version;
  f.sequence = s.sequence;
  f.generation = s.generation;
  f.compat = s.compat;
  f.roCompat = s.roCompat;
  f.incompat = s.incompat;
  f.blockSize = s.blockSize;
  f.flags = s.clean ? kSuperblockClean : 0;
  f.journalSector = s.journalSector;
  f.volumeSize = s.volumeSize.v;
  f.tableStart = s.tableStart.v;
  std::copy(s.uuid.begin(), s.uuid.end(), f.uuid);
  f.tableSlotSize = s.tableSlotSize.v;
  f.journalStart = s.journalStart.v;
  f.journalSize = s.journalSize.v;
  f.dataStart = s.dataStart.v;
  f.nameKey[0] = s.nameKey.k0;
  f.nameKey[1] = s.nameKey.k1;
  f.mountCount = s.mountCount;
  f.created = storedTime(s.created);
  f.lastMounted = storedTime(s.lastMounted);
  f.lastChecked = storedTime(s.lastChecked);
  std::copy_n(s.label.data(), std::min(s.label.size(), kLabelField - 1), f.label);
  f.crc = slotCrc(f);
  return std::string(reinterpret_cast<const char*>(&f), sizeof(f));
}

Result<Superblock> decodeSuperblock(std::string_view bytes, ByteCount deviceSize) {
  if (bytes.size() != kSuperblockSize ||
      std::memcmp(bytes.data(), kSuperblockMagic, sizeof(kSuperblockMagic)) != 0) {
    return Status::error(EINVAL, "not an ourfs volume");
  }
  const SuperblockFormat f = formatOf(bytes);
  if (!isUndamaged(f)) return damaged("the checksum is wrong");
  TRY(checkFeatures(f));
  TRY(checkRegions(f));
  TRY(checkTimes(f));
  TRY(checkLabel(f));
  if ((f.flags & ~kSuperblockClean) != 0 || f.zero != 0) return damaged("unknown flags");
  if (f.volumeSize > deviceSize.v) {
    return Status::corrupt(
        fmt::format("volume is {} bytes but the device has only {}: truncated image?", f.volumeSize,
                    deviceSize.v));
  }
  Superblock s;
  s.version = f.version;
  s.compat = f.compat;
  s.roCompat = f.roCompat;
  s.incompat = f.incompat;
  std::copy(std::begin(f.uuid), std::end(f.uuid), s.uuid.begin());
  s.label = f.label;
  s.blockSize = f.blockSize;
  s.volumeSize = ByteCount(f.volumeSize);
  s.tableStart = DeviceOffset(f.tableStart);
  s.tableSlotSize = ByteCount(f.tableSlotSize);
  s.journalStart = DeviceOffset(f.journalStart);
  s.journalSize = ByteCount(f.journalSize);
  s.journalSector = f.journalSector;
  s.dataStart = DeviceOffset(f.dataStart);
  s.nameKey = {f.nameKey[0], f.nameKey[1]};
  s.generation = f.generation;
  s.sequence = f.sequence;
  s.clean = (f.flags & kSuperblockClean) != 0;
  s.created = loadedTime(f.created);
  s.lastMounted = loadedTime(f.lastMounted);
  s.lastChecked = loadedTime(f.lastChecked);
  s.mountCount = f.mountCount;
  return s;
}

bool isWholeSuperblock(std::string_view bytes) {
  return bytes.size() == kSuperblockSize && isWhole(formatOf(bytes));
}

uint64_t superblockSequence(std::string_view bytes) { return formatOf(bytes).sequence; }

}  // namespace ourfs
