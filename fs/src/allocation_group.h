// AllocationGroup: the free blocks of one stretch of the volume, and LargestTree: where long runs
// are.
//
// A group that is wholly free has no bitmap: a new volume of any size costs a few bytes per group.
// `longest` is an upper bound on the longest free run: frees raise it exactly, a search that finds
// nothing lowers it to the truth, so every free block is looked at in vain at most once per change.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace ourfs {

inline constexpr uint32_t kGroupBlocks = 32768;

class AllocationGroup {
 public:
  struct Run {
    uint32_t start = 0, count = 0;  // blocks, counted from the group's first one
  };

  // All `blocks` (at most kGroupBlocks) are free.
  explicit AllocationGroup(uint32_t blocks) : blocks_(blocks), free_(blocks), longest_(blocks) {}

  uint32_t blocks() const { return blocks_; }
  uint32_t freeBlocks() const { return free_; }
  uint32_t longest() const { return longest_; }

  bool allFree(Run run) const;
  bool noneFree(Run run) const;
  void take(Run run);  // REQUIRES: allFree(run)
  void give(Run run);  // REQUIRES: noneFree(run)

  // The free run that begins at or behind `from`, cut to `most`; count 0 if there is none.
  Run nextFree(uint32_t from, uint32_t most) const;
  // The first run of `want` free blocks at or behind `from`; count 0 if there is none. A search
  // from 0 that fails sets longest() to the truth.
  Run find(uint32_t from, uint32_t want);

 private:
  uint32_t nextWithState(uint32_t from, bool free) const;  // blocks_ if there is none
  uint32_t freeRunAround(Run run) const;
  void materialise();

  uint32_t blocks_, free_, longest_;
  std::unique_ptr<uint64_t[]> bits_;  // 1: free; null: all are free
};

// The groups' longest runs, with "the next group that may have a run of n" in logarithmic time.
class LargestTree {
 public:
  explicit LargestTree(size_t groups);
  void set(size_t group, uint32_t longest);
  uint32_t largest() const { return nodes_[1]; }
  // The first group in [from, end) whose bound is at least `want`; `end` if there is none.
  size_t next(size_t from, size_t end, uint32_t want) const;

 private:
  size_t leaves_ = 1;
  std::vector<uint32_t> nodes_;  // a heap: children of n are 2n and 2n+1
};

}  // namespace ourfs
