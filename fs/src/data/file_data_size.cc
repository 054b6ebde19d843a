// FileData: size changes, holes, preallocation and the end of a file.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include "common/sync_point.h"
#include "data/file_data_state.h"

namespace ourfs {

Status FileData::State::removeExtents(Inode& inode, FileMapping& mapping, FileOffset from,
                                      FileOffset to, std::optional<FileOffset> shrinkTo,
                                      bool touch) {
  // Nobody else changes this range meanwhile: writers, mmap stores and failed writes need a lock
  // that the caller holds, and no folio is left for writeback. So the starts can be collected once.
  std::vector<FileOffset> starts;
  {
    MutexLock extents(mapping.extents.mutex());
    mapping.extents.forEach(from, to, [&](const Extent& e) {
      starts.push_back(std::max(e.offset, from));
      return true;
    });
  }
  FileOffset end = to;
  do {
    size_t keep = starts.size() > kMaxExtentsPerStep ? starts.size() - kMaxExtentsPerStep : 0;
    bool last = keep == 0;
    FileOffset cut = last ? from : starts[keep];
    starts.resize(keep);
    TRY_ASSIGN(auto room, volume.log().reserve(kExtentRoom, Privilege::Freeing));

    MutexLock extents(mapping.extents.mutex());
    Transaction t;
    if (cut < end) {
      Extent hole;
      hole.offset = cut;
      hole.length = end - cut;
      ExtentDelta delta = mapping.extents.set(hole);
      recordDelta(t, inode.ino, delta);
      releaseReplaced(t, delta);
    }
    InodeUpdate update;
    update.touch = touch;
    if (shrinkTo) {
      uint64_t reached = last ? shrinkTo->v : std::max(shrinkTo->v, cut.v);
      update.storedSize = std::min(mapping.storedSize.load(), reached);
    }
    end = cut;
    // Nothing of this step is on disk; of the next one there may be.
    if (t.empty() && !touch && update.storedSize.value_or(mapping.storedSize) == mapping.storedSize)
      continue;
    TRY(commitWithInode(inode, mapping, std::move(t), std::move(room), update));
  } while (!starts.empty());
  return Status::ok();
}

Status FileData::State::fillHoles(Inode& inode, FileMapping& mapping, FileOffset from,
                                  FileOffset to) {
  auto nextHole = [&](FileOffset pos) REQUIRES(mapping.extents.mutex()) {
    Extent e = mapping.extents.find(pos);
    while (pos < to && e.state != ExtentState::Hole) {
      pos = e.end();
      if (pos < to) e = mapping.extents.find(pos);
    }
    e.length = std::min(e.end(), to) - pos;
    e.offset = pos;
    return e;
  };
  TRY(admitGrowth());
  BlockCount wanted;
  uint64_t holes = 0;
  {
    MutexLock extents(mapping.extents.mutex());
    for (Extent hole = nextHole(from); hole.offset < to; hole = nextHole(hole.end())) {
      wanted += blocksOf(hole.length);
      ++holes;
    }
  }
  TRY(volume.space().reserve(wanted));

  FileOffset pos = from;
  Status failed;
  while (wanted.v > 0 && failed.isOk()) {
    // The worst case. The mutant takes the holes for the extents, as they were without the lock.
    const bool sampled = mutantEnabled("data.reserve_by_sample");
    auto room = volume.log().reserve(sampled ? ByteCount(KiB + 64 * holes) : kExtentRoom);
    if (!room) {
      failed = room.status();
      break;
    }
    MutexLock extents(mapping.extents.mutex());
    Transaction t;
    for (size_t n = 0; n < kMaxExtentsPerStep && wanted.v > 0; ++n) {
      Extent hole = nextHole(pos);
      if (hole.offset >= to) break;
      uint64_t hint = 0;
      if (hole.offset.v > 0) {
        Extent before = mapping.extents.find(hole.offset - ByteCount(blockSize));
        if (before.state == ExtentState::Mapped || before.state == ExtentState::Unwritten)
          hint = blockOf((before.address + before.length).v);
      }
      BlockCount ask(std::min(blocksOf(hole.length).v, wanted.v));
      auto run = volume.space().allocate(ask, BlockNo(hint), true);
      if (!run) {
        failed = run.status();
        break;
      }
      wanted -= run->count;
      hole.length = ByteCount(run->count.v * blockSize);
      hole.address = DeviceOffset(run->start.v * blockSize);
      hole.state = ExtentState::Unwritten;
      hole.stored = true;
      recordDelta(t, inode.ino, mapping.extents.set(hole));
      pos = hole.end();
    }
    if (t.empty()) break;
    Status committed = commitWithInode(inode, mapping, std::move(t), std::move(*room), {});
    if (!committed.isOk()) failed = committed;
  }
  volume.space().unreserve(wanted);
  return failed;
}

Status FileData::State::zeroEofTail(FileMapping& mapping, FileOffset upTo) {
  FileOffset eof(mapping.size);
  FileOffset tailEnd = std::min(blockUp(eof), upTo);
  if (tailEnd <= eof) return Status::ok();
  return zeroRange(mapping, io, eof, tailEnd - eof);
}

Status FileData::State::storeSize(Inode& inode, FileMapping& mapping, FileOffset size, bool touch) {
  TRY_ASSIGN(auto room, volume.log().reserve(kAttributeRoom, Privilege::Freeing));
  InodeUpdate update;
  update.touch = touch;
  MutexLock extents(mapping.extents.mutex());
  if (size.v > mapping.storedSize) update.storedSize = size.v;
  if (!update.storedSize && !touch) return Status::ok();
  Transaction t;
  t.afterData();  // of a file that grows, the zeros behind its former end
  return commitWithInode(inode, mapping, std::move(t), std::move(room), update);
}

Status FileData::State::flushUnstored(FileMapping& mapping, FileOffset upTo) {
  FileOffset stored(mapping.storedSize);
  if (stored >= upTo) return Status::ok();
  return writeback->flush(mapping.shared_from_this(), stored, upTo);
}

Status FileData::State::flushCutTail(FileMapping& mapping) {
  if (!mapping.cutTail || mutantEnabled("data.cut_tail_unwritten")) return Status::ok();
  FileOffset eof(mapping.size);
  TRY(writeback->flush(mapping.shared_from_this(), blockDown(eof), blockUp(eof)));
  mapping.cutTail = false;
  return Status::ok();
}

Status FileData::State::growTo(Inode& inode, FileMapping& mapping, FileOffset size, bool touch) {
  TRY(flushUnstored(mapping, FileOffset(mapping.size)));
  TRY(flushCutTail(mapping));
  TRY(truncateCache(mapping, io, size));
  return storeSize(inode, mapping, size, touch);
}

Status FileData::truncate(Inode& inode, FileOffset size, bool touch) {
  State& s = *state_;
  if (size > kFileEnd - ByteCount(1)) return Status::error(EFBIG);
  TRY_ASSIGN(auto any, mappingOf(inode));
  auto mapping = std::static_pointer_cast<FileMapping>(any);
  ExclusiveLock invalidate(mapping->invalidateLock);
  if (size.v > mapping->size) return s.growTo(inode, *mapping, size, touch);
  TRY(s.flushUnstored(*mapping, size));
  if (size.v == mapping->size) {
    // Space behind the end (fallocate with KEEP_SIZE) goes too, as on XFS and ext4.
    dropFolios(*mapping, s.blockUp(size), kFileEnd);
  } else {
    if (!isAligned(size.v, s.blockSize)) mapping->cutTail = true;
    TRY(truncateCache(*mapping, s.io, size));
  }
  TRY(s.removeExtents(inode, *mapping, s.blockUp(size), kFileEnd, size, touch));
  return s.storeSize(inode, *mapping, size, false);
}

Status FileData::State::punch(Inode& inode, FileMapping& mapping, FileOffset pos,
                              ByteCount length) {
  FileOffset end = std::min(pos + length, kFileEnd);
  FileOffset first = blockUp(pos), last = blockDown(end);
  // Partial blocks keep their space and become zero in the cache.
  if (first > last) {
    TRY(zeroRange(mapping, io, pos, length));
    touchModified(inode);
    return Status::ok();
  }
  if (pos < first) TRY(zeroRange(mapping, io, pos, first - pos));
  if (last < end && last.v < mapping.size) TRY(zeroRange(mapping, io, last, end - last));

  // A folio may hold blocks on both sides of the hole's edge: those outside are written first.
  uint64_t folio = mapping.pages.folioSize();
  FileOffset folioFirst(roundDown(first.v, folio)), folioLast(roundUp(last.v, folio));
  auto self_ = mapping.shared_from_this();
  FileOffset reach = std::min(last, FileOffset(mapping.size));
  TRY(flushUnstored(mapping, std::min(first, reach)));
  if (folioFirst < first) TRY(writeback->flush(self_, folioFirst, folioFirst + ByteCount(folio)));
  if (last < folioLast) TRY(writeback->flush(self_, folioLast - ByteCount(folio), folioLast));
  dropFolios(mapping, folioFirst, folioLast);
  TRY(removeExtents(inode, mapping, first, last, std::nullopt, true));
  return storeSize(inode, mapping, reach, false);
}

Status FileData::fallocate(Inode& inode, int mode, FileOffset pos, ByteCount length) {
  State& s = *state_;
  constexpr int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
  bool punch = mode & FALLOC_FL_PUNCH_HOLE, zero = mode & FALLOC_FL_ZERO_RANGE;
  bool keepSize = mode & FALLOC_FL_KEEP_SIZE;
  if ((mode & ~known) || (punch && (zero || !keepSize))) return Status::error(EOPNOTSUPP);
  if (length.v == 0) return Status::error(EINVAL);
  if (pos.v >= kFileEnd.v - 1 || length.v > kFileEnd.v - 1 - pos.v) return Status::error(EFBIG);
  if (s.volume.readOnly()) return Status::error(EROFS);

  ExclusiveLock lock(inode.lock);
  TRY_ASSIGN(auto any, mappingOf(inode));
  auto mapping = std::static_pointer_cast<FileMapping>(any);
  ExclusiveLock invalidate(mapping->invalidateLock);
  FileOffset end = pos + length;
  if (punch) return s.punch(inode, *mapping, pos, length);
  if (zero) TRY(s.punch(inode, *mapping, pos, length));
  TRY(s.fillHoles(inode, *mapping, s.blockDown(pos), s.blockUp(end)));
  if (!keepSize && end.v > mapping->size) return s.growTo(inode, *mapping, end, true);
  if (!zero) s.touchModified(inode);
  return Status::ok();
}

Status FileData::reclaimContents(Inode& inode) {
  State& s = *state_;
  bool regular = false, hasXattrs = false;
  {
    MutexLock attr(inode.attrMutex);
    hasXattrs = inode.record.flags & kInodeHasXattr;
    regular = (inode.record.mode & S_IFMT) == S_IFREG;
  }
  ExclusiveLock lock(inode.lock);
  if (regular) {
    TRY_ASSIGN(auto any, mappingOf(inode));
    auto mapping = std::static_pointer_cast<FileMapping>(any);
    ExclusiveLock invalidate(mapping->invalidateLock);
    dropFolios(*mapping, FileOffset(0), kFileEnd);
    mapping->size = 0;
    TRY(s.removeExtents(inode, *mapping, FileOffset(0), kFileEnd, FileOffset(0), false));
  }

  constexpr size_t kAttributesPerStep = 64;
  const std::string prefix = xattrPrefix(inode.ino);
  for (bool more = hasXattrs; more;) {
    TRY_ASSIGN(auto room, s.volume.log().reserve(kNamespaceRoom, Privilege::Freeing));
    Transaction t;
    size_t steps = 0;
    more = false;
    auto erase = [&](auto key, auto) {
      if (++steps > kAttributesPerStep) {
        more = true;
        return false;
      }
      t.erase(std::string(key));
      return true;
    };
    TRY(s.volume.index().scan(prefix, prefixEnd(prefix), erase));
    TRY(s.volume.log().commit(std::move(t), std::move(room)).status());
  }
  return Status::ok();
}

Status FileData::eraseRecords(std::span<const InodePtr> inodes) {
  State& s = *state_;
  constexpr size_t kErase = 16;  // bytes that one adds to a batch, at most
  static_assert(kRecordsPerStep * 2 * kErase < kNamespaceRoom.v);
  TRY_ASSIGN(auto room, s.volume.log().reserve(kNamespaceRoom, Privilege::Freeing));
  Transaction t;
  for (const InodePtr& inode : inodes) {
    t.erase(inodeKey(inode->ino));
    t.erase(orphanKey(inode->ino));
    // Nobody else can reach it, so the record cannot come back behind this transaction.
    MutexLock attr(inode->attrMutex);
    inode->attrDirty = false;
  }
  TRY_ASSIGN(const Lsn lsn, s.volume.log().commit(std::move(t), std::move(room)));
  for (const InodePtr& inode : inodes) inode->raiseLastLsn(lsn);
  return Status::ok();
}

}  // namespace ourfs
