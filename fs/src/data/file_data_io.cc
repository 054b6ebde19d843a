// FileData: read, write, fsync.
#include <sys/stat.h>
#include <unistd.h>

#include "common/sync_point.h"
#include "data/file_data_state.h"
#include "inode_change.h"

namespace ourfs {

Result<ByteCount> FileData::read(Inode& inode, FileOffset pos, std::span<std::byte> into) {
  TRY_ASSIGN(auto mapping, mappingOf(inode));
  return readFile(*mapping, state_->io, pos, into);
}

namespace {

bool aligned(FileOffset pos, std::span<const std::byte> from, uint32_t blockSize, uint32_t sector) {
  return isAligned(pos.v, blockSize) && isAligned(from.size(), blockSize) &&
         isAligned(reinterpret_cast<uintptr_t>(from.data()), sector);
}

}  // namespace

Status FileData::State::convertDirect(FileMapping& mapping, FileOffset pos, ByteCount length) {
  InodePtr inode = mapping.owner.lock();
  if (!inode) return Status::error(EIO, "an inode went away under a direct write");
  FileOffset end = pos + length;
  while (pos < end) {
    TRY_ASSIGN(auto room, volume.log().reserve(kExtentRoom, Privilege::Freeing));
    MutexLock extents(mapping.extents.mutex());
    Transaction t;
    t.afterData();
    bool changed = false;
    for (size_t n = 0; n < kMaxExtentsPerStep && pos < end; ++n) {
      Extent e = mapping.extents.find(pos);
      FileOffset upTo = std::min(e.end(), end);
      if (e.state == ExtentState::Unwritten) {
        e.address += pos - e.offset;
        e.offset = pos;
        e.length = upTo - pos;
        e.state = ExtentState::Mapped;
        e.stored = true;
        recordDelta(t, mapping.ino, mapping.extents.set(e));
        changed = true;
      }
      pos = upTo;
    }
    InodeUpdate update;
    if (pos.v > mapping.storedSize)
      update.storedSize = std::max<uint64_t>(pos.v, mapping.storedSize);
    if (!changed && !update.storedSize) continue;
    TRY(commitWithInode(*inode, mapping, std::move(t), std::move(room), update));
  }
  return Status::ok();
}

Result<ByteCount> FileData::write(Inode& inode, FileOffset pos, std::span<const std::byte> from,
                                  WriteFlags flags) {
  State& s = *state_;
  if (s.volume.readOnly()) return Status::error(EROFS);
  if (from.empty()) return ByteCount(0);
  TRY_ASSIGN(auto any, mappingOf(inode));
  auto mapping = std::static_pointer_cast<FileMapping>(any);
  s.writeback->throttle(ByteCount(from.size()));
  if (flags.fromKernelCache) {
    if (pos.v + from.size() > mapping->size && mapping->cutTail) {
      SharedLock invalidate(mapping->invalidateLock);
      TRY(s.flushCutTail(*mapping));
    }
    auto done = cacheStore(*mapping, s.io, pos, from, flags.mayExtend);
    // With the kernel's writeback cache the kernel owns the times and sends them itself.
    if (done && !flags.mayExtend) s.touchModified(inode);
    return done;
  }

  ExclusiveLock lock(inode.lock);
  if (flags.append) pos = FileOffset(mapping->size);
  uint64_t limit = kFileEnd.v - 1;
  if (pos.v >= limit) return Status::error(EFBIG);
  from = from.first(std::min<uint64_t>(from.size(), limit - pos.v));
  if (flags.killPrivileges) TRY(s.killPrivileges(inode));
  if (pos.v + from.size() > mapping->size) TRY(s.flushCutTail(*mapping));
  if (pos.v > mapping->size) {
    ExclusiveLock invalidate(mapping->invalidateLock);
    TRY(s.zeroEofTail(*mapping, pos));
  }

  Result<ByteCount> done = ByteCount(0);
  if (flags.direct && aligned(pos, from, s.blockSize, s.volume.device().logicalSector())) {
    DirectHooks hooks;
    hooks.writeback = [&](Mapping&, FileOffset a, FileOffset b) {
      return s.writeback->flush(mapping, a, b);
    };
    hooks.convert = [&](Mapping&, FileOffset a, ByteCount n) {
      return s.convertDirect(*mapping, a, n);
    };
    done = directWrite(*mapping, s.io, hooks, pos, from);
    mapping->writesDone.fetch_add(1);
  } else {
    done = bufferedWrite(*mapping, s.io, pos, from);
    if (flags.direct && done) TRY(s.writeback->flush(mapping, pos, pos + *done));
  }
  if (done) s.touchModified(inode);
  return done;
}

Status FileData::flushRange(Inode& inode, FileOffset from, FileOffset to) {
  auto mapping = inode.mappingIfAny();
  return mapping ? state_->writeback->flush(mapping, from, to) : Status::ok();
}

Status FileData::fsync(Inode& inode, bool dataOnly) {
  State& s = *state_;
  auto mapping = std::static_pointer_cast<FileMapping>(inode.mappingIfAny());
  Status written;
  uint64_t writes = 0;
  if (mapping) {
    written = s.writeback->flush(mapping, FileOffset(0), kFileEnd);
    writes = mapping->writesDone.load();
  }
  if (!dataOnly) TRY(commitAttributes(inode));
  // Without a mapping nobody knows what was written before it was dropped.
  bool newData = !mapping || mapping->writesFlushed.load() < writes;
  if (mutantEnabled("data.fsync_without_flush")) newData = false;
  TRY(s.volume.log().flush(lastChange(inode, s.volume.log()),
                           newData ? FlushScope::LogAndData : FlushScope::Log));
  if (mapping && newData) {
    uint64_t seen = mapping->writesFlushed.load();
    while (seen < writes && !mapping->writesFlushed.compare_exchange_weak(seen, writes)) {
    }
  }
  return written;
}

Result<FileOffset> FileData::seek(Inode& inode, FileOffset pos, bool data) {
  TRY_ASSIGN(auto mapping, mappingOf(inode));
  SharedLock lock(inode.lock);
  return data ? seekData(*mapping, state_->io, pos) : seekHole(*mapping, state_->io, pos);
}

Status FileData::syncAll() {
  State& s = *state_;
  Status first = s.writeback->flushAll();
  for (const InodePtr& inode : s.inodes.all()) {
    Status committed = commitAttributes(*inode);
    if (first.isOk()) first = committed;
  }
  Status flushed =
      s.volume.log().flush(s.volume.log().journal().head().end, FlushScope::LogAndData);
  return first.isOk() ? flushed : first;
}

}  // namespace ourfs
