// The journal of a volume that is being salvaged: as much of it as follows from the index.
#include <algorithm>
#include <cstring>

#include "common/codec.h"
#include "journal/format.h"
#include "journal/replay.h"
#include "journal_geometry.h"
#include "journal_reach.h"
#include "salvage/salvage_source.h"

namespace ourfs {

namespace {

constexpr size_t kMostChains = 64;  // of a journal that lost its tail; there should be one or two

// The first records of writes, by their own account, in order.
std::vector<LogPosition> writesIn(BlockDevice& device, const JournalGeometry& geometry) {
  std::vector<LogPosition> starts;
  AlignedBuffer sector(geometry.sector);
  for (uint64_t at = 0; at < geometry.size.v; at += geometry.sector) {
    if (!device.read(geometry.start + ByteCount(at), sector.span(), IoClass::Journal)) continue;
    RecordHeader header;
    std::memcpy(&header, sector.data(), sizeof(header));
    if (header.magic == kRecordMagic && header.lsn % geometry.size.v == at)
      starts.push_back({Lsn(header.lsn), header.previousCrc});
  }
  std::ranges::sort(starts, {}, [](const LogPosition& p) { return p.end.v; });
  return starts;
}

}  // namespace

void SalvageSource::replayJournal() {
  if (const auto tail = keys_->persisted())
    replayFrom(*tail);
  else
    replayWithoutTail();
  keys_->settle();
  if (guessBlockSize_) guessBlockSize();
}

void SalvageSource::replayFrom(const AppliedPosition& tail) {
  const LogPosition position{tail.end, tail.crc};
  const JournalGeometry geometry = journalGeometry(superblock_);
  const auto replay = ::ourfs::replayJournal(
      device_, geometry, position, superblock_.generation,
      [&](const LogPosition&, std::span<const std::byte> payload) -> Status {
        TRY_ASSIGN(const IndexBatch batch, IndexBatch::decode(asChars(payload)));
        keys_->apply(batch);
        return Status::ok();
      });
  if (!replay) return note_(replay.status().message());
  if (!replay->lost.empty()) return note_(replay->lost);
  if (replay->records != 0 || superblock_.clean) return;
  if (const Status reached =
          checkJournalReaches(device_, geometry, position, superblock_.generation);
      !reached)
    note_(reached.message());
}

// The index does not say how much of the journal it holds. Changes say what is, not what differs:
// so all records that follow one another up to the youngest can be applied again.
void SalvageSource::replayWithoutTail() {
  note_("the index has lost where the journal begins: all of it that is left is replayed");
  const JournalGeometry geometry = journalGeometry(superblock_);
  std::vector<IndexBatch> chain;
  uint64_t reached = 0;
  size_t chains = 0;
  for (const LogPosition& start : writesIn(device_, geometry)) {
    if (start.end.v < reached || chains == kMostChains) continue;
    std::vector<IndexBatch> found;
    (void)::ourfs::replayJournal(
        device_, geometry, start, superblock_.generation,
        [&](const LogPosition& at, std::span<const std::byte> payload) -> Status {
          TRY_ASSIGN(IndexBatch batch, IndexBatch::decode(asChars(payload)));
          found.push_back(std::move(batch));
          reached = at.end.v;
          return Status::ok();
        });
    if (found.empty()) continue;
    chain = std::move(found);
    ++chains;
  }
  for (const IndexBatch& batch : chain) keys_->apply(batch);
}

}  // namespace ourfs
