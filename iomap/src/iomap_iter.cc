#include <algorithm>
#include <string>

#include "common/sync_point.h"
#include "iomap/iomap.h"
#include "iomap/mapping.h"

namespace ourfs {

namespace {

constexpr int kStaleRoundsBeforeLockFirst = 2;

bool hasAddress(const Iomap& map) {
  return map.type == IomapType::Mapped || map.type == IomapType::Unwritten;
}

void clip(Iomap& map, FileOffset from, FileOffset to) {
  const FileOffset end = std::min(map.end(), to);
  if (map.offset < from) {
    if (hasAddress(map)) map.address += from - map.offset;
    map.offset = from;
  }
  map.length = end - map.offset;
}

using Range = std::pair<FileOffset, FileOffset>;

// Keeps `ranges` sorted and apart.
void addRange(std::vector<Range>& ranges, Range fresh) {
  std::vector<Range> merged;
  for (const Range& r : ranges) {
    if (r.second < fresh.first || fresh.second < r.first) {
      merged.push_back(r);
    } else {
      fresh = {std::min(r.first, fresh.first), std::max(r.second, fresh.second)};
    }
  }
  merged.insert(std::lower_bound(merged.begin(), merged.end(), fresh), fresh);
  ranges = std::move(merged);
}

}  // namespace

IomapIter::IomapIter(Mapping& mapping, IomapOps& ops, FileOffset pos, ByteCount length,
                     IomapIntent intent)
    : mapping_(mapping),
      ops_(ops),
      start_(pos),
      pos_(pos),
      remaining_(length),
      intent_(intent),
      mapStart_(pos) {}

IomapIter::~IomapIter() { (void)endMap(); }

Result<bool> IomapIter::next() {
  const bool again = open_ && (map_.flags & kIomapStale) != 0;
  const bool progress = pos_ > mapStart_;
  if (open_ && intent_ == IomapIntent::Write) SYNC_POINT("write.before_end");
  const bool first = !open_;
  TRY(endMap());
  if (remaining_.v == 0) return false;
  if (!first && !again && !progress) return false;  // the caller gave up

  staleRounds_ = again && !progress ? staleRounds_ + 1 : 0;
  lockFirst_ = staleRounds_ >= kStaleRoundsBeforeLockFirst && !mutantEnabled("iomap.no_lock_first");
  if (lockFirst_) ++mapping_.counters.lockFirst;
  TRY(begin());
  if (intent_ == IomapIntent::Write) SYNC_POINT("write.after_begin");
  if (mutantEnabled("iomap.cookie_late")) map_.cookie = mapping_.extents.sequence();
  return true;
}

ByteCount IomapIter::length() const { return std::min(map_.end() - pos_, remaining_); }

bool IomapIter::valid() const {
#ifdef OURFS_WITHOUT_VALIDATION  // bench/validation-cost
  return true;
#endif
  if (map_.cookie == mapping_.extents.sequence()) [[likely]]
    return true;
  return mutantEnabled("iomap.no_validation");
}

void IomapIter::markStale() { map_.flags |= kIomapStale; }

void IomapIter::advance(ByteCount done) {
  pos_ += done;
  remaining_ -= done;
  lockFirst_ = false;
}

Status IomapIter::resampleLocked() {
  TRY(endMap());
  return begin();
}

std::vector<Range> IomapIter::unusedNew() const {
  // A block that is used in part is used.
  const uint32_t block = mapping_.pages.blockSize();
  const FileOffset from(pos_ == start_ ? roundDown(pos_.v, block) : roundUp(pos_.v, block));
  std::vector<Range> unused;
  for (const Range& r : newRanges_)
    if (r.second > from) unused.emplace_back(std::max(r.first, from), r.second);
  return unused;
}

Status IomapIter::endMap() {
  if (!open_) return Status::ok();
  open_ = false;
  const Iomap ended = std::exchange(map_, {});
  return ops_.end(mapping_, ended, mapStart_, pos_ - mapStart_, intent_);
}

Status IomapIter::begin() {
  TRY_ASSIGN(map_, beginAt());
  mapStart_ = pos_;
  open_ = true;
  return Status::ok();
}

Result<Iomap> IomapIter::beginAt() {
  TRY_ASSIGN(Iomap map, ops_.begin(mapping_, pos_, remaining_, intent_));
  Status good = check(map);
  if (!good) {
    (void)ops_.end(mapping_, map, pos_, ByteCount(0), intent_);
    return good;
  }
  trackNew(map);
  return map;
}

// A provider that is wrong here would send data to a wrong place.
Status IomapIter::check(const Iomap& map) const {
  const char* wrong = nullptr;
  const uint32_t block = mapping_.pages.blockSize();
  if (map.length.v == 0)
    wrong = "is empty";
  else if (pos_ < map.offset || pos_ >= map.end())
    wrong = "does not cover the position";
  else if ((map.flags & kIomapStale) != 0)
    wrong = "is stale from the start";
  else if (map.type == IomapType::Inline)
    wrong = "is inline";
  else if (!isAligned(map.offset.v, block) || !isAligned(map.length.v, block))
    wrong = "is not made of whole blocks";
  else if (hasAddress(map) && !isAligned(map.address.v, block))
    wrong = "has an address inside a block";
  else if (intent_ == IomapIntent::Write && map.type == IomapType::Hole)
    wrong = "is a hole for a write";
  else if (intent_ == IomapIntent::DirectWrite && !hasAddress(map))
    wrong = "has no address for a direct write";
  if (wrong == nullptr) return Status::ok();
  return Status::corrupt("inode " + std::to_string(mapping_.ino.v) + ": the map at byte " +
                         std::to_string(pos_.v) + " " + wrong);
}

// NEW is kept as a range of bytes, because a flag would be lost at the second remap, or wrong:
//   writer                                 others
//   begin: hole -> Delalloc, NEW
//                                          any change of the map (a bump)
//   stale; begin: Delalloc, a plain map
//   still its own: NEW again
//                                          mmap store, writeback, ioend: Mapped; reclaim
//   stale; begin: Mapped
//   no longer uninitialised: not NEW, read it
void IomapIter::trackNew(Iomap& map) {
  if ((map.flags & kIomapNew) != 0) {
    addRange(newRanges_, {map.offset, map.end()});
    return;
  }
  if (newRanges_.empty()) return;
  if (mutantEnabled("iomap.drop_new")) {
    newRanges_.clear();
    return;
  }
  for (const Range& r : newRanges_) {
    if (pos_ >= r.second) continue;
    if (pos_ < r.first) {
      clip(map, map.offset, r.first);
      return;
    }
    clip(map, r.first, r.second);
    if (map.type == IomapType::Mapped && !mutantEnabled("iomap.carry_new_blindly")) {
      ++mapping_.counters.remapMaskedNew;
      return;
    }
    map.flags |= kIomapNew;
    ++mapping_.counters.remapKeptNew;
    return;
  }
}

}  // namespace ourfs
