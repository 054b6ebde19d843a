#include "io_group.h"

namespace ourfs {

void IoGroup::submit(IoOp op, DeviceOffset offset, std::span<std::byte> memory) {
  {
    MutexLock l(mu_);
    ++inFlight_;
  }
  IoRequest request;
  request.op = op;
  request.cls = cls_;
  request.offset = offset;
  request.length = ByteCount(memory.size());
  request.pieces = {IoVec{memory.data(), memory.size()}};
  request.done = [this](Status status) { complete(status); };
  device_.submit(std::move(request));
}

void IoGroup::complete(const Status& status) {
  // Notified under the lock: the waiter may destroy the group as soon as it can take it.
  MutexLock l(mu_);
  if (!status && first_) first_ = status;
  if (--inFlight_ == 0) idle_.notifyAll();
}

Status IoGroup::wait() {
  MutexLock l(mu_);
  while (inFlight_ > 0) idle_.wait(mu_);
  return first_;
}

}  // namespace ourfs
