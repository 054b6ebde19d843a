#include "lost_units.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "common/aligned_buffer.h"
#include "common/sync_point.h"

namespace ourfs {

namespace {

constexpr uint64_t kScanPiece = 1 * MiB;

auto placeInFile(const LostUnit& u) { return std::tuple(u.claim.fileId, u.claim.number); }

class UnitScan {
 public:
  UnitScan(BlockDevice& device, const IndexGeometry& geometry)
      : device_(device),
        unitSize_(geometry.blockSize),
        from_(roundUp(geometry.tableStart.v + 2 * geometry.tableSlotSize.v, unitSize_)),
        end_(std::min(geometry.volumeSize.v, device.size().v) / unitSize_ * unitSize_) {}

  void run(const std::function<void(ByteCount done, ByteCount total)>& progress) {
    AlignedBuffer piece(kScanPiece);
    for (uint64_t at = from_; at < end_; at += kScanPiece) {
      const auto bytes = piece.span().first(std::min(kScanPiece, end_ - at));
      if (device_.read(DeviceOffset(at), bytes, IoClass::Index))
        look(at, bytes);
      else
        lookAtEach(at, bytes);
      progress(ByteCount(at + bytes.size() - from_), ByteCount(end_ - from_));
    }
  }

  std::vector<LostUnit> take() { return std::move(found_); }
  uint64_t unreadable() const { return unreadable_; }  // bytes

 private:
  void lookAtEach(uint64_t at, std::span<std::byte> bytes) {
    for (uint64_t i = 0; i < bytes.size(); i += unitSize_) {
      const auto unit = bytes.subspan(i, unitSize_);
      if (device_.read(DeviceOffset(at + i), unit, IoClass::Index))
        look(at + i, unit);
      else
        unreadable_ += unitSize_;
    }
  }

  void look(uint64_t at, std::span<const std::byte> bytes) {
    for (uint64_t i = 0; i < bytes.size(); i += unitSize_) {
      const auto claim = claimOf(bytes.subspan(i, unitSize_));
      if (claim && claim->number < end_ / unitSize_)
        found_.push_back({*claim, (at + i) / unitSize_});
    }
  }

  BlockDevice& device_;
  const uint64_t unitSize_;
  const uint64_t from_, end_;
  std::vector<LostUnit> found_;
  uint64_t unreadable_ = 0;
};

// Bytes that were never units agree on a seed now and then, but hardly on a file besides.
bool anyTwoOfAFile(std::span<const LostUnit> units) {
  return std::ranges::adjacent_find(units, [](const LostUnit& a, const LostUnit& b) {
           return a.claim.fileId == b.claim.fileId && a.claim.number != b.claim.number;
         }) != units.end();
}

// Of one seed, in order: a number that two different units claim is neither's.
uint64_t dropRivals(std::vector<LostUnit>& units) {
  std::vector<LostUnit> kept;
  uint64_t dropped = 0;
  for (size_t i = 0; i < units.size();) {
    size_t next = i;
    bool same = true;
    for (; next < units.size() && placeInFile(units[next]) == placeInFile(units[i]); ++next)
      same = same && units[next].claim.crc == units[i].claim.crc;
    if (same || mutantEnabled("salvage.rivals_count"))
      kept.push_back(units[i]);
    else
      dropped += next - i;
    i = next;
  }
  units = std::move(kept);
  return dropped;
}

}  // namespace

Result<LostUnits> findLostUnits(
    BlockDevice& device, const IndexGeometry& geometry,
    const std::function<void(const std::string&)>& note,
    const std::function<void(ByteCount done, ByteCount total)>& progress) {
  UnitScan scan(device, geometry);
  scan.run(progress);
  std::vector<LostUnit> all = scan.take();
  std::ranges::sort(all, {}, [](const LostUnit& u) {
    return std::tuple(u.claim.seed, u.claim.fileId, u.claim.number, u.place);
  });
  std::optional<LostUnits> best;
  size_t volumes = 0;
  for (auto from = all.begin(); from != all.end();) {
    const auto to = std::find_if(
        from, all.end(), [&](const LostUnit& u) { return u.claim.seed != from->claim.seed; });
    if (anyTwoOfAFile({from, to})) {
      const uint64_t first = std::ranges::min_element(from, to, {}, &LostUnit::place)->place;
      ++volumes;
      if (!best || (first < best->firstPlace) != mutantEnabled("salvage.any_volume"))
        best = LostUnits{from->claim.seed, first, {from, to}};
    }
    from = to;
  }
  if (scan.unreadable() != 0)
    note(std::to_string(scan.unreadable()) + " bytes of the device cannot be read");
  if (!best) return Status::corrupt("no part of the index was found on the device");
  if (volumes > 1)
    note("parts of " + std::to_string(volumes) +
         " volumes were found on the device: the one that begins in front is taken");
  if (const uint64_t rivals = dropRivals(best->units); rivals != 0)
    note(std::to_string(rivals) + " of its units are there twice, and differ: none of them counts");
  return std::move(*best);
}

}  // namespace ourfs
