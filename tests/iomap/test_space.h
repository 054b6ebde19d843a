// The free space of a test volume. Blocks that nobody owns hold poison: whoever shows it has read
// what it must not.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "block/memory_device.h"
#include "common/mutex.h"
#include "common/result.h"
#include "common/units.h"

namespace ourfs::test {

inline constexpr std::byte kPoison{0xDD};

class TestSpace {
 public:
  TestSpace(MemoryDevice& device, uint32_t blockSize)
      : device_(device), blockSize_(blockSize), used_(device.size().v / blockSize) {
    device_.setFill(kPoison);
    used_[0] = true;  // address 0 is nobody's
  }

  Status reserve(uint64_t blocks) {
    MutexLock lock(mutex_);
    if (blocks > freeBlocks()) return Status::error(ENOSPC);
    reserved_ += blocks;
    return Status::ok();
  }
  void unreserve(uint64_t blocks) {
    MutexLock lock(mutex_);
    reserved_ -= blocks;
  }

  struct Run {
    DeviceOffset address;
    uint64_t blocks = 0;
  };
  // At most `wanted` blocks in one piece; `fromReserve`: they were reserved before.
  Result<Run> allocate(uint64_t wanted, bool fromReserve) {
    MutexLock lock(mutex_);
    if (!fromReserve) wanted = std::min(wanted, freeBlocks());
    if (wanted == 0) return Status::error(ENOSPC);
    for (uint64_t tries = 0; tries < used_.size();
         ++tries, cursor_ = (cursor_ + 1) % used_.size()) {
      if (used_[cursor_]) continue;
      const uint64_t start = cursor_;
      while (cursor_ < used_.size() && !used_[cursor_] && cursor_ - start < wanted)
        used_[cursor_++] = true;
      const uint64_t blocks = cursor_ - start;
      cursor_ %= used_.size();
      usedBlocks_ += blocks;
      if (fromReserve) reserved_ -= blocks;
      return Run{DeviceOffset(start * blockSize_), blocks};
    }
    return Status::error(ENOSPC);
  }
  void free(DeviceOffset address, ByteCount length) {
    poison(address, length);
    MutexLock lock(mutex_);
    for (uint64_t b = address.v / blockSize_; b < (address.v + length.v) / blockSize_; ++b)
      used_[b] = false;
    usedBlocks_ -= length.v / blockSize_;
  }
  void poison(DeviceOffset address, ByteCount length) {
    const std::vector<std::byte> bytes(length.v, kPoison);
    (void)device_.write(address, bytes, IoClass::Data);
  }

  uint64_t reserved() const {
    MutexLock lock(mutex_);
    return reserved_;
  }
  uint64_t used() const {
    MutexLock lock(mutex_);
    return usedBlocks_;
  }

 private:
  uint64_t freeBlocks() const REQUIRES(mutex_) {
    return used_.size() - 1 - usedBlocks_ - reserved_;
  }

  MemoryDevice& device_;
  const uint32_t blockSize_;
  mutable Mutex mutex_;
  std::vector<bool> used_ GUARDED_BY(mutex_);
  uint64_t cursor_ GUARDED_BY(mutex_) = 1;
  uint64_t usedBlocks_ GUARDED_BY(mutex_) = 0;
  uint64_t reserved_ GUARDED_BY(mutex_) = 0;
};

}  // namespace ourfs::test
