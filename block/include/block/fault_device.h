// FaultDevice: wraps a device and makes it lie, by rule. The fault model:
//   error      the n-th matching request fails with an errno and does nothing
//   short      the n-th matching write writes only its first sectors, then fails with EIO
//   drop       the n-th matching write answers success and writes nothing
//   misdirect  the n-th matching write lands `shift` bytes further
//   flip       one bit of the n-th matching read or write is inverted
//   delay      the request completes later
//   hold       matching requests wait until released (tests of what happens meanwhile)
// Everything else passes through unchanged. Threads: rules may be changed at any time.
//
// Rules are tried in the order of their numbers. The first that hits a request decides, and those
// behind it do not see it. A rule whose `op` is unset matches what its kind can be done to: short
// and misdirect writes only; drop writes, and flushes or discards if `op` says so; flip reads and
// writes. Short leaves the first half of the request's sectors, rounded down: of one sector, none.
// Misdirect goes backwards where it would leave the device, and nowhere if that leaves it too.
// Delay carries the request out at once and holds its completion back. What is held has not reached
// the inner device; a held request goes there when its rule is removed, or when the device is
// destroyed.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "block/block_device.h"

namespace ourfs {

enum class FaultKind { Error, Short, Drop, Misdirect, Flip, Delay, Hold };

struct FaultRule {
  FaultKind kind = FaultKind::Error;
  std::optional<IoOp> op;          // unset: any
  std::optional<IoClass> cls;      // unset: any
  std::optional<DeviceOffset> at;  // only requests that touch this byte
  uint64_t skip = 0;               // this many matching requests pass first
  uint64_t times = 1;              // then so many are hit; UINT64_MAX for all
  int errnum = EIO;                // Error
  ByteCount shift{4096};           // Misdirect
  uint64_t bit = 0;                // Flip: which bit of the request's range
  std::chrono::microseconds delay{0};
};

struct FaultHit {  // what a rule did last
  IoOp op = IoOp::Read;
  IoClass cls = IoClass::Other;
  DeviceOffset offset;  // as it was asked for
  ByteCount length;
  DeviceOffset landed;  // Misdirect: where the write went; else `offset`
};

class FaultDevice : public BlockDevice {
 public:
  static std::unique_ptr<FaultDevice> wrap(BlockDevice& inner);  // `inner` outlives it
  virtual int addRule(const FaultRule& rule) = 0;                // its number
  virtual void removeRule(int number) = 0;                       // releases what it holds
  virtual void clear() = 0;
  virtual uint64_t hits(int number) const = 0;
  virtual uint64_t matched(int number) const = 0;  // requests that fitted, hit or let pass
  virtual std::optional<FaultHit> lastHit(int number) const = 0;
  virtual uint64_t held() const = 0;  // requests waiting now
};

}  // namespace ourfs
