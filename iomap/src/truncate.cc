// What takes folios away: dropping, size changes, reservations given back.
#include <algorithm>

#include "common/sync_point.h"
#include "folio_fill.h"
#include "iomap/operations.h"

namespace ourfs {

namespace {

// REQUIRES: not in writeback.
void dropBlocks(Mapping& mapping, LockedFolio folio, FileOffset from, FileOffset to) {
  const FileOffset base = folio->offset();
  if (from <= base && base + ByteCount(folio->size()) <= to) {
    mapping.pages.discard(std::move(folio));
    return;
  }
  const uint32_t size = folio->blockSize();
  const uint32_t first = from <= base ? 0 : static_cast<uint32_t>((from - base).v / size);
  const auto end = static_cast<uint32_t>(std::min<uint64_t>(folio->size(), (to - base).v) / size);
  mapping.pages.clearDirty(folio, first, end);
  for (uint32_t b = first; b < end; ++b) folio->clearUptodate(b);
}

// Waits until what is in flight of the folio has ended. False: it left the cache, unlocked.
bool settle(Mapping& mapping, LockedFolio& folio) {
  if (!folio->inWriteback()) return true;
  if (mutantEnabled("iomap.truncate_no_wait")) return false;
  return mapping.pages.waitWriteback(folio);
}

// An ioend that was submitted with the old i_size must not store it after the new one.
void awaitWritebackAt(Mapping& mapping, FileOffset pos) {
  LockedFolio folio = mapping.pages.lock(folioIndex(mapping, pos));
  if (folio) (void)settle(mapping, folio);
}

Status shrink(Mapping& mapping, IoContext& io, FileOffset size) {
  const FileOffset blockEnd(roundUp(size.v, mapping.pages.blockSize()));
  TRY(zeroRange(mapping, io, size, blockEnd - size));
  mapping.size = size.v;
  awaitWritebackAt(mapping, size);
  dropFolios(mapping, blockEnd, kFileEnd);
  return Status::ok();
}

Status grow(Mapping& mapping, IoContext& io, FileOffset size) {
  TRY(zeroEofTail(mapping, io, size));
  tellWriteback(mapping, io);
  mapping.size = size.v;
  return Status::ok();
}

// The blocks of the folio's part of [from, to) that no dirty data stands on go back.
void punchFolio(Mapping& mapping, IomapOps& ops, LockedFolio& folio, FileOffset from,
                FileOffset to) {
  const uint32_t size = folio->blockSize();
  const auto blockAt = [&](FileOffset pos) {
    return static_cast<uint32_t>((pos - folio->offset()).v / size);
  };
  const auto startOf = [&](uint32_t b) { return folio->offset() + ByteCount(uint64_t{b} * size); };
  bool kept = false;
  for (uint32_t b = blockAt(from), end = blockAt(to); b < end;) {
    uint32_t stop = b;
    while (stop < end && !folio->dirty(stop)) ++stop;
    SYNC_POINT("punch.after_scan");
    if (stop > b) ops.punchDelalloc(mapping, startOf(b), startOf(stop));
    if (stop < end) kept = true;
    b = stop + 1;
  }
  if (kept) ++mapping.counters.punchSkippedDirty;
}

}  // namespace

void dropFolios(Mapping& mapping, FileOffset from, FileOffset to) {
  from = FileOffset(roundUp(from.v, mapping.pages.blockSize()));
  to = FileOffset(roundDown(to.v, mapping.pages.blockSize()));
  if (from >= to) return;
  const uint64_t end = folioIndexUp(mapping, to);
  auto next = mapping.pages.nextCached(folioIndex(mapping, from), end);
  for (; next; next = mapping.pages.nextCached(*next + 1, end)) {
    LockedFolio folio = mapping.pages.lock(*next);
    if (!folio || !settle(mapping, folio)) continue;
    dropBlocks(mapping, std::move(folio), from, to);
  }
}

Status truncateCache(Mapping& mapping, IoContext& io, FileOffset size) {
  if (size.v < mapping.size)
    TRY(shrink(mapping, io, size));
  else
    TRY(grow(mapping, io, size));
  SYNC_POINT("truncate.after_cache_drop");
  return Status::ok();
}

void punchUnusedReservation(Mapping& mapping, IomapOps& ops, FileOffset from, FileOffset to) {
  const uint32_t block = mapping.pages.blockSize(), folioSize = mapping.pages.folioSize();
  from = FileOffset(roundDown(from.v, block));
  to = FileOffset(roundUp(to.v, block));
  ExclusiveLock invalidate(mapping.invalidateLock);
  if (mutantEnabled("iomap.punch_ignores_dirty")) {
    SYNC_POINT("punch.after_scan");
    ops.punchDelalloc(mapping, from, to);
    return;
  }
  dropFolios(mapping, std::max(from, FileOffset(roundUp(mapping.size, block))), to);
  // Folio by folio, each under its lock, absent ones too: a store of the kernel's cache that failed
  // holds no inode lock, and another writer may be between its validation and its dirty bit.
  while (from < to) {
    const FileOffset folioEnd(roundDown(from.v, folioSize) + folioSize);
    LockedFolio folio = mapping.pages.lockOrCreate(folioIndex(mapping, from));
    punchFolio(mapping, ops, folio, from, std::min(folioEnd, to));
    dropIfEmpty(mapping, std::move(folio));
    from = folioEnd;
  }
}

}  // namespace ourfs
