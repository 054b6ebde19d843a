// The operations on file data. Each is a loop over IomapIter.
//
// All take lengths in bytes and answer bytes done; an error only if nothing was done. What is
// copied comes from the daemon's own memory, so a copy stops short between two folios only; the
// caller goes on behind the bytes that were answered. Locks that the caller holds are named per
// function: "inode" is the inode lock of fs/.
#pragma once

#include <functional>
#include <span>

#include "block/block_device.h"
#include "iomap/iomap.h"
#include "iomap/mapping.h"

namespace ourfs {

// Called by an operation, without any folio or extent lock, after it has left folios in the cache:
// most of them dirty.
using DirtiedHook = std::function<void(Mapping&)>;

struct IoContext {
  BlockDevice& device;
  IomapOps& ops;
  DirtiedHook dirtied;  // writeback puts the file on its list
};

// Copies `from` into folios and makes them dirty. Advances mapping.size, folio by folio, after the
// copy. Caller holds: inode exclusively, invalidate not.
Result<ByteCount> bufferedWrite(Mapping& mapping, IoContext& io, FileOffset pos,
                                std::span<const std::byte> from);

// A store that the kernel's page cache hands over (FUSE_WRITE_CACHE): whole pages, never beyond
// i_size except in writeback-cache mode. All of it or an error: the kernel takes its pages for
// clean whatever the count, so a short one would lose the rest in silence. Caller holds neither
// inode nor invalidate lock; takes the invalidate lock shared and folio locks, nothing more. What
// lies beyond i_size is dropped unless `mayExtend`.
Result<ByteCount> cacheStore(Mapping& mapping, IoContext& io, FileOffset pos,
                             std::span<const std::byte> from, bool mayExtend);

// Reads up to i_size. Ranges with cached folios come from them (folio first, map second); others
// from the device straight into `into`, validated by the cookie; never cached except partial blocks
// that are needed. Takes the invalidate lock shared itself. `into` should be aligned to 4096 for
// speed; any alignment and length work.
Result<ByteCount> readFile(Mapping& mapping, IoContext& io, FileOffset pos,
                           std::span<std::byte> into);

// O_DIRECT. Writes back and drops the range's folios, writes to the device (Unwritten space becomes
// Mapped through `convert` after the data is there), drops again. REQUIRES: pos and length are
// multiples of the block size and `from` is aligned to the logical sector (else the caller uses
// bufferedWrite and flushes). Caller holds: inode exclusively. An error after the first byte shows
// as a short count. mapping.size grows last, after the second drop.
struct DirectHooks {
  // Flushes the range and waits. Called with the invalidate lock held.
  std::function<Status(Mapping&, FileOffset, FileOffset)> writeback;
  // Unwritten -> Mapped, and storedSize; once per map, before its end().
  std::function<Status(Mapping&, FileOffset, ByteCount)> convert;
};
Result<ByteCount> directWrite(Mapping& mapping, IoContext& io, const DirectHooks& hooks,
                              FileOffset pos, std::span<const std::byte> from);

// Makes [pos, pos + length) read as zeros by zeroing cached or Mapped blocks through the cache;
// holes and clean Unwritten space stay as they are. Looks for dirty and in-writeback folios before
// it trusts a map. Caller holds: inode exclusively and invalidate exclusively.
Status zeroRange(Mapping& mapping, IoContext& io, FileOffset pos, ByteCount length);

// Drops what is cached of the blocks wholly inside [from, to), dirty or not, and waits for
// writeback of their folios. Blocks that are partly inside stay. Caller holds: invalidate
// exclusively.
void dropFolios(Mapping& mapping, FileOffset from, FileOffset to);

// The cache's part of a size change to `size`, smaller or larger: zeroes the tail of the block at
// the old or new EOF (making it dirty if it is not all zero on disk), drops folios behind the new
// end. Sets mapping.size. Blocks are freed by the caller afterwards. Caller holds: inode
// exclusively and invalidate exclusively.
Status truncateCache(Mapping& mapping, IoContext& io, FileOffset size);

// SEEK_DATA and SEEK_HOLE: ENXIO at or beyond i_size. Dirty and in-writeback folios over Delalloc
// and Unwritten space are data. Caller holds: inode shared or exclusively.
Result<FileOffset> seekData(Mapping& mapping, IoContext& io, FileOffset from);
Result<FileOffset> seekHole(Mapping& mapping, IoContext& io, FileOffset from);

// Gives back what a failed or short write reserved in [from, to): dirty blocks keep theirs, clean
// and absent ones are punched, beyond i_size everything is. Takes the invalidate lock exclusively,
// and each folio's lock: a writer that holds neither the inode lock nor that one sees its map go
// stale.
void punchUnusedReservation(Mapping& mapping, IomapOps& ops, FileOffset from, FileOffset to);

}  // namespace ourfs
