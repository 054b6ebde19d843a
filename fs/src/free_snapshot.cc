#include "free_snapshot.h"

#include <algorithm>
#include <cstring>

#include "common/checksum.h"
#include "common/codec.h"
#include "index/schema.h"

namespace ourfs {

namespace {

enum class GroupForm : uint8_t { Runs = 1, Bitmap = 2 };
constexpr size_t kRunBytes = 4;
constexpr size_t kBitmapBytes = kGroupBlocks / 8;

Status bad() { return Status::corrupt("free-space snapshot: a value cannot be right"); }

std::string encodeBitmap(const GroupRuns& runs) {
  std::string bits(kBitmapBytes, '\0');
  for (const auto& run : runs) {
    for (uint32_t b = run.start; b < run.start + run.count; ++b) {
      bits[b / 8] = static_cast<char>(static_cast<uint8_t>(bits[b / 8]) | (1u << (b % 8)));
    }
  }
  return bits;
}

GroupRuns decodeBitmap(std::string_view bits) {
  GroupRuns runs;
  for (uint32_t b = 0; b < kGroupBlocks; ++b) {
    if ((static_cast<uint8_t>(bits[b / 8]) >> (b % 8) & 1) == 0) continue;
    if (!runs.empty() && runs.back().start + runs.back().count == b) {
      ++runs.back().count;
    } else {
      runs.push_back({b, 1});
    }
  }
  return runs;
}

}  // namespace

std::string encodeSnapshotHeader(const SnapshotHeader& header) {
  std::string value;
  Encoder e(value);
  e.u32(kGroupBlocks);
  e.u32(header.crc);
  e.u64(header.generation);
  e.u64(header.groups);
  e.u64(header.usedBlocks);
  e.u32(crc32c(asBytes(value)));
  return value;
}

Result<SnapshotHeader> decodeSnapshotHeader(std::string_view value) {
  Decoder d(value);
  SnapshotHeader header;
  const uint32_t groupBlocks = d.u32();
  header.crc = d.u32();
  header.generation = d.u64();
  header.groups = d.u64();
  header.usedBlocks = d.u64();
  const uint32_t crc = d.u32();
  if (!d.ok() || !d.atEnd() || groupBlocks != kGroupBlocks) return bad();
  if (crc != crc32c(asBytes(value.substr(0, value.size() - sizeof(crc))))) return bad();
  return header;
}

std::string encodeGroup(const GroupRuns& runs) {
  std::string value;
  Encoder e(value);
  if (runs.size() * kRunBytes >= kBitmapBytes) {
    e.u8(static_cast<uint8_t>(GroupForm::Bitmap));
    e.bytes(encodeBitmap(runs));
    return value;
  }
  e.u8(static_cast<uint8_t>(GroupForm::Runs));
  for (const auto& run : runs) {
    e.u16(static_cast<uint16_t>(run.start));
    e.u16(static_cast<uint16_t>(run.count - 1));
  }
  return value;
}

Result<GroupRuns> decodeGroup(std::string_view value) {
  Decoder d(value);
  const auto form = static_cast<GroupForm>(d.u8());
  if (form == GroupForm::Bitmap && d.remaining() == kBitmapBytes) {
    return decodeBitmap(d.bytes(kBitmapBytes));
  }
  if (form != GroupForm::Runs || d.remaining() % kRunBytes != 0) return bad();
  GroupRuns runs;
  uint32_t from = 0;
  while (!d.atEnd()) {
    const uint32_t start = d.u16(), count = uint32_t{d.u16()} + 1;
    if (start < from || start + count > kGroupBlocks) return bad();
    from = start + count;
    runs.push_back({start, count});
  }
  return runs;
}

void SnapshotBuilder::add(BlockRun used) {
  for (uint64_t at = used.start.v, left = used.count.v; left != 0;) {
    const auto within = static_cast<uint32_t>(at % kGroupBlocks);
    const auto count = static_cast<uint32_t>(std::min<uint64_t>(left, kGroupBlocks - within));
    groups_[at / kGroupBlocks].push_back({within, count});
    at += count;
    left -= count;
  }
}

std::map<std::string, std::string> SnapshotBuilder::finish(SnapshotHeader& header) {
  std::map<std::string, std::string> values;
  for (const auto& [group, runs] : groups_) {
    for (const auto& run : runs) header.usedBlocks += run.count;
    const auto at = values.emplace(freeGroupKey(group), encodeGroup(runs)).first;
    header.crc = crc32c(asBytes(at->second), crc32c(asBytes(at->first), header.crc));
  }
  header.groups = values.size();
  return values;
}

}  // namespace ourfs
