// Reads: from folios where there are some, past the cache where there are none.
#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "common/aligned_buffer.h"
#include "common/sync_point.h"
#include "folio_fill.h"
#include "iomap/operations.h"

namespace ourfs {

namespace {

constexpr size_t kMaxSegments = 16;  // maps that one read past the cache has in flight
constexpr int kBypassTries = 2;

// Counts I/Os down. A waiter may destroy it as soon as wait() returned.
class Latch {
 public:
  explicit Latch(size_t count) : left_(count) {}
  void done(const Status& status) {
    MutexLock lock(mutex_);
    if (first_.isOk()) first_ = status;
    if (--left_ == 0) zero_.notifyAll();
  }
  Status wait() {
    MutexLock lock(mutex_);
    while (left_ > 0) zero_.wait(mutex_);
    return first_;
  }

 private:
  Mutex mutex_;
  CondVar zero_;
  size_t left_ GUARDED_BY(mutex_);
  Status first_ GUARDED_BY(mutex_);  // the first error
};

// The part of a read that one map covers.
class Segment {
 public:
  void set(const Iomap& map, FileOffset pos, std::span<std::byte> into) {
    map_ = map;
    pos_ = pos;
    into_ = into;
  }
  bool onDisk() const { return map_.type == IomapType::Mapped; }
  void zero() { std::memset(into_.data(), 0, into_.size()); }

  // Whole sectors, straight into the caller's memory as far as that is aligned.
  IoRequest request(uint32_t sector) {
    const DeviceOffset at = map_.addressOf(pos_);
    const uint64_t start = roundDown(at.v, sector);
    const uint64_t end = roundUp(at.v + into_.size(), sector);
    IoRequest r;
    r.op = IoOp::Read;
    r.cls = IoClass::Data;
    r.offset = DeviceOffset(start);
    r.length = ByteCount(end - start);
    const bool direct =
        start == at.v && isAligned(reinterpret_cast<uintptr_t>(into_.data()), sector);
    direct_ = direct ? roundDown(into_.size(), sector) : 0;
    skip_ = direct ? 0 : at.v - start;
    if (direct_ > 0) r.pieces.push_back({into_.data(), direct_});
    if (direct_ < into_.size()) {
      bounce_ = AlignedBuffer(end - start - direct_);
      r.pieces.push_back({bounce_.data(), end - start - direct_});
    }
    return r;
  }
  void finish() {
    if (direct_ < into_.size())
      std::memcpy(into_.data() + direct_, bounce_.data() + skip_, into_.size() - direct_);
  }

 private:
  Iomap map_;
  FileOffset pos_;
  std::span<std::byte> into_;
  AlignedBuffer bounce_;
  size_t direct_ = 0, skip_ = 0;
};

class Reader {
 public:
  Reader(Mapping& mapping, IoContext& io) : mapping_(mapping), io_(io) {}

  // Bytes read from `pos`, at least one.
  Result<size_t> step(FileOffset pos, std::span<std::byte> into) {
    for (int tries = 0; tries < kBypassTries;) {
      const uint64_t first = folioIndex(mapping_, pos);
      const auto cached = nextCached(pos, into.size());
      if (cached == first) {
        if (LockedFolio folio = mapping_.pages.lock(first)) return fromFolio(folio, pos, into);
        continue;  // evicted meanwhile
      }
      const size_t gap = cached ? *cached * mapping_.pages.folioSize() - pos.v : into.size();
      TRY_ASSIGN(const size_t done, pastCache(pos, into.first(gap)));
      if (done > 0) return done;
      ++tries;
    }
    // Changed under two reads: under the folio's lock it cannot.
    LockedFolio folio = mapping_.pages.lockOrCreate(folioIndex(mapping_, pos));
    const Result<size_t> done = fromFolio(folio, pos, into);
    folio.unlock();
    tellWriteback(mapping_, io_);
    return done;
  }

 private:
  std::optional<uint64_t> nextCached(FileOffset pos, size_t length) const {
    return mapping_.pages.nextCached(folioIndex(mapping_, pos),
                                     folioIndexUp(mapping_, pos + ByteCount(length)));
  }

  Result<size_t> fromFolio(LockedFolio& folio, FileOffset pos, std::span<std::byte> into) {
    const auto at = static_cast<uint32_t>(pos.v - folio->offset().v);
    const auto n = static_cast<uint32_t>(std::min<uint64_t>(into.size(), folio->size() - at));
    Status filled = fillForRead(mapping_, io_, *folio, {at, at + n});
    if (!filled) {
      dropIfEmpty(mapping_, std::move(folio));
      return filled;
    }
    std::memcpy(into.data(), folio->data() + at, n);
    ++mapping_.counters.cachedReads;
    return size_t{n};
  }

  // 0: the maps changed, or a folio appeared; what was read must not be used.
  Result<size_t> pastCache(FileOffset pos, std::span<std::byte> into) {
    std::array<Segment, kMaxSegments> segments;
    size_t count = 0, length = 0;
    uint64_t cookie = 0;
    IomapIter iter(mapping_, io_.ops, pos, ByteCount(into.size()), IomapIntent::Read);
    while (count < kMaxSegments) {
      TRY_ASSIGN(const bool more, iter.next());
      if (!more) break;
      if (count > 0 && iter.map().cookie != cookie) break;
      cookie = iter.map().cookie;
      segments[count++].set(iter.map(), iter.pos(), into.subspan(length, iter.length().v));
      length += iter.length().v;
      iter.advance(iter.length());
    }
    SYNC_POINT("read.after_begin");
    // Dirty data newer than the maps is in a folio, or its conversion made the cookie stale.
    const auto usable = [&] {
      if (nextCached(pos, length)) return false;
      return mapping_.extents.sequence() == cookie || mutantEnabled("iomap.read_without_cookie");
    };
    if (nextCached(pos, length)) return size_t{0};
    Status read = transfer({segments.data(), count});
    if (!usable()) {
      ++mapping_.counters.staleRead;
      return size_t{0};
    }
    TRY(read);
    ++mapping_.counters.bypassReads;
    return length;
  }

  Status transfer(std::span<Segment> segments) {
    const auto onDisk = std::count_if(segments.begin(), segments.end(),
                                      [](const Segment& s) { return s.onDisk(); });
    Latch latch(static_cast<size_t>(onDisk));
    for (Segment& s : segments) {
      if (!s.onDisk()) continue;
      IoRequest request = s.request(io_.device.logicalSector());
      request.done = [&latch](Status status) { latch.done(status); };
      io_.device.submit(std::move(request));
    }
    for (Segment& s : segments)
      if (!s.onDisk()) s.zero();
    TRY(latch.wait());
    for (Segment& s : segments)
      if (s.onDisk()) s.finish();
    return Status::ok();
  }

  Mapping& mapping_;
  IoContext& io_;
};

Result<ByteCount> readUpToSize(Mapping& mapping, IoContext& io, FileOffset pos,
                               std::span<std::byte> into) {
  const uint64_t size = mapping.size;
  if (pos.v >= size) return ByteCount(0);
  into = into.first(std::min<uint64_t>(into.size(), size - pos.v));
  Reader reader(mapping, io);
  size_t done = 0;
  while (done < into.size()) {
    const auto n = reader.step(pos + ByteCount(done), into.subspan(done));
    if (!n) {
      if (done > 0) break;
      return n.status();
    }
    done += *n;
  }
  return ByteCount(done);
}

}  // namespace

Result<ByteCount> readFile(Mapping& mapping, IoContext& io, FileOffset pos,
                           std::span<std::byte> into) {
  if (mutantEnabled("iomap.read_without_lock")) return readUpToSize(mapping, io, pos, into);
  // Whoever frees blocks takes it exclusively: what is read here stays allocated.
  SharedLock invalidate(mapping.invalidateLock);
  return readUpToSize(mapping, io, pos, into);
}

}  // namespace ourfs
