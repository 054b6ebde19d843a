#include "allocation_group.h"

#include <algorithm>
#include <bit>

namespace ourfs {

namespace {
constexpr uint32_t kWordBits = 64;

// The bits of word `word` that [start, start + count) covers.
uint64_t maskOf(uint32_t word, uint32_t start, uint32_t count) {
  const uint32_t low = std::max(start, word * kWordBits) - word * kWordBits;
  const uint32_t high = std::min(start + count, (word + 1) * kWordBits) - word * kWordBits;
  const uint64_t upTo = high == kWordBits ? ~uint64_t{0} : (uint64_t{1} << high) - 1;
  return upTo & ~((uint64_t{1} << low) - 1);
}
}  // namespace

bool AllocationGroup::allFree(Run run) const {
  if (bits_ == nullptr) return true;
  for (uint32_t w = run.start / kWordBits; w * kWordBits < run.start + run.count; ++w) {
    const uint64_t mask = maskOf(w, run.start, run.count);
    if ((bits_[w] & mask) != mask) return false;
  }
  return true;
}

bool AllocationGroup::noneFree(Run run) const {
  if (bits_ == nullptr) return run.count == 0;
  for (uint32_t w = run.start / kWordBits; w * kWordBits < run.start + run.count; ++w) {
    if ((bits_[w] & maskOf(w, run.start, run.count)) != 0) return false;
  }
  return true;
}

void AllocationGroup::materialise() {
  if (bits_ != nullptr) return;
  const uint32_t words = (blocks_ + kWordBits - 1) / kWordBits;
  bits_ = std::make_unique<uint64_t[]>(words);
  for (uint32_t w = 0; w < words; ++w) bits_[w] = maskOf(w, 0, blocks_);
}

void AllocationGroup::take(Run run) {
  materialise();
  for (uint32_t w = run.start / kWordBits; w * kWordBits < run.start + run.count; ++w) {
    bits_[w] &= ~maskOf(w, run.start, run.count);
  }
  free_ -= run.count;
  longest_ = std::min(longest_, free_);
}

void AllocationGroup::give(Run run) {
  for (uint32_t w = run.start / kWordBits; w * kWordBits < run.start + run.count; ++w) {
    bits_[w] |= maskOf(w, run.start, run.count);
  }
  free_ += run.count;
  longest_ = std::max(longest_, freeRunAround(run));
  if (free_ == blocks_) bits_.reset();
}

uint32_t AllocationGroup::nextWithState(uint32_t from, bool free) const {
  if (from >= blocks_) return blocks_;
  if (bits_ == nullptr) return free ? from : blocks_;
  uint32_t w = from / kWordBits;
  uint64_t word = (free ? bits_[w] : ~bits_[w]) & (~uint64_t{0} << (from % kWordBits));
  const uint32_t words = (blocks_ + kWordBits - 1) / kWordBits;
  while (word == 0 && ++w < words) word = free ? bits_[w] : ~bits_[w];
  if (w >= words) return blocks_;
  return std::min<uint32_t>(w * kWordBits + static_cast<uint32_t>(std::countr_zero(word)), blocks_);
}

uint32_t AllocationGroup::freeRunAround(Run run) const {
  const uint32_t end = nextWithState(run.start + run.count, false);
  uint32_t start = run.start;
  while (start > 0) {
    const uint32_t w = (start - 1) / kWordBits, bit = (start - 1) % kWordBits;
    const uint64_t used = ~bits_[w] << (kWordBits - 1 - bit);
    const uint32_t step = used == 0 ? bit + 1 : static_cast<uint32_t>(std::countl_zero(used));
    start -= step;
    if (step <= bit) break;
  }
  return end - start;
}

AllocationGroup::Run AllocationGroup::nextFree(uint32_t from, uint32_t most) const {
  const uint32_t start = nextWithState(from, true);
  if (start >= blocks_) return {};
  return {start, std::min(nextWithState(start, false) - start, most)};
}

AllocationGroup::Run AllocationGroup::find(uint32_t from, uint32_t want) {
  uint32_t longest = 0;
  for (uint32_t at = from; at < blocks_;) {
    const uint32_t start = nextWithState(at, true);
    if (start >= blocks_) break;
    const uint32_t end = nextWithState(start, false);
    if (end - start >= want) return {start, want};
    longest = std::max(longest, end - start);
    at = end;
  }
  if (from == 0) longest_ = longest;
  return {};
}

LargestTree::LargestTree(size_t groups) : leaves_(std::bit_ceil(std::max<size_t>(groups, 1))) {
  nodes_.resize(2 * leaves_);
}

void LargestTree::set(size_t group, uint32_t longest) {
  size_t node = leaves_ + group;
  if (nodes_[node] == longest) return;
  nodes_[node] = longest;
  while (node > 1) {
    node /= 2;
    const uint32_t value = std::max(nodes_[2 * node], nodes_[2 * node + 1]);
    if (nodes_[node] == value) break;
    nodes_[node] = value;
  }
}

size_t LargestTree::next(size_t from, size_t end, uint32_t want) const {
  if (from >= end) return end;
  // Up from the leaf until a subtree to the right has one, then down to its first.
  size_t node = leaves_ + from;
  while (nodes_[node] < want) {
    while (node > 1 && node % 2 == 1) node /= 2;
    if (node <= 1) return end;
    ++node;
  }
  while (node < leaves_) node = nodes_[2 * node] >= want ? 2 * node : 2 * node + 1;
  return std::min(node - leaves_, end);
}

}  // namespace ourfs
