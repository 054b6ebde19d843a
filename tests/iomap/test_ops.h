// TestOps: a small filesystem of one file behind the iterator: extents in core, an allocator, no
// index. Delalloc at write, Unwritten in core when writeback allocates, Mapped when the data is on
// disk.
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "iomap/mapping.h"
#include "iomap/operations.h"
#include "iomap/test_space.h"

namespace ourfs::test {

inline Extent clipped(Extent e, FileOffset from, FileOffset to) {
  const FileOffset start = std::max(e.offset, from), end = std::min(e.end(), to);
  if (e.state == ExtentState::Mapped || e.state == ExtentState::Unwritten)
    e.address += start - e.offset;
  e.offset = start;
  e.length = end - start;
  return e;
}

class TestOps : public IomapOps {
 public:
  TestOps(TestSpace& space, uint32_t blockSize) : space_(space), blockSize_(blockSize) {}

  // For tests: runs at the end of every begin, without any lock of the fixture.
  std::function<void(const Iomap&, IomapIntent)> afterBegin;
  std::atomic<uint64_t> mapLimit{UINT64_MAX};  // blocks that a map covers at most
  std::atomic<int> open{0};                    // begins without their end

  Result<Iomap> begin(Mapping& mapping, FileOffset pos, ByteCount length,
                      IomapIntent intent) override {
    Result<Iomap> map = sample(mapping, pos, length, intent);
    if (!map) return map;
    ++open;
    if (afterBegin) afterBegin(*map, intent);
    return map;
  }

  Status end(Mapping& mapping, const Iomap& map, FileOffset pos, ByteCount done,
             IomapIntent intent) override {
    --open;
    if (intent != IomapIntent::DirectWrite || (map.flags & kIomapNew) == 0) return Status::ok();
    const FileOffset from(roundUp((std::max(pos, map.offset) + done).v, blockSize_));
    MutexLock lock(mapping.extents.mutex());
    remove(mapping, from, map.end(), [](const Extent& e) { return !e.stored; });
    return Status::ok();
  }

  void punchDelalloc(Mapping& mapping, FileOffset from, FileOffset to) override {
    MutexLock lock(mapping.extents.mutex());
    remove(mapping, from, to, [](const Extent& e) { return e.state == ExtentState::Delalloc; });
  }

  // Frees what the range holds, if `which` says so.
  void remove(Mapping& mapping, FileOffset from, FileOffset to,
              const std::function<bool(const Extent&)>& which) REQUIRES(mapping.extents.mutex()) {
    std::vector<Extent> gone;
    mapping.extents.forEach(from, to, [&](const Extent& e) {
      if (which(e)) gone.push_back(clipped(e, from, to));
      return true;
    });
    for (const Extent& e : gone) {
      (void)mapping.extents.set({.offset = e.offset, .length = e.length, .address = {}});
      if (e.state == ExtentState::Delalloc)
        space_.unreserve(e.length.v / blockSize_);
      else
        space_.free(e.address, e.length);
    }
  }

  // What writeback writes to: Delalloc becomes Unwritten, in core only.
  Result<Extent> mapForWriteback(Mapping& mapping, FileOffset pos, ByteCount length) {
    MutexLock lock(mapping.extents.mutex());
    const Extent e = mapping.extents.find(pos);
    if (e.state != ExtentState::Delalloc) return e;
    return allocate(mapping, clipped(e, pos, pos + length), false);
  }

  // Unwritten, still at that address, becomes Mapped.
  void convert(Mapping& mapping, const Extent& piece) {
    MutexLock lock(mapping.extents.mutex());
    std::vector<Extent> found;
    mapping.extents.forEach(piece.offset, piece.end(), [&](const Extent& e) {
      found.push_back(clipped(e, piece.offset, piece.end()));
      return true;
    });
    for (Extent e : found) {
      if (e.state != ExtentState::Unwritten) continue;
      if (e.address != piece.address + (e.offset - piece.offset)) continue;
      e.state = ExtentState::Mapped;
      e.stored = true;
      (void)mapping.extents.set(e);
    }
  }

  // fallocate: stored Unwritten behind every hole.
  Status preallocate(Mapping& mapping, FileOffset from, FileOffset to) {
    MutexLock lock(mapping.extents.mutex());
    while (from < to) {
      const Extent e = mapping.extents.find(from);
      FileOffset end = std::min(e.end(), to);
      if (e.state == ExtentState::Hole) {
        TRY_ASSIGN(const Extent fresh, allocate(mapping, clipped(e, from, to), true));
        end = fresh.end();
      }
      from = end;
    }
    return Status::ok();
  }

 private:
  // Puts Unwritten space behind the head of `e`, a Hole or Delalloc.
  Result<Extent> allocate(Mapping& mapping, Extent e, bool stored)
      REQUIRES(mapping.extents.mutex()) {
    TRY_ASSIGN(const TestSpace::Run run,
               space_.allocate(e.length.v / blockSize_, e.state == ExtentState::Delalloc));
    e.length = ByteCount(run.blocks * blockSize_);
    e.address = run.address;
    e.state = ExtentState::Unwritten;
    e.stored = stored;
    (void)mapping.extents.set(e);
    return e;
  }

  Result<Iomap> sample(Mapping& mapping, FileOffset pos, ByteCount length, IomapIntent intent) {
    const FileOffset from(roundDown(pos.v, blockSize_));
    const uint64_t limit = mapLimit;
    FileOffset to(roundUp((pos + length).v, blockSize_));
    if (to.v / blockSize_ - from.v / blockSize_ > limit) to = from + ByteCount(limit * blockSize_);
    MutexLock lock(mapping.extents.mutex());
    Extent e = mapping.extents.find(from);
    uint32_t flags = 0;
    if (limit != UINT64_MAX) e = clipped(e, from, to);
    const bool noAddress = e.state == ExtentState::Hole || e.state == ExtentState::Delalloc;
    if (intent == IomapIntent::Write && e.state == ExtentState::Hole) {
      e = clipped(e, from, to);
      TRY(reserve(e));
      e.state = ExtentState::Delalloc;
      (void)mapping.extents.set(e);
      flags = kIomapNew;
    } else if (intent == IomapIntent::DirectWrite && noAddress) {
      TRY_ASSIGN(e, allocate(mapping, clipped(e, from, to), false));
      flags = kIomapNew;
    }
    return toMap(e, flags, mapping.extents.sequence());
  }

  // As much of `e` as there is room for.
  Status reserve(Extent& e) {
    Status status = space_.reserve(e.length.v / blockSize_);
    while (!status && e.length.v > blockSize_) {
      e.length = ByteCount(roundUp(e.length.v / 2, blockSize_));
      status = space_.reserve(e.length.v / blockSize_);
    }
    return status;
  }

  static Iomap toMap(const Extent& e, uint32_t flags, uint64_t cookie) {
    static constexpr IomapType kTypes[] = {IomapType::Hole, IomapType::Delalloc, IomapType::Mapped,
                                           IomapType::Unwritten};
    Iomap map;
    map.offset = e.offset;
    map.length = e.length;
    map.address = e.address;
    map.type = kTypes[static_cast<size_t>(e.state)];
    map.flags = flags;
    map.cookie = cookie;
    return map;
  }

  TestSpace& space_;
  const uint32_t blockSize_;
};

}  // namespace ourfs::test
