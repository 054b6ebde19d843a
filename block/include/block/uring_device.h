// UringDevice: an image file or a block device through io_uring and O_DIRECT.
//
// One ring with its own completion thread. Where the filesystem below refuses O_DIRECT (tmpfs), it
// works buffered, with the same durability rules. FUA is RWF_DSYNC, flush is fdatasync, discard is
// BLKDISCARD on a device and punched holes in a file.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "block/block_device.h"

namespace ourfs {

struct UringOptions {
  bool readOnly = false;
  bool exclusiveLock = true;     // flock: one writer, or any number of readers; EBUSY if it is taken
  std::chrono::milliseconds lockWait{0};  // how long to wait for a daemon that is still closing
  uint32_t queueDepth = 128;     // requests in flight
};

class UringDevice : public BlockDevice {
 public:
  // ENOENT, EACCES, EROFS, EBUSY (in use), EINVAL (neither file nor block device, or empty).
  static Result<std::unique_ptr<UringDevice>> open(const std::string& path, const UringOptions& options);
  // Reserves host space for the range, so that later writes to it cannot meet a full host disk.
  // A no-op on a block device, and where the host filesystem cannot.
  virtual Status preallocate(DeviceOffset offset, ByteCount length) = 0;
  virtual bool isBlockSpecial() const = 0;
};

}  // namespace ourfs
