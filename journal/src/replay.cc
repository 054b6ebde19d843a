#include "journal/replay.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <vector>

#include "common/sync_point.h"
#include "record.h"
#include "ring_reader.h"

// What may lie behind the break, at B, of the chain, and why nothing of it is taken for a loss:
//
//   Earlier laps. A record stands at ring offset LSN mod size, and the window [tail, tail + size)
//   has one LSN for each offset. A record of an earlier lap has a smaller one there.
//
//   Later laps. They are written only over what lies below a tail that the index had persisted. So
//   one valid record of a later lap proves that the index has gone back in time: EUCLEAN.
//
//   This lap, the generation of the chain's end. The record's durable LSN, D, was true when it was
//   written: all records that end at or below D were on stable storage, and they are those of the
//   chain, since a mount continues the chain that its replay found. If D > B, one of them is gone.
//   A leftover of a write that was torn, or that overtook another, has D <= B: had everything below
//   D been durable, the chain would reach D.
//
//   This lap, an older generation. Where its log broke off, at B', a younger mount began to write.
//   What is left of it behind B' was not durable, so has D <= B', and B' <= B unless the younger
//   mount's records were lost. It is not even looked at if the chain has reached a younger
//   generation.
//
//   This lap, a younger generation than the chain's end. That mount replayed the chain to where it
//   began to write; D is never above what its own log had durable, and it starts with D at the tail
//   of its time. Either it wrote nothing durable, then D <= B; or it did, and that is what is
//   missing.
//
//   This lap, the chain's next record, a generation that the superblock does not know. A mount
//   writes its generation there, durably, before its first record: that write was lost.
//
//   Bytes inside a payload. Records are looked for at sector boundaries and by following a valid
//   one. A payload that imitates a record needs the right LSN, a generation in range and a
//   checksum: that takes intent, and it gets its author no more than a mount that is refused.

namespace ourfs {

namespace {

// A tail beyond this is garbage; below it no sum of positions overflows.
constexpr uint64_t kMaxLsn = uint64_t{1} << 62;
// Checking garbage that looks like records may cost at most so many times the ring.
constexpr uint64_t kScanFactor = 16;
constexpr uint64_t kAnyGeneration = UINT64_MAX;

class Replayer {
 public:
  Replayer(BlockDevice& device, const JournalGeometry& geometry, const LogPosition& tail,
           uint64_t maxGeneration)
      : reader_(device, geometry),
        tail_(tail),
        size_(geometry.size.v),
        sector_(geometry.sector),
        maxPayload_(maxPayloadBytes(geometry)),
        maxGeneration_(maxGeneration),
        limit_(roundDown(tail.end.v, sector_) + size_),
        scanBudget_(kScanFactor * size_) {
    summary_.end = tail;
  }

  using Each = std::function<Status(const LogPosition&, std::span<const std::byte>)>;

  Result<ReplaySummary> run(const Each& each) {
    TRY(follow(each));
    if (mutantEnabled("journal.ignore_chain")) TRY(followPastBreaks(each));
    TRY(scanBehindBreak());
    return std::move(summary_);
  }

 private:
  // Hands out record after record until the chain breaks.
  Status follow(const Each& each) {
    while (true) {
      TRY_ASSIGN(const bool more, findNext());
      if (!more) return Status::ok();
      TRY(handOut(each));
    }
  }

  Status handOut(const Each& each) {
    const LogPosition position{Lsn(header_.lsn + recordBytes(payload_.size())), header_.crc};
    TRY(each(position, payload_));
    summary_.end = position;
    summary_.generation = header_.generation;
    ++summary_.records;
    summary_.payloadBytes += payload_.size();
    return Status::ok();
  }

  // The successor of the chain's end: right behind it, or in the next sector if another write
  // began.
  Result<bool> findNext() {
    const uint64_t end = summary_.end.end.v;
    const uint64_t candidates[] = {end, roundUp(end, sector_)};
    const size_t count = candidates[0] == candidates[1] ? 1 : 2;
    for (size_t i = 0; i < count; ++i) {
      TRY_ASSIGN(const bool valid, loadAt(candidates[i], candidates[i], limit_, kAnyGeneration));
      if (!valid || header_.previousCrc != summary_.end.crc ||
          header_.generation < summary_.generation) {
        continue;
      }
      if (header_.generation <= maxGeneration_) return true;
      reportOldSuperblock();
      return false;
    }
    return false;
  }

  // Reads the record in the ring at `at`, into header_ and payload_. False if there is none that is
  // whole and carries the LSN `lsn`, with its end at or below `limit`.
  Result<bool> loadAt(uint64_t at, uint64_t lsn, uint64_t limit) {
    return loadAt(at, lsn, limit, maxGeneration_);
  }
  Result<bool> loadAt(uint64_t at, uint64_t lsn, uint64_t limit, uint64_t maxGeneration) {
    if (limit - lsn < sizeof(RecordHeader)) return false;
    TRY(readHeader(at));
    if (header_.lsn != lsn || !plausible(limit, maxGeneration)) return false;
    payload_.resize(header_.payloadLength);
    TRY(reader_.copy(at + sizeof(RecordHeader), payload_));
    if (mutantEnabled("journal.skip_checksum")) return true;
    return recordCrc(header_, payload_) == header_.crc;
  }

  Status readHeader(uint64_t at) {
    return reader_.copy(at, std::as_writable_bytes(std::span(&header_, 1)));
  }

  // Everything about header_ that can be told without the payload and the neighbours.
  bool plausible(uint64_t limit) const { return plausible(limit, maxGeneration_); }
  bool plausible(uint64_t limit, uint64_t maxGeneration) const {
    return header_.magic == kRecordMagic && header_.flags == 0 &&
           header_.payloadLength <= maxPayload_ && header_.generation <= maxGeneration &&
           header_.durableLsn <= header_.lsn && header_.lsn <= limit &&
           recordBytes(header_.payloadLength) <= limit - header_.lsn;
  }

  // Looks at every sector that the chain does not cover.
  Status scanBehindBreak() {
    const uint64_t end = summary_.end.end.v;
    const bool midSector = summary_.records == 0 && !isAligned(end, sector_);
    if (midSector) TRY(checkLaterLap(end));
    uint64_t at = midSector ? roundDown(end, sector_) : roundUp(end, sector_);
    while (at < limit_ && scanBudget_ != 0) {
      TRY(checkLaterLap(at));
      TRY_ASSIGN(const uint64_t behind, checkLoss(at));
      at = std::max(at + sector_, roundUp(behind, sector_));
    }
    if (scanBudget_ == 0) spdlog::warn("journal: too much garbage behind its end to look through");
    return Status::ok();
  }

  Status checkLaterLap(uint64_t at) {
    if (mutantEnabled("journal.ignore_later_lap")) return Status::ok();
    TRY(readHeader(at));
    const uint64_t lsn = header_.lsn;
    if (lsn <= at || lsn >= kMaxLsn || (lsn - at) % size_ != 0 || !plausible(lsn + size_)) {
      return Status::ok();
    }
    spendBudget();
    TRY_ASSIGN(const bool valid, loadAt(at, lsn, lsn + size_));
    if (!valid) return Status::ok();
    return Status::corrupt("journal: a record of LSN " + std::to_string(lsn) +
                           " stands where the index expects LSN " + std::to_string(at) +
                           ": the index is older than the journal");
  }

  // Follows the records from `at` on, in search of one that proves a loss. The end of the last one,
  // or `at` if there is none.
  Result<uint64_t> checkLoss(uint64_t at) {
    uint64_t generation = summary_.generation;
    while (at < limit_ && summary_.lost.empty()) {
      if (limit_ - at < sizeof(RecordHeader)) break;
      TRY(readHeader(at));
      if (header_.lsn != at || header_.generation < generation || !plausible(limit_)) break;
      spendBudget();
      TRY_ASSIGN(const bool valid, loadAt(at, at, limit_));
      if (!valid) break;
      if (header_.durableLsn > summary_.end.end.v) reportLoss();
      generation = header_.generation;
      at += recordBytes(header_.payloadLength);
    }
    return at;
  }

  void reportLoss() {
    if (mutantEnabled("journal.ignore_loss")) return;
    summary_.lost = "journal: everything below LSN " + std::to_string(header_.durableLsn) +
                    " was durable, but the records end at LSN " +
                    std::to_string(summary_.end.end.v);
  }

  // A mount writes its generation to the superblock before its first record.
  void reportOldSuperblock() {
    summary_.lost = "journal: mount " + std::to_string(header_.generation) +
                    " has written records, but the superblock knows of " +
                    std::to_string(maxGeneration_) + " mounts: it is older than the journal";
  }

  void spendBudget() { scanBudget_ -= std::min(scanBudget_, recordBytes(header_.payloadLength)); }

  // Mutant: takes up the chain again at whatever whole record comes.
  Status followPastBreaks(const Each& each) {
    for (uint64_t at = summary_.end.end.v; at < limit_; at += kRecordAlignment) {
      TRY_ASSIGN(const bool valid, loadAt(at, at, limit_));
      if (!valid) continue;
      TRY(handOut(each));
      TRY(follow(each));
      at = summary_.end.end.v - kRecordAlignment;
    }
    return Status::ok();
  }

  RingReader reader_;
  const LogPosition tail_;
  const uint64_t size_, sector_, maxPayload_, maxGeneration_;
  const uint64_t limit_;  // the LSN behind the current lap
  uint64_t scanBudget_;
  RecordHeader header_;
  std::vector<std::byte> payload_;
  ReplaySummary summary_;
};

}  // namespace

Result<ReplaySummary> replayJournal(
    BlockDevice& device, const JournalGeometry& geometry, const LogPosition& tail,
    uint64_t maxGeneration,
    const std::function<Status(const LogPosition&, std::span<const std::byte>)>& each) {
  if (std::string fault = geometryFault(device, geometry); !fault.empty()) {
    return Status::error(EINVAL, "journal: " + fault);
  }
  if (!isAligned(tail.end.v, kRecordAlignment) || tail.end.v >= kMaxLsn) {
    return Status::corrupt("journal: the index names LSN " + std::to_string(tail.end.v) +
                           ", where no record can end");
  }
  return Replayer(device, geometry, tail, maxGeneration).run(each);
}

Status eraseJournal(BlockDevice& device, const JournalGeometry& geometry) {
  if (std::string fault = geometryFault(device, geometry); !fault.empty()) {
    return Status::error(EINVAL, "journal: " + fault);
  }
  const AlignedBuffer zeros(std::max<uint64_t>(MiB, geometry.sector));
  for (uint64_t at = 0; at < geometry.size.v; at += zeros.size()) {
    const uint64_t length = std::min<uint64_t>(zeros.size(), geometry.size.v - at);
    TRY(device.write(geometry.start + ByteCount(at), zeros.span().first(length), IoClass::Journal));
  }
  return device.flush(IoClass::Journal);
}

}  // namespace ourfs
