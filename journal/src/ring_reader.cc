#include "ring_reader.h"

#include <algorithm>
#include <cstring>

namespace ourfs {

namespace {
constexpr uint64_t kChunkBytes = MiB;
}  // namespace

RingReader::RingReader(BlockDevice& device, const JournalGeometry& geometry)
    : device_(device), geometry_(geometry), chunk_(std::min(kChunkBytes, geometry.size.v)) {}

Status RingReader::copy(uint64_t lsn, std::span<std::byte> out) {
  for (size_t done = 0; done < out.size();) {
    const uint64_t at = (lsn + done) % geometry_.size.v;
    if (at < chunkStart_ || at >= chunkStart_ + chunkLength_) TRY(load(at));
    const uint64_t have = std::min<uint64_t>(chunkStart_ + chunkLength_ - at, out.size() - done);
    std::memcpy(out.data() + done, chunk_.data() + (at - chunkStart_), have);
    done += have;
  }
  return Status::ok();
}

Status RingReader::load(uint64_t ringOffset) {
  const uint64_t start = roundDown(ringOffset, geometry_.sector);
  const uint64_t room = roundDown(chunk_.size(), geometry_.sector);
  const uint64_t length = std::min(room, geometry_.size.v - start);
  chunkLength_ = 0;
  TRY(device_.read(geometry_.start + ByteCount(start), chunk_.span().first(length),
                   IoClass::Journal));
  chunkStart_ = start;
  chunkLength_ = length;
  return Status::ok();
}

}  // namespace ourfs
