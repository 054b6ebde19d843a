// IoGroup: several reads or writes in flight at once, and one wait for all of them.
// Everything that was submitted is complete when it is destroyed.
//
// The last one is carried out by the waiting thread itself if no other is in flight: most reads of
// an index file are of one piece, and for those two changes of thread cost more than the read.
//
// Threads: one at a time.
#pragma once

#include <optional>
#include <span>
#include <utility>

#include "block/block_device.h"
#include "common/mutex.h"

namespace ourfs {

class IoGroup {
 public:
  IoGroup(BlockDevice& device, IoClass cls) : device_(device), cls_(cls) {}
  ~IoGroup() { (void)wait(); }
  IoGroup(const IoGroup&) = delete;
  IoGroup& operator=(const IoGroup&) = delete;

  // `op`: Read or Write. The memory stays valid (and for a write unchanged) until wait() returned.
  void submit(IoOp op, DeviceOffset offset, std::span<std::byte> memory);
  Status wait();  // the first error

 private:
  struct Piece {
    IoOp op;
    DeviceOffset offset;
    std::span<std::byte> memory;
  };
  void send(const Piece& piece);
  void complete(const Status& status);
  bool alone();  // nothing is in flight

  BlockDevice& device_;
  const IoClass cls_;
  std::optional<Piece> held_;  // the last one, not begun yet
  Mutex mu_;
  CondVar idle_;
  size_t inFlight_ GUARDED_BY(mu_) = 0;
  Status first_ GUARDED_BY(mu_);
};

}  // namespace ourfs
