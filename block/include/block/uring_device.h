// UringDevice: an image file or a block device through io_uring and O_DIRECT.
//
// One ring with its own completion thread. Where the filesystem below refuses O_DIRECT (tmpfs), it
// works buffered, with the same durability rules. FUA is RWF_DSYNC, flush is fdatasync, discard is
// BLKDISCARD on a device and punched holes in a file; where the host knows no discard it does
// nothing.
//
// The synchronous forms of BlockDevice go to the host directly, in the calling thread: they save
// two changes of thread. Memory that the host's direct I/O would refuse is copied, so it is correct
// but slow. Buffers are not registered with the ring: that would tie every layer's memory to this
// class to save the pinning of a few pages per request, which is lost beside the transfer itself.
//
// Once a flush or a FUA write has failed, every later flush fails with EIO: the host reports a lost
// write once and then forgets it (for FUA, ENOSPC is excepted: that write was refused, not lost).
//
// Open it after the last fork(): neither the ring nor its thread follows into a child.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "block/block_device.h"

namespace ourfs {

struct UringOptions {
  bool readOnly = false;
  bool exclusiveLock = true;  // flock: one writer, or any number of readers; EBUSY if it is taken
  // How long to wait for a daemon that is still closing. On a block device, udev takes short shared
  // locks too, so give it a second at least.
  std::chrono::milliseconds lockWait{0};
  uint32_t queueDepth = 128;  // requests in flight
};

class UringDevice : public BlockDevice {
 public:
  // ENOENT, EACCES, EROFS, EBUSY (in use), EINVAL (neither file nor block device, or empty),
  // ENOSYS or EPERM (io_uring is switched off on this machine).
  static Result<std::unique_ptr<UringDevice>> open(const std::string& path,
                                                   const UringOptions& options);
  // Reserves host space for the range, so that later writes to it cannot meet a full host disk.
  // A no-op on a block device, and where the host filesystem cannot.
  virtual Status preallocate(DeviceOffset offset, ByteCount length) = 0;
  virtual bool isBlockSpecial() const = 0;
};

}  // namespace ourfs
