// A journal whose records have right checksums, positions and links, but where the fuzzer says
// otherwise; their payloads are decoded as batches.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "block/memory_device.h"
#include "common/codec.h"
#include "fuzz_input.h"
#include "index/batch.h"
#include "index/schema.h"
#include "journal/replay.h"
#include "record.h"

namespace {

using namespace ourfs;

constexpr uint64_t kRingBytes = 64 * KiB, kRingStart = 64 * KiB;
constexpr uint64_t kNewestGeneration = 5;

struct Ring {
  std::string bytes = std::string(kRingBytes, '\0');
  LogPosition tail;                 // where the index says that it is
  uint64_t damagedAt = UINT64_MAX;  // the first record with a wrong checksum
};

// The ring as the fuzzer wants it.
Ring ringOf(fuzz::Input& in) {
  Ring ring;
  LogPosition& tail = ring.tail;
  const auto put = [&](uint64_t lsn, std::string_view bytes) {
    for (const char c : bytes) ring.bytes[lsn++ % kRingBytes] = c;
  };
  tail.end = Lsn(roundDown(in.u64() % (uint64_t{1} << 61), kRecordAlignment));
  tail.crc = in.u16();
  uint64_t lsn = tail.end.v;
  uint32_t previous = tail.crc;
  for (int n = 0; n < 64 && !in.atEnd(); ++n) {
    const uint8_t odd = in.u8();
    const std::string payload = in.piece();
    if (odd % 2 == 1) lsn = roundUp(lsn, 512);
    RecordHeader h;
    h.payloadLength = static_cast<uint32_t>(payload.size());
    h.previousCrc = previous;
    h.lsn = lsn;
    h.generation = 1;
    switch (odd / 2) {
      case 1:
        h.lsn += kRingBytes * (in.u8() % 3);
        break;
      case 2:
        h.generation = in.u8();
        break;
      case 3:
        h.durableLsn = in.u64();
        break;
      case 4:
        h.previousCrc ^= 1;
        break;
      case 5:
        h.flags = in.u8();
        break;
      case 6:
        h.payloadLength = static_cast<uint32_t>(in.u64());
        break;
      case 7:
        h.lsn = in.u64();
        break;
      case 8:
        h.durableLsn = lsn;
        break;
      default:
        break;
    }
    h.crc = recordCrc(h, asBytes(payload));
    if (odd / 2 == 9) {
      h.crc ^= 1;
      ring.damagedAt = std::min(ring.damagedAt, lsn);
    }
    put(lsn, asChars(std::as_bytes(std::span(&h, 1))));
    put(lsn + sizeof h, payload);
    previous = h.crc;
    lsn += recordBytes(payload.size());
  }
  return ring;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  spdlog::set_level(spdlog::level::off);
  static const auto base = MemoryDevice::create(ByteCount(1 * MiB));
  const auto device = base->clone();
  fuzz::Input in(data, size);
  const Ring ring = ringOf(in);
  const JournalGeometry geometry{DeviceOffset(kRingStart), ByteCount(kRingBytes), 512};
  fuzz::require(device->write(geometry.start, asBytes(ring.bytes)).isOk());
  uint64_t lastEnd = ring.tail.end.v;
  const auto each = [&](const LogPosition& at, std::span<const std::byte> payload) {
    fuzz::require(at.end.v > lastEnd && payload.size() <= kRingBytes / 4);
    lastEnd = at.end.v;
    fuzz::require(lastEnd <= ring.damagedAt);
    const auto batch = IndexBatch::decode(asChars(payload));
    if (!batch) return Status::ok();
    fuzz::require(batch->encode() == asChars(payload));
    for (const IndexBatch::Change& change : batch->changes()) {
      const auto key = parseKey(change.key);
      if (key && key->kind == 'I') (void)decodeInode(key->ino, change.value);
      if (key && key->kind == 'D') (void)decodeDirent(change.value);
    }
    return Status::ok();
  };
  const auto replayed = replayJournal(*device, geometry, ring.tail, kNewestGeneration, each);
  fuzz::require(replayed.isOk() || replayed.errnum() == EUCLEAN);
  if (replayed)
    fuzz::require(replayed->end.end.v == lastEnd && lastEnd <= ring.tail.end.v + kRingBytes);
  return 0;
}
