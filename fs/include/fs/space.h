// SpaceAllocator: which blocks are free, promised, or busy. Derived state: nothing of it is on disk
// but a snapshot; it is rebuilt from the extents and the index's own blocks.
//
// Invariants:
//   1. A block is in exactly one state: used, free, or busy (freed by a transaction that is not
//      durable yet).
//   2. reserved <= free - metadataReserve: what write() was promised can always be allocated.
//   3. A busy block is never handed out. It becomes free in onDurable(lsn) of its transaction, not
//      before; where freed blocks are discarded, in discarded(), still later. Mutant
//      space.reuse_freed_early hands it out at once.
//
// Bitmaps per AllocationGroup (memory: one bit per block plus a few counters per group), next-fit
// with a hint, contiguous runs preferred, down to single blocks. Threads: any; one mutex, innermost
// but for the log lock.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "common/mutex.h"
#include "common/result.h"
#include "common/units.h"
#include "index/index.h"

namespace ourfs {

enum class SpaceUse {
  Data,      // leaves the metadata reserve alone
  Metadata,  // index growth: may take everything
};

struct SpaceCounts {
  BlockCount total;  // blocks of the data area
  BlockCount free;   // neither used nor busy
  BlockCount busy;
  BlockCount reserved;  // promised to delayed allocation (part of free)
  BlockCount metadataReserve;
  // What a writer can still get; busy blocks count (they are free after the next commit, or once
  // whenFull has seen to it).
  BlockCount available() const;
};

class SpaceAllocator {
 public:
  // Blocks [firstBlock, blocks) of the volume can be used; all are free at first.
  SpaceAllocator(BlockNo firstBlock, BlockNo endBlock, BlockCount metadataReserve);
  ~SpaceAllocator();

  // While the free map is built. False: out of range or not free (used twice).
  bool markUsed(BlockRun run);

  // A promise of `count` blocks. ENOSPC, after `whenFull` has had one chance to release busy
  // blocks.
  Status reserve(BlockCount count);
  void unreserve(BlockCount count);
  // Called without locks when reserve or allocate would fail: flush the journal, await discards.
  // The index gives back what it does not need, unless it is who asks.
  void setWhenFull(std::function<void(SpaceUse)> whenFull);

  // One run of at most `want` blocks, as long as can be had near `hint` (0: anywhere). With
  // `reserved` the blocks were promised before and leave the promise. ENOSPC only if nothing is
  // left.
  Result<BlockRun> allocate(BlockCount want, BlockNo hint, bool reserved,
                            SpaceUse use = SpaceUse::Data);

  // Blocks that no durable or pending record names: free at once.
  void freeUnstored(BlockRun run);
  // Freed by a transaction: busy until onDurable(lsn) with lsn >= its own.
  void freeAt(BlockRun run, Lsn lsn);
  void onDurable(Lsn durable);

  SpaceCounts counts() const;
  // With `discard`, blocks whose transaction is durable stay busy and are handed to it; whoever has
  // them answers with discarded(). Called without the mutex, perhaps under the log lock; must not
  // wait. Set before the first freeAt.
  void setDiscard(std::function<void(BlockRun)> discard);
  void discarded(BlockRun run);

  // All free runs, in order; what is not named is used or busy (fsck, snapshot). `each` must not
  // call back.
  void forEachFree(const std::function<void(BlockRun)>& each) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ourfs
