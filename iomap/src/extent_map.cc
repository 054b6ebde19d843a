#include "iomap/extent_map.h"

#include <algorithm>

#include "common/sync_point.h"
#include "require.h"

namespace ourfs {

namespace {

// One counter for all maps of the process: no map ever repeats a cookie of another, so a map that
// was dropped and made again for the same inode cannot validate an old one.
uint64_t nextSequence() {
  static std::atomic<uint64_t> counter{0};
  return counter.fetch_add(1, std::memory_order_relaxed) + 1;
}

bool hasAddress(const Extent& e) {
  return e.state == ExtentState::Mapped || e.state == ExtentState::Unwritten;
}

// The change that forgets to bump: to space that is not written, to data, to nothing.
std::string_view bumpMutant(ExtentState to) {
  if (to == ExtentState::Hole) return "iomap.remove_without_bump";
  return to == ExtentState::Mapped ? "iomap.convert_without_bump" : "iomap.insert_without_bump";
}

bool mergeable(const Extent& left, const Extent& right) {
  if (left.end() != right.offset) return false;
  if (left.state != right.state) return false;
  if (left.stored != right.stored) return false;
  if (hasAddress(left) && left.address + left.length != right.address) return false;
  return true;
}

// The part of `e` inside [from, to). REQUIRES: they overlap.
Extent clip(const Extent& e, FileOffset from, FileOffset to) {
  Extent part = e;
  part.offset = std::max(e.offset, from);
  part.length = std::min(e.end(), to) - part.offset;
  if (hasAddress(e)) part.address = e.address + (part.offset - e.offset);
  return part;
}

// Before and after are sorted by offset, and so is what comes out.
void diff(const std::vector<Extent>& before, const std::vector<Extent>& after, ExtentDelta& delta) {
  for (const Extent& old : before) {
    const bool kept = std::any_of(after.begin(), after.end(), [&](const Extent& e) {
      return e.stored && e.offset == old.offset;
    });
    if (old.stored && !kept) delta.erased.push_back(old);
  }
  for (const Extent& e : after)
    if (e.stored && std::find(before.begin(), before.end(), e) == before.end())
      delta.written.push_back(e);
}

}  // namespace

ExtentMap::ExtentMap(uint32_t blockSize) : blockSize_(blockSize), sequence_(nextSequence()) {}

Extent ExtentMap::find(FileOffset pos) const {
  auto next = extents_.upper_bound(pos.v);
  Extent hole{.offset = FileOffset(0), .length = {}, .address = {}};
  if (next != extents_.begin()) {
    const Extent& left = std::prev(next)->second;
    if (pos < left.end()) return left;
    hole.offset = left.end();
  }
  hole.length = (next == extents_.end() ? kFileEnd : next->second.offset) - hole.offset;
  return hole;
}

void ExtentMap::forEach(FileOffset from, FileOffset to,
                        const std::function<bool(const Extent&)>& each) const {
  auto it = extents_.upper_bound(from.v);
  if (it != extents_.begin() && from < std::prev(it)->second.end()) --it;
  for (; it != extents_.end() && it->second.offset < to; ++it)
    if (!each(it->second)) return;
}

ExtentDelta ExtentMap::set(const Extent& extent) {
  require(wellFormed(extent), "malformed extent");
  if (!mutantEnabled(bumpMutant(extent.state))) raiseSequence();

  Extent fresh = extent;
  if (!hasAddress(fresh)) fresh.address = DeviceOffset(0);
  ExtentDelta delta;
  std::vector<Extent> before, after;
  const FileOffset from = fresh.offset, to = fresh.end();

  // The neighbours that end at `from` and start at `to` belong to the window: they may merge.
  auto it = extents_.lower_bound(from.v);
  if (it != extents_.begin() && std::prev(it)->second.end() >= from) --it;
  while (it != extents_.end() && it->second.offset <= to) {
    const Extent old = it->second;
    before.push_back(old);
    if (old.offset < to && from < old.end()) delta.replaced.push_back(clip(old, from, to));
    take(it++);
  }

  auto append = [&after](const Extent& e) {
    if (!after.empty() && mergeable(after.back(), e)) {
      after.back().length += e.length;
    } else {
      after.push_back(e);
    }
  };
  for (const Extent& old : before)
    if (old.offset < from) append(clip(old, old.offset, from));
  if (fresh.state != ExtentState::Hole) append(fresh);
  for (const Extent& old : before)
    if (old.end() > to) append(clip(old, to, old.end()));

  for (const Extent& e : after) put(e);
  diff(before, after, delta);
  return delta;
}

void ExtentMap::load(const std::vector<Extent>& stored) {
  require(extents_.empty(), "loaded twice");
  raiseSequence();
  FileOffset last{0};
  for (const Extent& e : stored) {
    require(wellFormed(e) && e.stored && e.offset >= last, "malformed extent in the index");
    last = e.end();
    put(e);
  }
  loaded_.store(true, std::memory_order_release);
}

void ExtentMap::unload() {
  for (const auto& [offset, e] : extents_)
    require(e.stored, "unloading what the index does not hold");
  raiseSequence();
  loaded_.store(false, std::memory_order_release);
  extents_.clear();
  storedBytes_ = delallocBytes_ = ByteCount(0);
}

void ExtentMap::bump() { raiseSequence(); }

void ExtentMap::raiseSequence() { sequence_.store(nextSequence(), std::memory_order_release); }

void ExtentMap::put(const Extent& extent) {
  extents_.emplace_hint(extents_.end(), extent.offset.v, extent);
  if (extent.stored) storedBytes_ += extent.length;
  if (extent.state == ExtentState::Delalloc) delallocBytes_ += extent.length;
}

void ExtentMap::take(std::map<uint64_t, Extent>::iterator it) {
  const Extent& extent = it->second;
  if (extent.stored) storedBytes_ -= extent.length;
  if (extent.state == ExtentState::Delalloc) delallocBytes_ -= extent.length;
  extents_.erase(it);
}

bool ExtentMap::wellFormed(const Extent& e) const {
  if (e.length.v == 0 || e.offset >= kFileEnd || e.end() > kFileEnd) return false;
  // A range that ends at kFileEnd is aligned for every block size.
  if (!isAligned(e.offset.v, blockSize_) || !isAligned(e.length.v, blockSize_)) return false;
  switch (e.state) {
    case ExtentState::Hole:
    case ExtentState::Delalloc:
      return !e.stored;
    case ExtentState::Mapped:
      return e.stored && isAligned(e.address.v, blockSize_);
    case ExtentState::Unwritten:
      return isAligned(e.address.v, blockSize_);
  }
  return false;
}

}  // namespace ourfs
