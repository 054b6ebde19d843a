// Zeroing of ranges.
#include <algorithm>
#include <cstring>

#include "common/sync_point.h"
#include "folio_fill.h"
#include "iomap/operations.h"

namespace ourfs {

namespace {

class Zeroer {
 public:
  Zeroer(Mapping& mapping, IoContext& io, FileOffset pos, ByteCount length)
      : mapping_(mapping),
        io_(io),
        iter_(mapping, io.ops, pos, length, IomapIntent::Zero),
        trustMap_(mutantEnabled("iomap.zero_skips_dirty_scan")) {}

  Status run() {
    for (;;) {
      TRY_ASSIGN(const bool more, iter_.next());
      if (!more) return Status::ok();
      while (iter_.length().v > 0) {
        TRY_ASSIGN(const bool fresh, step());
        if (!fresh) break;
      }
    }
  }

 private:
  // False: the map was stale, nothing was done.
  Result<bool> step() {
    if (iter_.map().type == IomapType::Mapped || iter_.lockFirst()) return zeroFolio();
    // "Not written, so zero" is false under a folio that is dirty or in writeback, and under one
    // that was when the map was sampled.
    const FileOffset pos = iter_.pos(), end = pos + iter_.length();
    std::optional<uint64_t> busy;
    if (!trustMap_)
      busy = mapping_.pages.nextBusy(folioIndex(mapping_, pos), folioIndexUp(mapping_, end));
    SYNC_POINT("zero.after_dirty_scan");
    if (!iter_.valid()) return stale();
    const FileOffset clean = busy ? FileOffset(*busy * mapping_.pages.folioSize()) : end;
    if (clean <= pos) return zeroFolio();
    iter_.advance(clean - pos);
    return true;
  }

  bool stale() {
    ++mapping_.counters.staleWrite;
    iter_.markStale();
    return false;
  }

  Result<bool> zeroFolio() {
    const uint64_t index = folioIndex(mapping_, iter_.pos());
    const bool create = iter_.map().type == IomapType::Mapped || iter_.lockFirst();
    LockedFolio folio = create ? mapping_.pages.lockOrCreate(index) : mapping_.pages.lock(index);
    if (!folio || (!iter_.lockFirst() && !iter_.valid())) return stale();
    Status zeroed = zeroIn(folio);
    dropIfEmpty(mapping_, std::move(folio));
    if (!zeroed) return zeroed;
    return true;
  }

  Status zeroIn(LockedFolio& folio) {
    if (iter_.lockFirst()) TRY(iter_.resampleLocked());
    const auto at = static_cast<uint32_t>(iter_.pos().v - folio->offset().v);
    const auto n = static_cast<uint32_t>(std::min<uint64_t>(iter_.length().v, folio->size() - at));
    const FolioSpan span{at, at + n};
    if (iter_.map().type == IomapType::Mapped) {
      TRY(fillForWrite(mapping_, io_.device, *folio, iter_.map(), span));
      std::memset(folio->data() + at, 0, n);
      finishWrite(mapping_, folio, span);
    } else if (iter_.map().type != IomapType::Hole) {
      zeroBusyBlocks(folio, span);
    }
    iter_.advance(ByteCount(n));
    return Status::ok();
  }

  // Over Delalloc and Unwritten only what is dirty, or on its way to the disk, is not zero already.
  void zeroBusyBlocks(LockedFolio& folio, FolioSpan span) {
    const uint32_t size = folio->blockSize();
    for (uint32_t b = span.from / size; b * size < span.to; ++b) {
      if (!folio->dirty(b) && !(folio->inWriteback() && folio->uptodate(b))) continue;
      const FolioSpan part{std::max(span.from, b * size), std::min(span.to, (b + 1) * size)};
      std::memset(folio->data() + part.from, 0, part.to - part.from);
      finishWrite(mapping_, folio, part);
    }
  }

  Mapping& mapping_;
  IoContext& io_;
  IomapIter iter_;
  const bool trustMap_;
};

}  // namespace

Status zeroRange(Mapping& mapping, IoContext& io, FileOffset pos, ByteCount length) {
  Status status = Zeroer(mapping, io, pos, length).run();
  tellWriteback(mapping, io);
  return status;
}

}  // namespace ourfs
