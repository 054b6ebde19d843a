// Direct writes.
#include <algorithm>
#include <optional>

#include "common/sync_point.h"
#include "folio_fill.h"
#include "iomap/operations.h"

namespace ourfs {

namespace {

constexpr uint32_t kKernelPage = 4096;

class DirectWriter {
 public:
  DirectWriter(Mapping& mapping, IoContext& io, const DirectHooks& hooks, FileOffset pos,
               std::span<const std::byte> from)
      : mapping_(mapping),
        io_(io),
        hooks_(hooks),
        start_(pos),
        end_(pos + ByteCount(from.size())),
        from_(from) {}

  Status run() {
    if (mapping_.pages.blockSize() > kKernelPage || grows() || fillsSpace()) {
      ExclusiveLock invalidate(mapping_.invalidateLock);
      TRY(flushAndDrop());
      return write();
    }
    if (nextCached(start_)) {
      ExclusiveLock invalidate(mapping_.invalidateLock);
      TRY(flushAndDrop());
    }
    SharedLock invalidate(mapping_.invalidateLock);
    return write();
  }

  ByteCount done() const { return done_; }

 private:
  // What keeps stores of the kernel's page cache out for the whole write. A store brings whole
  // pages: if a block is larger, the store decides what the rest of the block holds, and must not
  // do so while the map under it is about to become Mapped.

  // A page of the kernel's writeback cache further out would zero from the old end on what is
  // written here.
  bool grows() const {
    return end_.v > mapping_.size && !mutantEnabled("iomap.direct_grows_shared");
  }
  // Of two that fill the same new blocks, the one that fails would free them under the other. Only
  // who holds the inode lock takes data away, so what is Mapped now stays Mapped.
  bool fillsSpace() const {
    if (mutantEnabled("iomap.direct_fills_shared")) return false;
    MutexLock extents(mapping_.extents.mutex());
    FileOffset mapped = start_;
    mapping_.extents.forEach(start_, end_, [&](const Extent& e) {
      if (e.offset > mapped || e.state != ExtentState::Mapped) return false;
      mapped = e.end();
      return true;
    });
    return mapped < end_;
  }

  std::optional<uint64_t> nextCached(FileOffset from) const {
    return mapping_.pages.nextCached(folioIndex(mapping_, from), folioIndexUp(mapping_, end_));
  }

  // False: a folio became dirty meanwhile, and stays.
  bool drop() {
    bool all = true;
    for (auto next = nextCached(start_); next;) {
      LockedFolio folio = mapping_.pages.lock(*next);
      if (folio && mapping_.pages.waitWriteback(folio))
        all = mapping_.pages.evict(std::move(folio)) && all;
      next = mapping_.pages.nextCached(*next + 1, folioIndexUp(mapping_, end_));
    }
    return all;
  }

  Status flushAndDrop() {
    if (!nextCached(start_) || mutantEnabled("iomap.direct_no_drop_before")) return Status::ok();
    const uint32_t size = mapping_.pages.folioSize();
    TRY(hooks_.writeback(mapping_, FileOffset(roundDown(start_.v, size)),
                         FileOffset(roundUp(end_.v, size))));
    if (drop()) return Status::ok();
    return Status::error(EIO, "folios stay dirty under a direct write");
  }

  Status write() {
    Status status = writeMaps();
    // Pages that were stored or read while the write was under way are older than it.
    const bool dropped = mutantEnabled("iomap.direct_no_drop_after") || drop();
    if (!dropped && !mutantEnabled("iomap.direct_drop_untold")) mapping_.recordError(EIO);
    if (done_.v > 0) (void)growSize(mapping_, start_ + done_);
    return status;
  }

  Status writeMaps() {
    IomapIter iter(mapping_, io_.ops, start_, ByteCount(from_.size()), IomapIntent::DirectWrite);
    for (;;) {
      TRY_ASSIGN(const bool more, iter.next());
      if (!more) return Status::ok();
      const ByteCount n = iter.length();
      TRY(io_.device.write(iter.map().addressOf(iter.pos()),
                           from_.subspan((iter.pos() - start_).v, n.v), IoClass::Data));
      // Until here the blocks cannot show anything but what they held before.
      if (iter.map().type == IomapType::Unwritten || (iter.pos() + n).v > mapping_.storedSize)
        TRY(hooks_.convert(mapping_, iter.pos(), n));
      if (mutantEnabled("iomap.direct_size_first")) (void)growSize(mapping_, iter.pos() + n);
      SYNC_POINT("direct.after_end_io");
      iter.advance(n);
      done_ += n;
    }
  }

  Mapping& mapping_;
  IoContext& io_;
  const DirectHooks& hooks_;
  const FileOffset start_, end_;
  const std::span<const std::byte> from_;
  ByteCount done_;
};

}  // namespace

Result<ByteCount> directWrite(Mapping& mapping, IoContext& io, const DirectHooks& hooks,
                              FileOffset pos, std::span<const std::byte> from) {
  const uint32_t block = mapping.pages.blockSize();
  if (!isAligned(pos.v, block) || !isAligned(from.size(), block)) return Status::error(EINVAL);
  if (pos >= kFileEnd || from.size() > (kFileEnd - pos).v) return Status::error(EFBIG);
  if (from.empty()) return ByteCount(0);
  Status tail = zeroEofTail(mapping, io, pos);
  tellWriteback(mapping, io);
  TRY(tail);
  DirectWriter writer(mapping, io, hooks, pos, from);
  Status status = writer.run();
  ++mapping.counters.directWrites;
  if (writer.done().v == 0 && !status) return status;
  return writer.done();
}

}  // namespace ourfs
