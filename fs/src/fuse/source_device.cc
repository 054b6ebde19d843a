// The loop device behind the mount of an image.
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "common/units.h"
#include "fs/fuse_mount.h"

namespace ourfs {

namespace {

constexpr off_t kDummySize = 64 * KiB;
constexpr int kAttempts = 64;  // others may take the free device before us
constexpr size_t kMaxMemfdName = 200;

Result<int> dummyFile(const std::string& name) {
  std::string shown = "ourfs:" + name;
  int fd = memfd_create(shown.substr(0, kMaxMemfdName).c_str(), MFD_CLOEXEC);
  if (fd < 0) return Status::error(errno);
  if (ftruncate(fd, kDummySize) == 0) return fd;
  int error = errno;
  close(fd);
  return Status::error(error);
}

// EBUSY: somebody was faster.
Result<int> configure(const std::string& path, int file, const std::string& name) {
  int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return Status::error(errno);
  loop_config config{};
  config.fd = static_cast<uint32_t>(file);
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  size_t length = std::min(name.size(), sizeof(config.info.lo_file_name) - 1);
  std::memcpy(config.info.lo_file_name, name.data(), length);
  if (ioctl(fd, LOOP_CONFIGURE, &config) == 0) return fd;
  int error = errno;
  close(fd);
  return Status::error(error);
}

}  // namespace

Result<std::unique_ptr<SourceDevice>> SourceDevice::attach(const std::string& name) {
  int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (control < 0) return Status::error(errno).withContext("/dev/loop-control");
  Result<int> file = dummyFile(name);
  Status failed = file.status();
  for (int n = 0; file && n < kAttempts; ++n) {
    int number = ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0) {
      failed = Status::error(errno).withContext("no free loop device");
      break;
    }
    std::string path = "/dev/loop" + std::to_string(number);
    Result<int> fd = configure(path, *file, name);
    failed = fd.status().withContext(path);
    if (fd) {
      close(control), close(*file);
      return std::unique_ptr<SourceDevice>(new SourceDevice(*fd, path));
    }
    if (fd.errnum() != EBUSY) break;
  }
  close(control);
  if (file) close(*file);
  return failed;
}

SourceDevice::~SourceDevice() { close(fd_); }

}  // namespace ourfs
