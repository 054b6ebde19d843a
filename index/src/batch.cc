#include "index/batch.h"

#include "common/codec.h"

namespace ourfs {

namespace {
constexpr uint8_t kPut = 1;
constexpr uint8_t kErase = 2;
constexpr size_t kCountSize = 4;
constexpr size_t kEraseOverhead = 1 + 2;  // op, key length
constexpr size_t kPutOverhead = kEraseOverhead + 4;
}  // namespace

void IndexBatch::put(std::string key, std::string value) {
  encodedSize_ += kPutOverhead + key.size() + value.size();
  changes_.push_back(Change{true, std::move(key), std::move(value)});
}

void IndexBatch::erase(std::string key) {
  encodedSize_ += kEraseOverhead + key.size();
  changes_.push_back(Change{false, std::move(key), {}});
}

std::string IndexBatch::encode() const {
  std::string out;
  out.reserve(encodedSize_);
  Encoder e(out);
  e.u32(static_cast<uint32_t>(changes_.size()));
  for (const Change& c : changes_) {
    e.u8(c.isPut ? kPut : kErase);
    e.bytes16(c.key);
    if (c.isPut) e.bytes32(c.value);
  }
  return out;
}

Result<IndexBatch> IndexBatch::decode(std::string_view bytes) {
  static_assert(kCountSize == sizeof(uint32_t));
  Decoder d(bytes);
  const uint32_t count = d.u32();
  // Checked before anything is reserved: a count may be any number.
  if (!d.ok() || count > d.remaining() / kEraseOverhead) {
    return Status::corrupt("index batch: its count does not fit its bytes");
  }
  IndexBatch batch;
  batch.changes_.reserve(count);
  for (uint32_t i = 0; i < count && d.ok(); ++i) {
    const uint8_t op = d.u8();
    const std::string_view key = d.bytes16();
    if (op == kPut) {
      batch.put(std::string(key), std::string(d.bytes32()));
    } else if (op == kErase) {
      batch.erase(std::string(key));
    } else {
      return Status::corrupt("index batch: unknown operation");
    }
    if (key.empty()) return Status::corrupt("index batch: an empty key");
  }
  if (!d.ok() || !d.atEnd()) return Status::corrupt("index batch: wrong length");
  return batch;
}

}  // namespace ourfs
