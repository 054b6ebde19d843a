// RecordDevice: wraps a device and writes down every write, flush and discard, with its bytes.
//
// From the log, any state that a crash could have left can be built: at a crash point, what is
// durable is certain (a FUA write that completed, or a write that completed before a flush was
// submitted that completed), and any subset of the sectors of the other writes that were submitted
// before the point may be there too.
//
// A write or flush that failed makes nothing durable, and a failed write may have left any of its
// sectors. A discard is a write of "never written" (zero, or the device's fill). Requests that are
// refused (out of range, misaligned) are not recorded; reads advance the clock and are not
// recorded.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "block/block_device.h"
#include "block/memory_device.h"

namespace ourfs {

// Submission and completion of each request get their own numbers on one clock, so that overlap in
// time can be seen.
struct RecordedIo {
  IoOp op = IoOp::Write;
  IoClass cls = IoClass::Other;
  bool fua = false;
  DeviceOffset offset;
  std::vector<std::byte> bytes;  // Write
  ByteCount length;              // Write and Discard
  uint64_t submitted = 0;        // clock at submission
  uint64_t completed = 0;        // clock at completion; 0 while in flight
  bool ok = true;
  uint8_t tag = 0;  // what the tagger made of it
};

class RecordDevice : public BlockDevice {
 public:
  // Asked for each request that is written down, in the thread that submits it: tells apart what
  // the class of a request does not.
  using Tagger = std::function<uint8_t(const IoRequest&)>;
  // `inner` outlives it.
  static std::unique_ptr<RecordDevice> wrap(BlockDevice& inner, Tagger tagger = nullptr);
  // What was recorded since the last clear, in order of submission.
  virtual std::vector<RecordedIo> log() const = 0;
  virtual uint64_t clock() const = 0;  // now; every request and every mark() advances it
  // Writes a mark into time, and returns its clock: what a test acknowledges it can place.
  virtual uint64_t mark() = 0;
  virtual void clear() = 0;
};

// The state after a crash at `point` (a clock): `base` plus everything durable, plus, for every
// sector of every write that may or may not be there, what `keep` answers. Later writes to the same
// sector win over earlier ones if both are kept (a volatile cache holds one copy of a sector);
// `keep` is asked once per (write, sector), where `sector` counts logical sectors of `base` from
// the write's start. Writes are applied in order of submission. Events whose clock is `point` have
// happened.
std::unique_ptr<MemoryDevice> crashImage(
    const MemoryDevice& base, const std::vector<RecordedIo>& log, uint64_t point,
    const std::function<bool(size_t write, size_t sector)>& keep);
// The numbers (in log) of the writes and discards that are not durable at `point` but were
// submitted before it: those that crashImage asks `keep` about.
std::vector<size_t> volatileWrites(const std::vector<RecordedIo>& log, uint64_t point);

}  // namespace ourfs
