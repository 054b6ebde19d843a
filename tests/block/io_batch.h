// IoBatch: submits requests and waits until all have completed.
#pragma once

#include <vector>

#include "block/block_device.h"
#include "common/mutex.h"

namespace ourfs {

inline constexpr size_t kSector = 512;

class IoBatch {
 public:
  explicit IoBatch(BlockDevice& device) : device_(device) {}
  ~IoBatch() { (void)await(); }

  void write(DeviceOffset at, std::span<const std::byte> from, bool fua = false,
             IoClass cls = IoClass::Other) {
    transfer(IoOp::Write, at, {const_cast<std::byte*>(from.data()), from.size()}, fua, cls);
  }
  void read(DeviceOffset at, std::span<std::byte> into) {
    transfer(IoOp::Read, at, {into.data(), into.size()}, false, IoClass::Other);
  }
  void submit(IoRequest r) {
    {
      MutexLock lock(mutex_);
      ++submitted_;
    }
    r.done = [this](Status s) { completed(std::move(s)); };
    device_.submit(std::move(r));
  }
  // The first error. After it, every request has completed.
  Status await() {
    MutexLock lock(mutex_);
    while (completed_ < submitted_) changed_.wait(mutex_);
    return first_;
  }
  size_t completedNow() {
    MutexLock lock(mutex_);
    return completed_;
  }

 private:
  void transfer(IoOp op, DeviceOffset at, IoVec piece, bool fua, IoClass cls) {
    IoRequest r;
    r.op = op;
    r.cls = cls;
    r.fua = fua;
    r.offset = at;
    r.length = ByteCount(piece.size);
    r.pieces.push_back(piece);
    submit(std::move(r));
  }
  void completed(Status s) {
    MutexLock lock(mutex_);
    ++completed_;
    if (first_.isOk()) first_ = std::move(s);
    changed_.notifyAll();
  }

  BlockDevice& device_;
  Mutex mutex_;
  CondVar changed_;
  size_t submitted_ GUARDED_BY(mutex_) = 0;
  size_t completed_ GUARDED_BY(mutex_) = 0;
  Status first_ GUARDED_BY(mutex_);
};

}  // namespace ourfs
