// IoGroup: several requests in flight at once, and one wait for all of them.
// Everything that was submitted is complete when it is destroyed.
#pragma once

#include "block/block_device.h"
#include "common/mutex.h"

namespace ourfs {

class IoGroup {
 public:
  IoGroup(BlockDevice& device, IoClass cls) : device_(device), cls_(cls) {}
  ~IoGroup() { (void)wait(); }
  IoGroup(const IoGroup&) = delete;
  IoGroup& operator=(const IoGroup&) = delete;

  // The memory stays valid (and for a write unchanged) until wait() returned.
  void submit(IoOp op, DeviceOffset offset, std::span<std::byte> memory);
  Status wait();  // the first error

 private:
  void complete(const Status& status);

  BlockDevice& device_;
  const IoClass cls_;
  Mutex mu_;
  CondVar idle_;
  size_t inFlight_ GUARDED_BY(mu_) = 0;
  Status first_ GUARDED_BY(mu_);
};

}  // namespace ourfs
