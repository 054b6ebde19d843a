#include "images/sparse_image.h"

#include <cstdlib>

#include "common/codec.h"

namespace ourfs::images {

namespace {

constexpr uint64_t kPieceBytes = 512;
constexpr uint64_t kAtOnce = 1 * MiB;

// A test's own device in memory fails only if the test asks for the impossible.
void expectDone(const Status& status) {
  if (!status.isOk()) std::abort();
}

}  // namespace

std::string sparseImage(BlockDevice& device) {
  std::string out;
  Encoder e(out);
  e.u64(device.size().v);
  std::string pending;
  uint64_t pendingAt = 0;
  const auto put = [&] {
    if (pending.empty()) return;
    e.u64(pendingAt);
    e.bytes32(pending);
    pending.clear();
  };
  const std::string zeros(kPieceBytes, '\0');
  for (uint64_t at = 0; at < device.size().v; at += kAtOnce) {
    const std::string bytes = peek(device, at, std::min(kAtOnce, device.size().v - at));
    for (uint64_t i = 0; i < bytes.size(); i += kPieceBytes) {
      const std::string_view piece = std::string_view(bytes).substr(i, kPieceBytes);
      if (piece == zeros) {
        put();
        continue;
      }
      if (pending.empty()) pendingAt = at + i;
      pending += piece;
    }
  }
  put();
  return out;
}

std::unique_ptr<MemoryDevice> deviceFrom(std::string_view image) {
  Decoder d(image);
  const uint64_t size = d.u64();
  if (!d.ok() || size == 0 || size > GiB || !isAligned(size, kPieceBytes)) return nullptr;
  auto device = MemoryDevice::create(ByteCount(size));
  while (!d.atEnd()) {
    const uint64_t at = d.u64();
    const std::string_view bytes = d.bytes32();
    if (!d.ok() || at > size || bytes.size() > size - at) return nullptr;
    expectDone(device->write(DeviceOffset(at), asBytes(bytes)));
  }
  return device;
}

std::string peek(BlockDevice& device, uint64_t at, uint64_t length) {
  const uint64_t from = roundDown(at, kPieceBytes), to = roundUp(at + length, kPieceBytes);
  std::string bytes(to - from, '\0');
  expectDone(device.read(DeviceOffset(from), std::as_writable_bytes(std::span(bytes))));
  return bytes.substr(at - from, length);
}

void poke(BlockDevice& device, uint64_t at, std::string_view bytes) {
  const uint64_t from = roundDown(at, kPieceBytes), to = roundUp(at + bytes.size(), kPieceBytes);
  std::string all = peek(device, from, to - from);
  all.replace(at - from, bytes.size(), bytes);
  expectDone(device.write(DeviceOffset(from), asBytes(all)));
}

}  // namespace ourfs::images
