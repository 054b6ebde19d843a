#include <algorithm>

#include "block/record_device.h"

namespace ourfs {

namespace {

bool changesContents(const RecordedIo& io) {
  return io.op == IoOp::Write || io.op == IoOp::Discard;
}

// What a log says is certain at one point in time.
class Durability {
 public:
  Durability(const std::vector<RecordedIo>& log, uint64_t point) : point_(point) {
    for (const RecordedIo& io : log) {
      if (io.op == IoOp::Flush && succeeded(io))
        coveredBefore_ = std::max(coveredBefore_, io.submitted);
    }
  }
  bool submitted(const RecordedIo& io) const { return io.submitted <= point_; }
  bool durable(const RecordedIo& io) const {
    if (!succeeded(io)) return false;
    return (io.fua && io.op == IoOp::Write) || io.completed < coveredBefore_;
  }

 private:
  bool succeeded(const RecordedIo& io) const {
    return io.ok && io.completed != 0 && io.completed <= point_;
  }
  uint64_t point_;
  // Submission of the last flush that had succeeded: it covers what had completed before that.
  uint64_t coveredBefore_ = 0;
};

// A device in memory refuses only misuse, and the recorder has let none through.
void apply(MemoryDevice& image, const RecordedIo& io, uint64_t from, uint64_t size) {
  const DeviceOffset at = io.offset + ByteCount(from);
  if (io.op == IoOp::Discard) {
    (void)image.discard(at, ByteCount(size));
  } else {
    (void)image.write(at, std::span(io.bytes).subspan(from, size));
  }
}

}  // namespace

std::unique_ptr<MemoryDevice> crashImage(
    const MemoryDevice& base, const std::vector<RecordedIo>& log, uint64_t point,
    const std::function<bool(size_t write, size_t sector)>& keep) {
  const Durability durability(log, point);
  const uint64_t sector = base.logicalSector();
  std::unique_ptr<MemoryDevice> image = base.clone();
  for (size_t i = 0; i < log.size(); ++i) {
    const RecordedIo& io = log[i];
    if (!changesContents(io) || !durability.submitted(io)) continue;
    if (durability.durable(io)) {
      apply(*image, io, 0, io.length.v);
      continue;
    }
    for (uint64_t s = 0; s < io.length.v / sector; ++s) {
      if (keep(i, s)) apply(*image, io, s * sector, sector);
    }
  }
  return image;
}

std::vector<size_t> volatileWrites(const std::vector<RecordedIo>& log, uint64_t point) {
  const Durability durability(log, point);
  std::vector<size_t> numbers;
  for (size_t i = 0; i < log.size(); ++i) {
    if (changesContents(log[i]) && durability.submitted(log[i]) && !durability.durable(log[i])) {
      numbers.push_back(i);
    }
  }
  return numbers;
}

}  // namespace ourfs
