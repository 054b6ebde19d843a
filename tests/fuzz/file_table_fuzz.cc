// A file table whose checksums and chain are right, with a snapshot and deltas of the fuzzer's
// choice.
#include <algorithm>
#include <cstring>

#include "block/memory_device.h"
#include "common/checksum.h"
#include "common/codec.h"
#include "file_table.h"
#include "fuzz_input.h"
#include "unit.h"

namespace {

using namespace ourfs;

constexpr uint64_t kSlotBytes = 32 * KiB, kDeviceBytes = 32 * MiB;

IndexGeometry fuzzGeometry() {
  IndexGeometry g;
  g.tableStart = DeviceOffset(128 * KiB);
  g.tableSlotSize = ByteCount(kSlotBytes);
  g.volumeSize = ByteCount(kDeviceBytes);
  return g;
}

template <class Header>
void putHeader(std::string& slot, size_t at, Header header, const std::string& body, uint32_t seed,
               uint32_t* crc) {
  std::memcpy(slot.data() + at, &header, sizeof header);
  slot.replace(at + sizeof header, body.size(), body);
  header.crc =
      crc32c(asBytes(std::string_view(slot).substr(at + 8, sizeof header - 8 + body.size())), seed);
  std::memcpy(slot.data() + at, &header, sizeof header);
  *crc = header.crc;
}

// One slot: what is odd about it, a body, and deltas until an empty one.
std::string slotOf(fuzz::Input& in, uint64_t sequence) {
  std::string slot(kSlotBytes, '\0');
  const uint8_t odd = in.u8();
  SlotHeader header{};
  header.magic = kSlotMagic;
  header.version = odd == 1 ? 2 : kTableVersion;
  header.blockSize = odd == 2 ? 512 : 4096;
  header.sequence = odd == 3 ? in.u64() : sequence;
  header.tableId = odd == 4 ? 2 : 1;
  header.volumeSize = odd == 5 ? in.u64() : kDeviceBytes;
  header.nextId = odd == 6 ? in.u64() : 1000;
  std::string body = in.piece();
  body.resize(std::min<size_t>(body.size(), kSlotBytes / 2));
  header.bodyLength = body.size();
  uint32_t previous = 0;
  putHeader(slot, 0, header, body, 0, &previous);
  const uint32_t seed = seedOf(header.tableId);
  size_t at = roundUp(sizeof header + body.size(), kTableSector);
  for (uint32_t index = 1; at + kTableSector <= slot.size(); ++index) {
    std::string ops = in.piece();
    if (ops.empty()) break;
    ops.resize(std::min<size_t>(ops.size(), kTableSector - sizeof(DeltaHeader)));
    DeltaHeader delta{};
    delta.magic = kDeltaMagic;
    delta.previous = previous;
    delta.length = static_cast<uint32_t>(ops.size());
    delta.sequence = header.sequence;
    delta.index = index;
    putHeader(slot, at, delta, ops, seed, &previous);
    at += kTableSector;
  }
  return slot;
}

std::string describe(const FileTable& table) {
  std::string text;
  for (const BlockRun& r : table.pool()) {
    text += std::to_string(r.start.v) + "+" + std::to_string(r.count.v) + " ";
  }
  for (const TableFile& f : table.files()) {
    text += f.name + ":" + std::to_string(f.id) + ":" + std::to_string(f.size()) + f.bytes + " ";
    for (const BlockRun& r : f.runs)
      text += std::to_string(r.start.v) + "+" + std::to_string(r.count.v);
  }
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto base = MemoryDevice::create(ByteCount(kDeviceBytes));
  const IndexGeometry geometry = fuzzGeometry();
  const auto device = base->clone();
  fuzz::Input in(data, size);
  const std::string first = slotOf(in, 2);
  fuzz::require(device->write(geometry.tableStart, asBytes(first)).isOk());
  if (!in.atEnd()) {
    const std::string second = slotOf(in, 3);
    fuzz::require(
        device->write(geometry.tableStart + ByteCount(kSlotBytes), asBytes(second)).isOk());
  }
  const auto table = FileTable::load(*device, geometry, false);
  if (!table.isOk()) {
    fuzz::require(table.errnum() == EUCLEAN && !table.status().message().empty());
    return 0;
  }
  // What was taken for good lies inside the volume, and can be changed and read again.
  for (const BlockRun& r : (*table)->usedRuns()) {
    fuzz::require((r.start + r.count).v <= kDeviceBytes / geometry.blockSize);
  }
  const uint64_t id = (*table)->newId();
  const Status made = (*table)->create(id, "made-by-the-fuzzer");
  if (!made.isOk()) return 0;  // it has one of that name
  const Status synced = (*table)->sync();
  if (!synced.isOk()) return 0;  // its slot is full
  const auto again = FileTable::load(*device, geometry, true);
  fuzz::require(again.isOk() && describe(**again) == describe(**table));
  return 0;
}
