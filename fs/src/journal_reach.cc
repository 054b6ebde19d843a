#include "journal_reach.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/checksum.h"
#include "common/codec.h"
#include "journal/format.h"

namespace ourfs {

namespace {

constexpr uint64_t kReadBytes = MiB;

// What stands in the ring at `header.lsn`, by its own account.
class RingScan {
 public:
  RingScan(BlockDevice& device, const JournalGeometry& geometry, const LogPosition& persisted,
           uint64_t maxGeneration)
      : device_(device),
        geometry_(geometry),
        persisted_(persisted),
        maxGeneration_(maxGeneration) {}

  Result<bool> reaches() {
    TRY(collect());
    // The youngest ones first: in a journal that is in order, the first answers.
    std::sort(starts_.begin(), starts_.end(), std::greater<>());
    for (uint64_t lsn : starts_) {
      if (lsn + geometry_.size.v < persisted_.end.v) break;
      TRY_ASSIGN(const bool found, followFrom(lsn));
      if (found) return true;
    }
    return false;
  }

 private:
  bool plausible(const RecordHeader& h, uint64_t at) const {
    return h.magic == kRecordMagic && h.flags == 0 && h.lsn % geometry_.size.v == at &&
           h.payloadLength <= geometry_.size.v / 4 && h.generation <= maxGeneration_;
  }

  // Writes start on sector boundaries: there stand the first records of all groups.
  Status collect() {
    AlignedBuffer buffer(std::max<uint64_t>(kReadBytes, geometry_.sector));
    for (uint64_t at = 0; at < geometry_.size.v; at += buffer.size()) {
      const uint64_t length = std::min<uint64_t>(buffer.size(), geometry_.size.v - at);
      TRY(device_.read(geometry_.start + ByteCount(at), buffer.span().first(length),
                       IoClass::Journal));
      for (uint64_t sector = 0; sector < length; sector += geometry_.sector) {
        RecordHeader header;
        std::memcpy(&header, buffer.data() + sector, sizeof(header));
        if (plausible(header, at + sector)) starts_.push_back(header.lsn);
      }
    }
    return Status::ok();
  }

  Status readRing(uint64_t lsn, std::span<std::byte> into) {
    const uint64_t at = lsn % geometry_.size.v;
    const uint64_t first = std::min<uint64_t>(into.size(), geometry_.size.v - at);
    TRY(readBytes(at, into.first(first)));
    return first == into.size() ? Status::ok() : readBytes(0, into.subspan(first));
  }

  Status readBytes(uint64_t at, std::span<std::byte> into) {
    const uint64_t from = roundDown(at, geometry_.sector);
    AlignedBuffer buffer(roundUp(at + into.size(), geometry_.sector) - from, geometry_.sector);
    TRY(device_.read(geometry_.start + ByteCount(from), buffer.span(), IoClass::Journal));
    std::memcpy(into.data(), buffer.data() + (at - from), into.size());
    return Status::ok();
  }

  // Follows one group's records; true if one ends at the persisted position or behind it.
  Result<bool> followFrom(uint64_t lsn) {
    while (true) {
      RecordHeader header;
      TRY(readRing(lsn, std::as_writable_bytes(std::span(&header, 1))));
      if (header.lsn != lsn || !plausible(header, lsn % geometry_.size.v)) return false;
      std::vector<std::byte> payload(header.payloadLength);
      TRY(readRing(lsn + sizeof(header), payload));
      const uint32_t stored = std::exchange(header.crc, 0);
      const uint32_t crc = crc32c(payload, crc32c(std::as_bytes(std::span(&header, 1))));
      if (crc != stored) return false;
      lsn = roundUp(lsn + sizeof(header) + payload.size(), kRecordAlignment);
      if (lsn > persisted_.end.v) return true;
      if (lsn == persisted_.end.v) return stored == persisted_.crc;
    }
  }

  BlockDevice& device_;
  const JournalGeometry geometry_;
  const LogPosition persisted_;
  const uint64_t maxGeneration_;
  std::vector<uint64_t> starts_;
};

}  // namespace

Status checkJournalReaches(BlockDevice& device, const JournalGeometry& geometry,
                           const LogPosition& persisted, uint64_t maxGeneration) {
  if (persisted.end.v == 0) return Status::ok();  // nothing was ever logged
  TRY_ASSIGN(const bool reached, RingScan(device, geometry, persisted, maxGeneration).reaches());
  if (reached) return Status::ok();
  return Status::corrupt(fmt::format(
      "journal: the index has persisted LSN {}, which the journal does not reach: its end is lost",
      persisted.end.v));
}

}  // namespace ourfs
