#include "block/host_fixtures.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>
#include <vector>

namespace ourfs {

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

std::unique_ptr<ImageFile> ImageFile::create(ByteCount size) {
  const char* dir = std::getenv("TMPDIR");
  std::string path = std::string(dir != nullptr ? dir : "/tmp") + "/ourfs_block_XXXXXX";
  Descriptor fd(mkstemp(path.data()));
  auto image = std::make_unique<ImageFile>(path);
  if (fd.get() < 0 || ftruncate(fd.get(), static_cast<off_t>(size.v)) != 0) std::abort();
  return image;
}

ImageFile::~ImageFile() { unlink(path_.c_str()); }

Result<std::unique_ptr<PrivateMount>> PrivateMount::create(const std::string& type,
                                                           const std::string& sizeOption) {
  Descriptor context(fsopen(type.c_str(), FSOPEN_CLOEXEC));
  if (context.get() < 0) return Status::error(errno).withContext("fsopen " + type);
  if (!sizeOption.empty() &&
      fsconfig(context.get(), FSCONFIG_SET_STRING, "size", sizeOption.c_str(), 0) != 0) {
    return Status::error(errno).withContext("fsconfig size");
  }
  if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return Status::error(errno).withContext("fsconfig create");
  }
  Descriptor root(fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  if (root.get() < 0) return Status::error(errno).withContext("fsmount");
  return std::make_unique<PrivateMount>(std::move(root));
}

Result<std::string> PrivateMount::createFile(const std::string& name, ByteCount size) const {
  Descriptor fd(openat(root_.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd.get() < 0 || ftruncate(fd.get(), static_cast<off_t>(size.v)) != 0) {
    return Status::error(errno).withContext(name);
  }
  return "/proc/self/fd/" + std::to_string(root_.get()) + "/" + name;
}

Result<std::unique_ptr<LoopDevice>> LoopDevice::create(ByteCount size, uint32_t sector) {
  auto image = ImageFile::create(size);
  Descriptor backing(open(image->path().c_str(), O_RDWR | O_CLOEXEC));
  Descriptor control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (control.get() < 0) return Status::error(errno).withContext("/dev/loop-control");
  for (int attempt = 0; attempt < 20; ++attempt) {
    const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return Status::error(errno).withContext("no free loop device");
    const std::string path = "/dev/loop" + std::to_string(number);
    Descriptor device(open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (device.get() < 0) return Status::error(errno).withContext(path);
    loop_config config{};
    config.fd = static_cast<uint32_t>(backing.get());
    config.block_size = sector;
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) {
      return std::make_unique<LoopDevice>(std::move(device), path);
    }
    if (errno != EBUSY) return Status::error(errno).withContext("LOOP_CONFIGURE " + path);
  }
  return Status::error(EBUSY, "others take every loop device that is free");
}

}  // namespace ourfs
