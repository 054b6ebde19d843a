#include "block/block_device.h"

#include "check_request.h"
#include "common/mutex.h"

namespace ourfs {

namespace {

// What a synchronous caller sleeps on. The completing thread is done with it when it has given up
// the mutex, so it may live on the caller's stack.
class Waiter {
 public:
  void complete(Status status) {
    MutexLock lock(mutex_);
    status_ = std::move(status);
    done_ = true;
    completed_.notifyOne();
  }
  Status await() {
    MutexLock lock(mutex_);
    while (!done_) completed_.wait(mutex_);
    return status_;
  }

 private:
  Mutex mutex_;
  CondVar completed_;
  bool done_ GUARDED_BY(mutex_) = false;
  Status status_ GUARDED_BY(mutex_);
};

std::string describe(const IoRequest& r) {
  static constexpr const char* kOps[] = {"read", "write", "flush", "discard"};
  return std::string(kOps[static_cast<size_t>(r.op)]) + " of " + std::to_string(r.length.v) +
         " bytes at " + std::to_string(r.offset.v);
}

Status misuse(const BlockDevice& device, const IoRequest& r, const char* what) {
  return Status::error(EINVAL, device.name() + ": " + describe(r) + " " + what);
}

}  // namespace

Status checkRequest(const BlockDevice& device, const IoRequest& r) {
  if (r.op == IoOp::Flush) return Status::ok();
  const uint64_t sector = device.logicalSector();
  const uint64_t size = device.size().v;
  if (!isAligned(r.offset.v, sector) || !isAligned(r.length.v, sector)) {
    return misuse(device, r, "is not in whole sectors");
  }
  if (r.offset.v > size || r.length.v > size - r.offset.v) {
    return misuse(device, r, "is beyond the end");
  }
  if (r.op != IoOp::Discard) {
    uint64_t sum = 0;
    for (const IoVec& piece : r.pieces) {
      if (!isAligned(piece.size, sector)) return misuse(device, r, "has a piece of half a sector");
      sum += piece.size;
    }
    if (sum != r.length.v) return misuse(device, r, "has pieces that do not add up");
  }
  if (r.op != IoOp::Read && device.readOnly()) {
    return Status::error(EROFS, device.name() + " is open read-only");
  }
  return Status::ok();
}

Status BlockDevice::transact(IoRequest request) {
  Waiter waiter;
  request.done = [&waiter](Status s) { waiter.complete(std::move(s)); };
  submit(std::move(request));
  return waiter.await();
}

Status BlockDevice::read(DeviceOffset offset, std::span<std::byte> into, IoClass cls) {
  IoRequest r;
  r.op = IoOp::Read;
  r.cls = cls;
  r.offset = offset;
  r.length = ByteCount(into.size());
  r.pieces.push_back({into.data(), into.size()});
  return transact(std::move(r));
}

Status BlockDevice::write(DeviceOffset offset, std::span<const std::byte> from, IoClass cls,
                          bool fua) {
  IoRequest r;
  r.op = IoOp::Write;
  r.cls = cls;
  r.fua = fua;
  r.offset = offset;
  r.length = ByteCount(from.size());
  r.pieces.push_back({const_cast<std::byte*>(from.data()), from.size()});
  return transact(std::move(r));
}

Status BlockDevice::flush(IoClass cls) {
  IoRequest r;
  r.op = IoOp::Flush;
  r.cls = cls;
  return transact(std::move(r));
}

Status BlockDevice::discard(DeviceOffset offset, ByteCount length) {
  IoRequest r;
  r.op = IoOp::Discard;
  r.offset = offset;
  r.length = length;
  return transact(std::move(r));
}

}  // namespace ourfs
