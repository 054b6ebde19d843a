// Mounting: the connection to the kernel and the block device that a fuseblk mount wants as its
// source.
//
// fuseblk is what makes sync(2) reach the daemon and umount(8) wait for it; it needs a block device
// that no other mount has. An image file gets a loop device over a small file in memory: nothing is
// ever read from it or written to it.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>

#include "common/result.h"

namespace ourfs {

// A loop device of our own over an anonymous file. It vanishes with its last user: this object, or
// the mount that took it as its source.
class SourceDevice {
 public:
  // `name` is what losetup(8) shows. An error where there are no loop devices (or no right to
  // them).
  static Result<std::unique_ptr<SourceDevice>> attach(const std::string& name);
  ~SourceDevice();
  SourceDevice(const SourceDevice&) = delete;
  SourceDevice& operator=(const SourceDevice&) = delete;
  const std::string& path() const { return path_; }

 private:
  SourceDevice(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  const int fd_;
  const std::string path_;
};

struct FuseMountRequest {
  std::string source;      // what /proc/mounts shows; with `block`, the block device
  bool block = true;       // fuseblk
  std::string mountPoint;  // absolute
  bool readOnly = false, sync = false, dirsync = false, nodev = false, nosuid = false,
       noexec = false, noatime = false;
  bool allowOther = true;
};

class FuseMount {
 public:
  // Mounts. The kernel's first request waits on fd() then. One error line without the source's
  // name.
  static Result<std::unique_ptr<FuseMount>> mount(const FuseMountRequest& request);
  // Closes the connection: a mount that is still there answers ENOTCONN. Call detach() first.
  virtual ~FuseMount() = default;
  virtual int fd() const = 0;
  // Lazy unmount. With a `device`: only if what is mounted there still has this st_dev.
  virtual void detach(dev_t device = 0) = 0;
};

// Where a device's queue settings are: /sys/class/bdi/…, or empty.
std::string backingDeviceDirectory(dev_t device);
// Raises what the kernel reads ahead and, with its writeback cache, what it may hold dirty. Best
// effort.
void tuneBackingDevice(dev_t device, bool writebackCache);

}  // namespace ourfs
