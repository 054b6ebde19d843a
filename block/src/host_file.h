// HostFile: the file or block device that holds a volume, opened, measured and locked.
#pragma once

#include <memory>
#include <string>

#include "block/uring_device.h"

namespace ourfs {

class HostFile {
 public:
  static Result<std::unique_ptr<HostFile>> open(const std::string& path,
                                                const UringOptions& options);
  ~HostFile();
  HostFile(const HostFile&) = delete;
  HostFile& operator=(const HostFile&) = delete;

  int fd() const { return fd_; }
  const std::string& path() const { return path_; }
  bool readOnly() const { return readOnly_; }
  bool isBlockSpecial() const { return blockSpecial_; }
  ByteCount size() const { return size_; }
  uint32_t logicalSector() const { return logicalSector_; }
  uint32_t physicalSector() const { return physicalSector_; }
  // What the address of memory must be a multiple of; 1 if the file is not open for direct I/O.
  uint32_t memoryAlignment() const { return memoryAlignment_; }

  // 0 or a negative errno. Blocks. A discard is a hint: where the host knows none, it is done.
  int discard(DeviceOffset offset, ByteCount length) const;
  Status preallocate(DeviceOffset offset, ByteCount length) const;

 private:
  HostFile(std::string path, bool readOnly) : path_(std::move(path)), readOnly_(readOnly) {}
  Status openDescriptor();
  Status lock(std::chrono::milliseconds wait);
  Status measureDevice();
  Status measureFile();
  // Finds the alignment that direct I/O on a file needs; gives direct I/O up if it is refused.
  Status measureDirect();
  bool directReadWorks(uint32_t alignment) const;
  Status stopDirect();
  Status failure(int errnum) const;

  const std::string path_;
  const bool readOnly_;
  int fd_ = -1;
  bool direct_ = true;
  bool blockSpecial_ = false;
  ByteCount size_;
  uint32_t logicalSector_ = 512;
  uint32_t physicalSector_ = 4096;
  uint32_t memoryAlignment_ = 512;
};

}  // namespace ourfs
