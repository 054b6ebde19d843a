// ChunkPool: which of the index's own blocks are free. The unit is one filesystem block; contiguous
// runs are preferred, single blocks do.
//
// Blocks that a durable table has dropped are released; during a mount they stay busy until
// endHold(), because what was there may still be needed until the mount's checks have passed.
//
// Threads: any.
#pragma once

#include <atomic>
#include <map>
#include <set>
#include <vector>

#include "common/mutex.h"
#include "index/index.h"

namespace ourfs {

class ChunkPool {
 public:
  // EUCLEAN unless `used` lies in `pool` without overlap.
  static Result<std::unique_ptr<ChunkPool>> build(const std::vector<BlockRun>& pool,
                                                  const std::vector<BlockRun>& used);

  // Exactly `blocks` blocks, from `hint` on if it is free. ENOSPC, and then nothing is taken.
  Result<std::vector<BlockRun>> allocate(uint64_t blocks, BlockNo hint);
  // Blocks that a durable table does not name any more.
  void release(const std::vector<BlockRun>& runs);
  // Blocks that no table ever named.
  void giveBack(const std::vector<BlockRun>& runs);
  void add(const BlockRun& run);  // the pool has grown
  // The pool shrinks by up to `blocks` free blocks, the last ones on the volume; none before
  // endHold().
  std::vector<BlockRun> withdraw(uint64_t blocks);
  void endHold();

  BlockCount total() const { return BlockCount(total_.load(std::memory_order_relaxed)); }
  BlockCount free() const { return BlockCount(free_.load(std::memory_order_relaxed)); }

 private:
  ChunkPool() = default;
  void insert(BlockRun run) REQUIRES(mu_);
  void erase(std::map<uint64_t, uint64_t>::iterator it) REQUIRES(mu_);
  BlockRun take(std::map<uint64_t, uint64_t>::iterator it, uint64_t from, uint64_t most)
      REQUIRES(mu_);

  Mutex mu_;
  std::map<uint64_t, uint64_t> byStart_ GUARDED_BY(mu_);            // start -> count
  std::set<std::pair<uint64_t, uint64_t>> bySize_ GUARDED_BY(mu_);  // count, start
  bool hold_ GUARDED_BY(mu_) = true;
  std::vector<BlockRun> held_ GUARDED_BY(mu_);
  std::atomic<uint64_t> total_ = 0, free_ = 0;  // written under mu_
};

}  // namespace ourfs
