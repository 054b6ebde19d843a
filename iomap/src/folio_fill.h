// The decision that the cookie protects: is what a folio does not hold zeroed, or read?
#pragma once

#include <cstdint>

#include "block/block_device.h"
#include "iomap/iomap.h"
#include "iomap/mapping.h"
#include "iomap/operations.h"

namespace ourfs {

// A range of bytes inside one folio.
struct FolioSpan {
  uint32_t from = 0, to = 0;
};

// Prepares the blocks of `span` for a write of exactly these bytes: the rest of a block that is
// written in part and is not uptodate is zeroed or read. Wholly written and uptodate blocks are
// left alone. REQUIRES: the folio lock; `map` covers the blocks and was validated under it.
Status fillForWrite(Mapping& mapping, BlockDevice& device, Folio& folio, const Iomap& map,
                    FolioSpan span);

// After the bytes are there: the blocks of `span` are uptodate and dirty.
void finishWrite(Mapping& mapping, LockedFolio& folio, FolioSpan span);

// Makes the blocks of `span` uptodate. Samples the maps under the folio lock, which needs no
// cookie. `polluted`, if given: whether bytes beyond i_size were not zero on disk (in the folio
// they are now).
Status fillForRead(Mapping& mapping, IoContext& io, Folio& folio, FolioSpan span,
                   bool* polluted = nullptr);

// Raises i_size to `end`. True if it was smaller.
bool growSize(Mapping& mapping, FileOffset end);

// Before i_size grows from inside a block to `until` or beyond: what that block holds beyond the
// old i_size reads as zeros from now on, in the cache or on disk (dirty). Takes folio locks.
Status zeroEofTail(Mapping& mapping, IoContext& io, FileOffset until);

// Takes a folio that nobody filled out of the cache again.
void dropIfEmpty(Mapping& mapping, LockedFolio folio);

// At the end of an operation, without locks: writeback has to know of files with dirty folios, to
// write them, and of those with clean ones, to reclaim them. What was dirty may be clean by now.
inline void tellWriteback(Mapping& mapping, IoContext& io) {
  const bool any = mapping.pages.dirtyFolios() > 0 || mapping.pages.folios() > 0;
  if (any && io.dirtied) io.dirtied(mapping);
}

inline uint64_t folioIndex(const Mapping& mapping, FileOffset pos) {
  return pos.v / mapping.pages.folioSize();
}
inline uint64_t folioIndexUp(const Mapping& mapping, FileOffset pos) {
  return roundUp(pos.v, mapping.pages.folioSize()) / mapping.pages.folioSize();
}

}  // namespace ourfs
