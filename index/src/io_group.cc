#include "io_group.h"

namespace ourfs {

void IoGroup::submit(IoOp op, DeviceOffset offset, std::span<std::byte> memory) {
  if (held_) send(*held_);
  held_ = Piece{op, offset, memory};
}

void IoGroup::send(const Piece& piece) {
  {
    MutexLock l(mu_);
    ++inFlight_;
  }
  IoRequest request;
  request.op = piece.op;
  request.cls = cls_;
  request.offset = piece.offset;
  request.length = ByteCount(piece.memory.size());
  request.pieces = {IoVec{piece.memory.data(), piece.memory.size()}};
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
  if (held_) {
    const Piece last = *std::exchange(held_, std::nullopt);
    if (alone()) {
      const Status status = last.op == IoOp::Read ? device_.read(last.offset, last.memory, cls_)
                                                  : device_.write(last.offset, last.memory, cls_);
      MutexLock l(mu_);
      if (first_) first_ = status;
    } else {
      send(last);
    }
  }
  MutexLock l(mu_);
  while (inFlight_ > 0) idle_.wait(mu_);
  return first_;
}

bool IoGroup::alone() {
  MutexLock l(mu_);
  return inFlight_ == 0;
}

}  // namespace ourfs
