#include "folio_fill.h"

#include <algorithm>
#include <cstring>

#include "common/sync_point.h"

namespace ourfs {

namespace {

bool readsAsZeros(const Iomap& map, FileOffset block, uint64_t size) {
  if (map.type != IomapType::Mapped) return true;
  if ((map.flags & kIomapNew) != 0) return true;
  return block.v >= size;
}

// Zeroes what the folio's bytes [from, to) hold beyond i_size. True if that was not all zero.
bool zeroBeyondSize(Folio& folio, FolioSpan span, uint64_t size) {
  const uint64_t live = size > folio.offset().v ? size - folio.offset().v : 0;
  if (live >= span.to) return false;
  std::byte* const first = folio.data() + std::max<uint64_t>(live, span.from);
  std::byte* const last = folio.data() + span.to;
  if (std::all_of(first, last, [](std::byte b) { return b == std::byte{0}; })) return false;
  std::fill(first, last, std::byte{0});
  return true;
}

Status readBlocks(BlockDevice& device, Folio& folio, const Iomap& map, FolioSpan span) {
  return device.read(map.addressOf(folio.offset() + ByteCount(span.from)),
                     {folio.data() + span.from, span.to - span.from}, IoClass::Data);
}

// One block of which the caller overwrites `span`.
Status fillRest(Mapping& mapping, BlockDevice& device, Folio& folio, const Iomap& map,
                uint32_t block, FolioSpan span) {
  const FolioSpan whole{block * folio.blockSize(), (block + 1) * folio.blockSize()};
  const uint64_t size = mapping.size;
  if (readsAsZeros(map, folio.offset() + ByteCount(whole.from), size)) {
    if (span.from > whole.from) std::memset(folio.data() + whole.from, 0, span.from - whole.from);
    if (span.to < whole.to) std::memset(folio.data() + span.to, 0, whole.to - span.to);
    ++mapping.counters.filledByZero;
    return Status::ok();
  }
  TRY(readBlocks(device, folio, map, whole));
  (void)zeroBeyondSize(folio, whole, size);
  ++mapping.counters.filledByRead;
  return Status::ok();
}

}  // namespace

Status fillForWrite(Mapping& mapping, BlockDevice& device, Folio& folio, const Iomap& map,
                    FolioSpan span) {
  const uint32_t size = folio.blockSize();
  const uint32_t first = span.from / size, last = (span.to - 1) / size;
  const bool headPartial = span.from % size != 0 || (first == last && span.to % size != 0);
  if (headPartial && !folio.uptodate(first))
    TRY(fillRest(mapping, device, folio, map, first, span));
  if (last != first && span.to % size != 0 && !folio.uptodate(last))
    TRY(fillRest(mapping, device, folio, map, last, span));
  return Status::ok();
}

void finishWrite(Mapping& mapping, LockedFolio& folio, FolioSpan span) {
  const uint32_t size = folio->blockSize();
  const FolioSpan filled =
      mutantEnabled("iomap.uptodate_whole_folio") ? FolioSpan{0, folio->size()} : span;
  for (uint32_t b = filled.from / size; b <= (filled.to - 1) / size; ++b) folio->setUptodate(b);
  mapping.pages.markDirty(folio, span.from, span.to);
}

Status fillForRead(Mapping& mapping, IoContext& io, Folio& folio, FolioSpan span, bool* polluted) {
  const uint32_t size = folio.blockSize();
  const uint32_t end = (span.to + size - 1) / size;
  for (uint32_t b = span.from / size; b < end;) {
    if (folio.uptodate(b)) {
      ++b;
      continue;
    }
    uint32_t stop = b + 1;
    while (stop < end && !folio.uptodate(stop)) ++stop;
    IomapIter iter(mapping, io.ops, folio.offset() + ByteCount(uint64_t{b} * size),
                   ByteCount(uint64_t{stop - b} * size), IomapIntent::Read);
    TRY(iter.next());
    stop = b + static_cast<uint32_t>(iter.length().v / size);
    const FolioSpan run{b * size, stop * size};
    if (readsAsZeros(iter.map(), iter.pos(), mapping.size)) {
      std::memset(folio.data() + run.from, 0, run.to - run.from);
    } else {
      TRY(readBlocks(io.device, folio, iter.map(), run));
      const bool tail = zeroBeyondSize(folio, run, mapping.size);
      if (polluted != nullptr) *polluted = *polluted || tail;
    }
    iter.advance(iter.length());
    for (; b < stop; ++b) folio.setUptodate(b);
  }
  return Status::ok();
}

bool growSize(Mapping& mapping, FileOffset end) {
  uint64_t old = mapping.size;
  while (old < end.v)
    if (mapping.size.compare_exchange_weak(old, end.v)) return true;
  return false;
}

Status zeroEofTail(Mapping& mapping, IoContext& io, FileOffset until) {
  for (;;) {
    const uint64_t size = mapping.size;
    if (isAligned(size, mapping.pages.blockSize()) || until.v <= size) return Status::ok();
    LockedFolio folio = mapping.pages.lockOrCreate(folioIndex(mapping, FileOffset(size)));
    // A store that extends the file into this very folio does so under its lock.
    if (mapping.size != size) continue;
    const auto at = static_cast<uint32_t>(size - folio->offset().v);
    const uint32_t block = at / folio->blockSize();
    const FolioSpan tail{at, (block + 1) * folio->blockSize()};
    if (folio->dirty(block)) {
      (void)zeroBeyondSize(*folio, tail, size);
      return Status::ok();
    }
    IomapIter iter(mapping, io.ops, FileOffset(size), ByteCount(tail.to - tail.from),
                   IomapIntent::Zero);
    TRY(iter.next());
    const bool mapped = iter.map().type == IomapType::Mapped;
    iter.advance(iter.length());
    // An uptodate block may hide what a crash left on disk behind it, so it is written again.
    bool write = mapped && folio->uptodate(block);
    if (mapped) TRY(fillForRead(mapping, io, *folio, tail, &write));
    if (write) {
      (void)zeroBeyondSize(*folio, tail, size);
      mapping.pages.markDirty(folio, tail.from, tail.to);
    }
    dropIfEmpty(mapping, std::move(folio));
    return Status::ok();
  }
}

void dropIfEmpty(Mapping& mapping, LockedFolio folio) {
  if (!folio->anyUptodate()) (void)mapping.pages.evict(std::move(folio));
}

}  // namespace ourfs
