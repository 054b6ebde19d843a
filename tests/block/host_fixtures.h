// Places of the host that tests put images on. All of them vanish when their owner does, even if
// the test dies: file systems are never attached to the tree, and loop devices clear themselves.
#pragma once

#include <memory>
#include <string>

#include "common/result.h"
#include "common/units.h"

namespace ourfs {

// A file descriptor that is closed with its owner.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor();
  int get() const { return fd_; }

 private:
  int fd_;
};

// A sparse file in the directory for temporary files, removed with its owner.
class ImageFile {
 public:
  static std::unique_ptr<ImageFile> create(ByteCount size);
  explicit ImageFile(std::string path) : path_(std::move(path)) {}
  ~ImageFile();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A file system of its own. Needs root.
class PrivateMount {
 public:
  static Result<std::unique_ptr<PrivateMount>> create(const std::string& type,
                                                      const std::string& sizeOption = "");
  explicit PrivateMount(Descriptor root) : root_(std::move(root)) {}
  // The path of a new sparse file of this size.
  Result<std::string> createFile(const std::string& name, ByteCount size) const;

 private:
  Descriptor root_;
};

// A loop device over an image file. Needs root and the loop module.
class LoopDevice {
 public:
  static Result<std::unique_ptr<LoopDevice>> create(ByteCount size, uint32_t sector);
  LoopDevice(Descriptor fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  const std::string& path() const { return path_; }

 private:
  Descriptor fd_;  // the device is cleared when it is closed
  std::string path_;
};

}  // namespace ourfs
