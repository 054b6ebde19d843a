// Superblock: what a volume says of itself, in two checksummed slots that are written alternately.
//
// Slot A lies at byte 0, slot B at 64 KiB; each is 4096 bytes. The slot with the higher sequence
// that is valid wins. Never are both in flight; the write goes out from a private copy, and is
// followed by a flush. docs/format.md lists every byte.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "block/block_device.h"
#include "common/aligned_buffer.h"
#include "common/checksum.h"
#include "common/mutex.h"
#include "common/result.h"
#include "common/units.h"
#include "index/index.h"
#include "index/schema.h"

namespace ourfs {

inline constexpr uint32_t kFormatVersion = 1;
inline constexpr uint64_t kSuperblockSlotA = 0, kSuperblockSlotB = 64 * KiB, kSuperblockSize = 4096;
inline constexpr uint64_t kSuperblockRegion = 128 * KiB;  // nothing else lies before this
inline constexpr uint64_t kMinVolumeSize = 32 * MiB;
inline constexpr uint32_t kMinBlockSize = 1 * KiB, kMaxBlockSize = 64 * KiB;
inline constexpr uint64_t kMinJournalSize = 1 * MiB;

// Feature bits known to this version (none yet). A mount refuses unknown incompat bits, and mounts
// read-only with unknown ro-compat bits.
inline constexpr uint64_t kKnownIncompat = 0, kKnownRoCompat = 0;

struct Superblock {
  uint32_t version = kFormatVersion;
  uint64_t compat = 0, roCompat = 0, incompat = 0;
  std::array<uint8_t, 16> uuid{};
  std::string label;          // up to 63 bytes
  uint32_t blockSize = 4096;  // bytes
  ByteCount volumeSize;       // a multiple of blockSize
  DeviceOffset tableStart;    // index file table: two slots
  ByteCount tableSlotSize;
  DeviceOffset journalStart;
  ByteCount journalSize;
  uint32_t journalSector = 4096;  // alignment of journal writes
  DeviceOffset dataStart;         // the first byte that extents and index chunks may use
  SipKey nameKey;                 // of the directory hash
  uint64_t generation = 0;        // of the last mount; every mount that writes takes the next one
  uint64_t sequence = 0;          // of superblock writes
  bool clean = true;              // unmounted, nothing to replay
  Timestamp created, lastMounted, lastChecked;
  uint64_t mountCount = 0;

  std::string uuidText() const;
  BlockCount blocks() const { return BlockCount(volumeSize.v / blockSize); }
};

// Encodes to exactly kSuperblockSize bytes; decodes with every field checked (magic, version,
// checksum, ranges, alignment, powers of two, regions in order and inside the volume).
std::string encodeSuperblock(const Superblock& superblock);
// `deviceSize`: a volume larger than its device is "truncated". Each error is one line with what to
// do.
Result<Superblock> decodeSuperblock(std::string_view bytes, ByteCount deviceSize);

// For choosing between slots: written whole (magic and checksum agree), and in which order.
bool isWholeSuperblock(std::string_view bytes);
uint64_t superblockSequence(std::string_view bytes);  // REQUIRES: isWholeSuperblock(bytes)

// The regions of a new volume. EINVAL with a line when it cannot be (too small, bad block size…).
struct FormatOptions {
  std::string label;
  std::array<uint8_t, 16> uuid{};  // all zero: a random one
  uint32_t blockSize = 4096;
  ByteCount journalSize{0};  // 0: chosen by volume size (1/64, 1 MiB to 64 MiB)
};
Result<Superblock> planVolume(ByteCount deviceSize, uint32_t logicalSector, uint32_t physicalSector,
                              const FormatOptions& options);
IndexGeometry indexGeometry(const Superblock& superblock);
// The blocks of the index's pool in a new volume: the first ones of the data area.
BlockRun initialPool(const Superblock& superblock);
// Everything that a new volume's metadata lies in, superblocks to pool: what mkfs preallocates in
// the host file of an image, so that a full host disk is ENOSPC and not corruption.
struct DeviceRange {
  DeviceOffset start;
  ByteCount length;
};
DeviceRange metadataRange(const Superblock& superblock);

// Owns the two slots of an open volume.
class SuperblockStore {
 public:
  explicit SuperblockStore(BlockDevice& device) : device_(device) {}
  // Reads both slots; the better one. EINVAL "not an ourfs volume", EUCLEAN for damage.
  Result<Superblock> load();
  // True if load() found one copy damaged. It may have been the newer one, so the volume may have
  // been mounted once more, and written to, than the superblock says.
  bool mayBeOlder() const;
  // Writes the slot that does not hold the newest copy, with sequence + 1, and flushes.
  // Sync points: superblock.before_lock; superblock.captured between capture and write.
  Status store(Superblock& superblock);
  // mkfs: both slots.
  Status storeBoth(Superblock& superblock);
  // mkfs: zeros in both slots and between, durable. What was on the device is no volume any more,
  // of any filesystem that keeps its signature at the start.
  Status wipe();

 private:
  // The only place that writes a superblock. It goes out from a copy that nobody else can reach.
  Status writeSlot(uint64_t slot, Superblock& superblock) REQUIRES(mutex_);
  // Mutants: what a second store does to the first one's copy if it can reach it.
  void disturb(const Superblock& superblock);

  BlockDevice& device_;
  mutable Mutex mutex_;
  uint64_t newestSlot_ GUARDED_BY(mutex_) = kSuperblockSlotA;
  std::atomic<AlignedBuffer*> inFlight_{nullptr};  // for disturb() only
  bool mayBeOlder_ GUARDED_BY(mutex_) = false;
};

}  // namespace ourfs
