// Buffered writes and stores of the kernel's page cache.
#include <algorithm>
#include <cstring>

#include "common/sync_point.h"
#include "folio_fill.h"
#include "iomap/operations.h"

namespace ourfs {

namespace {

// One buffered write. The race that it must survive (docs/design.md):
//   writer                                   writeback, ioend, reclaim
//   begin: one Unwritten map over the folio
//                                            writes the folio's earlier data
//                                            converts to Mapped, bumps, ends writeback
//                                            evicts the clean folio
//   creates the folio, locks it
//   compares the cookie: stale, begin again
//   Mapped: reads the rest of the block
class BufferedWriter {
 public:
  BufferedWriter(Mapping& mapping, IoContext& io, FileOffset pos, std::span<const std::byte> from)
      : mapping_(mapping),
        io_(io),
        start_(pos),
        from_(from),
        iter_(mapping, io.ops, pos, ByteCount(from.size()), IomapIntent::Write),
        validateBeforeLock_(mutantEnabled("iomap.validate_before_lock")) {}

  Status run() {
    for (;;) {
      TRY_ASSIGN(const bool more, iter_.next());
      if (!more) return Status::ok();
      while (iter_.length().v > 0) {
        TRY_ASSIGN(const bool fresh, writeFolio());
        if (!fresh) break;
      }
    }
  }

  ByteCount done() const { return iter_.pos() - start_; }
  const IomapIter& iter() const { return iter_; }

 private:
  // False: the map was stale, nothing was done.
  Result<bool> writeFolio() {
    bool stale = validateBeforeLock_ && !iter_.valid();
    SYNC_POINT("write.before_folio_lock");
    LockedFolio folio = mapping_.pages.lockOrCreate(folioIndex(mapping_, iter_.pos()));
    SYNC_POINT("write.after_folio_lock");
    if (!validateBeforeLock_) stale = !iter_.valid();
    if (stale && !iter_.lockFirst()) {
      ++mapping_.counters.staleWrite;
      iter_.markStale();
      return false;
    }
    Status copied = copyInto(folio);
    if (copied) return true;
    dropIfEmpty(mapping_, std::move(folio));
    return copied;
  }

  Status copyInto(LockedFolio& folio) {
    if (iter_.lockFirst()) TRY(iter_.resampleLocked());
    SYNC_POINT("write.after_valid");
    const FileOffset pos = iter_.pos();
    const auto at = static_cast<uint32_t>(pos.v - folio->offset().v);
    const auto n = static_cast<uint32_t>(std::min<uint64_t>(iter_.length().v, folio->size() - at));
    const FolioSpan span{at, at + n};
    TRY(fillForWrite(mapping_, io_.device, *folio, iter_.map(), span));
    SYNC_POINT_TRY("write.before_copy");
    std::memcpy(folio->data() + at, from_.data() + (pos - start_).v, n);
    finishWrite(mapping_, folio, span);
    if (growSize(mapping_, pos + ByteCount(n))) iter_.setSizeChanged();
    iter_.advance(ByteCount(n));
    return Status::ok();
  }

  Mapping& mapping_;
  IoContext& io_;
  const FileOffset start_;
  const std::span<const std::byte> from_;
  IomapIter iter_;
  const bool validateBeforeLock_;
};

struct WriteOutcome {
  Status status;
  ByteCount done;
  std::vector<std::pair<FileOffset, FileOffset>> unused;  // to be given back
};

WriteOutcome writeThroughCache(Mapping& mapping, IoContext& io, FileOffset pos,
                               std::span<const std::byte> from) {
  WriteOutcome outcome;
  outcome.status = zeroEofTail(mapping, io, pos);
  if (!outcome.status) return outcome;
  BufferedWriter writer(mapping, io, pos, from);
  outcome.status = writer.run();
  outcome.done = mutantEnabled("iomap.short_counts_whole") ? ByteCount(from.size()) : writer.done();
  outcome.unused = writer.iter().unusedNew();
  return outcome;
}

Result<ByteCount> conclude(Mapping& mapping, IoContext& io, const WriteOutcome& outcome) {
  for (const auto& [from, to] : outcome.unused) punchUnusedReservation(mapping, io.ops, from, to);
  tellWriteback(mapping, io);
  const bool anyBytes = outcome.done.v > 0 && !mutantEnabled("iomap.error_hides_bytes");
  if (!anyBytes && !outcome.status) return outcome.status;
  return outcome.done;
}

}  // namespace

Result<ByteCount> bufferedWrite(Mapping& mapping, IoContext& io, FileOffset pos,
                                std::span<const std::byte> from) {
  if (pos >= kFileEnd || from.size() > (kFileEnd - pos).v) return Status::error(EFBIG);
  return conclude(mapping, io, writeThroughCache(mapping, io, pos, from));
}

Result<ByteCount> cacheStore(Mapping& mapping, IoContext& io, FileOffset pos,
                             std::span<const std::byte> from, bool mayExtend) {
  if (pos >= kFileEnd || from.size() > (kFileEnd - pos).v) return Status::error(EFBIG);
  WriteOutcome outcome;
  ByteCount dropped;
  {
    SharedLock invalidate(mapping.invalidateLock);
    const uint64_t size = mapping.size;
    if (!mayExtend && pos.v + from.size() > size) {
      const uint64_t kept = size > pos.v ? size - pos.v : 0;
      dropped = ByteCount(from.size() - kept);
      from = from.first(kept);
    }
    if (!from.empty()) outcome = writeThroughCache(mapping, io, pos, from);
  }
  TRY_ASSIGN(ByteCount done, conclude(mapping, io, outcome));
  if (outcome.status) return done + dropped;
  if (mutantEnabled("iomap.short_store")) return done;
  return outcome.status;
}

}  // namespace ourfs
