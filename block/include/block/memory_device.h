// MemoryDevice: a device in memory with a faithful contents model, sparse, for tests.
// Completes every request in the submitting thread.
#pragma once

#include <memory>
#include <string>

#include "block/block_device.h"

namespace ourfs {

class MemoryDevice : public BlockDevice {
 public:
  // REQUIRES: size is a multiple of sector; sector is a power of two >= 512.
  static std::unique_ptr<MemoryDevice> create(ByteCount size, uint32_t sector = 512,
                                              uint32_t physicalSector = 4096);
  // A copy of the whole contents; and a device made from it.
  virtual std::unique_ptr<MemoryDevice> clone() const = 0;
  // Fills everything that was never written with this byte instead of zero (poison).
  virtual void setFill(std::byte fill) = 0;
};

}  // namespace ourfs
