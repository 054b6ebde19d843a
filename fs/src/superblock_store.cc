// The two slots on the device.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "common/codec.h"
#include "common/sync_point.h"
#include "fs/superblock.h"
#include "superblock_format.h"

namespace ourfs {

namespace {

// Reads one slot; empty if the device ends before it.
Result<std::string> readSlot(BlockDevice& device, uint64_t at) {
  if (device.size().v < at + kSuperblockSize) return std::string();
  AlignedBuffer buffer(kSuperblockSize);
  TRY(device.read(DeviceOffset(at), buffer.span(), IoClass::Superblock));
  return std::string(asChars(buffer.span()));
}

// Shows disturb() the buffer of a write, as long as it is on its way.
class InFlight {
 public:
  InFlight(std::atomic<AlignedBuffer*>& shown, AlignedBuffer& buffer) : shown_(shown) {
    shown_ = &buffer;
  }
  ~InFlight() { shown_ = nullptr; }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

 private:
  std::atomic<AlignedBuffer*>& shown_;
};

bool hasMagic(std::string_view bytes) {
  return bytes.substr(0, sizeof(kSuperblockMagic)) ==
         std::string_view(kSuperblockMagic, sizeof(kSuperblockMagic));
}

}  // namespace

Result<Superblock> SuperblockStore::load() {
  MutexLock lock(mutex_);
  TRY_ASSIGN(const std::string a, readSlot(device_, kSuperblockSlotA));
  TRY_ASSIGN(const std::string b, readSlot(device_, kSuperblockSlotB));
  const bool wholeA = isWholeSuperblock(a), wholeB = isWholeSuperblock(b);
  if (!wholeA && !wholeB) {
    if (!hasMagic(a) && !hasMagic(b)) return Status::error(EINVAL, "not an ourfs volume");
    return Status::corrupt("superblock: both copies are damaged: restore the volume from a backup");
  }
  // The newest slot that was written whole decides, even if it says something that this program
  // does not understand: the other one is older than what is on the volume.
  const bool useB = wholeB && (!wholeA || superblockSequence(b) > superblockSequence(a));
  newestSlot_ = useB ? kSuperblockSlotB : kSuperblockSlotA;
  mayBeOlder_ = !wholeA || !wholeB;
  if (mayBeOlder_) {
    spdlog::warn("superblock: copy {} is damaged or was being written, using copy {}",
                 wholeA ? 'B' : 'A', wholeA ? 'A' : 'B');
  }
  return decodeSuperblock(useB ? b : a, device_.size());
}

bool SuperblockStore::mayBeOlder() const {
  MutexLock lock(mutex_);
  return mayBeOlder_;
}

Status SuperblockStore::writeSlot(uint64_t slot, Superblock& superblock) {
  ++superblock.sequence;
  AlignedBuffer buffer(kSuperblockSize);
  const std::string bytes = encodeSuperblock(superblock);
  std::memcpy(buffer.data(), bytes.data(), bytes.size());
  // What is on its way belongs to nobody else: `superblock` may change from here on.
  const InFlight visible(inFlight_, buffer);
  SYNC_POINT_TRY("superblock.captured");
  TRY(device_.write(DeviceOffset(slot), buffer.span(), IoClass::Superblock));
  TRY(device_.flush(IoClass::Superblock));
  newestSlot_ = slot;
  return Status::ok();
}

void SuperblockStore::disturb(const Superblock& superblock) {
  AlignedBuffer* buffer = inFlight_;
  if (buffer == nullptr) return;
  if (mutantEnabled("superblock.grow_in_place")) {
    std::ranges::fill(buffer->span(), kFreedByMutant);
  }
  if (mutantEnabled("superblock.shared_buffer")) {  // its checksum comes last
    const std::string bytes = encodeSuperblock(superblock);
    constexpr size_t kBody = offsetof(SuperblockFormat, version);
    std::memcpy(buffer->data() + kBody, bytes.data() + kBody, bytes.size() - kBody);
  }
}

Status SuperblockStore::store(Superblock& superblock) {
  disturb(superblock);
  SYNC_POINT("superblock.before_lock");
  MutexLock lock(mutex_);
  const uint64_t other = newestSlot_ == kSuperblockSlotA ? kSuperblockSlotB : kSuperblockSlotA;
  return writeSlot(other, superblock);
}

Status SuperblockStore::storeBoth(Superblock& superblock) {
  MutexLock lock(mutex_);
  TRY(writeSlot(kSuperblockSlotB, superblock));
  return writeSlot(kSuperblockSlotA, superblock);
}

Status SuperblockStore::wipe() {
  MutexLock lock(mutex_);
  const AlignedBuffer zeros(kSuperblockRegion);
  TRY(device_.write(DeviceOffset(0), zeros.span(), IoClass::Superblock));
  return device_.flush(IoClass::Superblock);
}

}  // namespace ourfs
