#include "position.h"

#include "common/checksum.h"
#include "common/codec.h"
#include "common/sync_point.h"

namespace ourfs {

namespace {

constexpr size_t kBody = 12;

uint32_t checksumOf(std::string_view body) {
  return crc32c(asBytes(body), crc32c(asBytes(kLogPositionKey)));
}

}  // namespace

std::string encodePosition(const AppliedPosition& position) {
  std::string value;
  Encoder e(value);
  e.u64(position.end.v);
  e.u32(position.crc);
  e.u32(checksumOf(value));
  return value;
}

Result<AppliedPosition> decodePosition(std::string_view value) {
  Decoder d(value);
  AppliedPosition position;
  position.end = Lsn(d.u64());
  position.crc = d.u32();
  const uint32_t checksum = d.u32();
  const bool right = checksum == checksumOf(value.substr(0, kBody)) ||
                     mutantEnabled("index.skip_position_checksum");
  if (!d.ok() || !d.atEnd() || !right) {
    return Status::corrupt("index: the log position is damaged");
  }
  return position;
}

}  // namespace ourfs
