// FileData as the provider of maps (IomapOps) and as what writeback asks (WritebackOps).
#include <sys/stat.h>

#include "common/sync_point.h"
#include "data/file_data_state.h"

namespace ourfs {

namespace {

Iomap mapOf(const Extent& e, uint64_t cookie) {
  Iomap map;
  map.offset = e.offset;
  map.length = e.length;
  map.address = e.address;
  map.cookie = cookie;
  switch (e.state) {
    case ExtentState::Hole:
      map.type = IomapType::Hole;
      break;
    case ExtentState::Delalloc:
      map.type = IomapType::Delalloc;
      break;
    case ExtentState::Mapped:
      map.type = IomapType::Mapped;
      break;
    case ExtentState::Unwritten:
      map.type = IomapType::Unwritten;
      break;
  }
  return map;
}

// The part of `e` inside [from, to).
Extent clip(Extent e, FileOffset from, FileOffset to) {
  FileOffset end = std::min(e.end(), to);
  if (e.offset < from) {
    if (e.state == ExtentState::Mapped || e.state == ExtentState::Unwritten)
      e.address += from - e.offset;
    e.offset = from;
  }
  e.length = end - e.offset;
  return e;
}

// Space that one step of a buffered write promises at most: bounds the excess that is given back.
constexpr ByteCount kReserveStep{4 * MiB};

}  // namespace

Result<Iomap> FileData::begin(Mapping& mapping, FileOffset pos, ByteCount length,
                              IomapIntent intent) {
  State& s = *state_;
  FileOffset from = s.blockDown(pos);
  FileOffset to = s.blockUp(pos + std::min(length, kReserveStep));
  {
    MutexLock extents(mapping.extents.mutex());
    Extent e = mapping.extents.find(from);
    bool allocate = (intent == IomapIntent::Write && e.state == ExtentState::Hole) ||
                    (intent == IomapIntent::DirectWrite &&
                     (e.state == ExtentState::Hole || e.state == ExtentState::Delalloc));
    if (!allocate) return mapOf(e, mapping.extents.sequence());
    to = std::min(to, e.end());
  }

  // The promise comes first, without the extent lock: it may have to wait for busy blocks.
  TRY(s.admitGrowth());
  BlockCount promised = s.blocksOf(to - from);
  Status full = s.volume.space().reserve(promised);
  while (!full.isOk() && promised.v > 1) {
    promised.v /= 2;
    full = s.volume.space().reserve(promised);
  }
  TRY(full);
  to = from + ByteCount(promised.v * s.blockSize);

  MutexLock extents(mapping.extents.mutex());
  Extent e = mapping.extents.find(from);
  if (intent == IomapIntent::Write) {
    if (e.state != ExtentState::Hole) {
      s.volume.space().unreserve(promised);
      return mapOf(e, mapping.extents.sequence());
    }
    Extent fresh = clip(e, from, to);
    fresh.state = ExtentState::Delalloc;
    s.volume.space().unreserve(promised - s.blocksOf(fresh.length));
    (void)mapping.extents.set(fresh);
    Iomap map = mapOf(fresh, mapping.extents.sequence());
    map.flags |= kIomapNew;
    return map;
  }

  // DirectWrite: real space now. What was Delalloc brings its own promise.
  if (e.state != ExtentState::Hole && e.state != ExtentState::Delalloc) {
    s.volume.space().unreserve(promised);
    return mapOf(e, mapping.extents.sequence());
  }
  if (e.state == ExtentState::Delalloc) s.volume.space().unreserve(promised);
  Extent fresh = clip(e, from, to);
  uint64_t hint = 0;
  if (from.v > 0) {
    Extent before = mapping.extents.find(from - ByteCount(s.blockSize));
    if (before.state == ExtentState::Mapped || before.state == ExtentState::Unwritten)
      hint = s.blockOf((before.address + before.length).v);
  }
  auto run = s.volume.space().allocate(s.blocksOf(fresh.length), BlockNo(hint), true);
  if (!run) {
    if (e.state == ExtentState::Hole) s.volume.space().unreserve(promised);
    return run.status();
  }
  fresh.length = ByteCount(run->count.v * s.blockSize);
  fresh.address = DeviceOffset(run->start.v * s.blockSize);
  fresh.state = ExtentState::Unwritten;
  if (e.state == ExtentState::Hole) s.volume.space().unreserve(promised - run->count);
  (void)mapping.extents.set(fresh);
  Iomap map = mapOf(fresh, mapping.extents.sequence());
  map.flags |= kIomapNew;
  return map;
}

Status FileData::end(Mapping& mapping, const Iomap& map, FileOffset pos, ByteCount done,
                     IomapIntent intent) {
  if (intent != IomapIntent::DirectWrite || !(map.flags & kIomapNew)) return Status::ok();
  // Space that a direct write allocated and did not fill, or did not get to convert, goes back.
  State& s = *state_;
  FileOffset unfilled = s.blockUp(std::max(pos, map.offset) + done);
  s.freeUnstored(mapping, unfilled, map.end());
  return Status::ok();
}

void FileData::punchDelalloc(Mapping& mapping, FileOffset from, FileOffset to) {
  State& s = *state_;
  MutexLock extents(mapping.extents.mutex());
  std::vector<Extent> promised;
  mapping.extents.forEach(from, to, [&](const Extent& e) {
    if (e.state == ExtentState::Delalloc) promised.push_back(clip(e, from, to));
    return true;
  });
  for (Extent e : promised) {
    s.volume.space().unreserve(s.blocksOf(e.length));
    e.state = ExtentState::Hole;
    (void)mapping.extents.set(e);
  }
}

Result<Iomap> FileData::mapForWriteback(Mapping& mapping, FileOffset pos, ByteCount length) {
  State& s = *state_;
  FileOffset from = s.blockDown(pos);
  FileOffset to = s.blockUp(pos + length);
  MutexLock extents(mapping.extents.mutex());
  Extent e = mapping.extents.find(from);
  if (e.state != ExtentState::Delalloc) return mapOf(e, mapping.extents.sequence());

  uint64_t hint = 0;
  if (from.v > 0) {
    Extent before = mapping.extents.find(from - ByteCount(s.blockSize));
    if (before.state == ExtentState::Mapped || before.state == ExtentState::Unwritten)
      hint = s.blockOf((before.address + before.length).v);
  }
  Extent fresh = clip(e, from, to);
  TRY_ASSIGN(BlockRun run,
             s.volume.space().allocate(s.blocksOf(fresh.length), BlockNo(hint), true));
  fresh.length = ByteCount(run.count.v * s.blockSize);
  fresh.address = DeviceOffset(run.start.v * s.blockSize);
  fresh.state = ExtentState::Unwritten;
  fresh.stored = false;
  (void)mapping.extents.set(fresh);
  return mapOf(fresh, mapping.extents.sequence());
}

Result<std::shared_ptr<void>> FileData::prepare() {
  // Admitted at write(): an ioend may use the further reserve, so that it never meets ENOSPC.
  TRY_ASSIGN(auto room, state_->volume.log().reserve(kExtentRoom, Privilege::Freeing));
  return std::shared_ptr<void>(std::make_shared<TransactionLog::Room>(std::move(room)));
}

void FileData::written(Mapping& mapping) {
  static_cast<FileMapping&>(mapping).writesDone.fetch_add(1);
}

Status FileData::finish(Ioend& ioend) {
  State& s = *state_;
  auto& mapping = static_cast<FileMapping&>(*ioend.mapping);
  if (!ioend.needsCommit()) return Status::ok();
  InodePtr inode = mapping.owner.lock();
  if (!inode) return Status::error(EIO, "an inode went away under its writeback");
  if (!ioend.reservation) {
    TRY_ASSIGN(ioend.reservation, prepare());
  }

  MutexLock extents(mapping.extents.mutex());
  std::vector<Extent> convert;
  mapping.extents.forEach(ioend.offset, ioend.offset + ioend.length, [&](const Extent& e) {
    Extent part = clip(e, ioend.offset, ioend.offset + ioend.length);
    bool same = part.address == ioend.address + (part.offset - ioend.offset);
    if (part.state == ExtentState::Unwritten && same) convert.push_back(part);
    return true;
  });
  Transaction t;
  t.afterData();
  // One change for the whole range where it is one piece, as it nearly always is.
  for (size_t i = 0; i < convert.size();) {
    Extent whole = convert[i++];
    while (i < convert.size() && convert[i].offset == whole.end() &&
           convert[i].address == whole.address + whole.length)
      whole.length += convert[i++].length;
    whole.state = ExtentState::Mapped;
    whole.stored = true;
    s.recordDelta(t, inode->ino, mapping.extents.set(whole));
  }
  State::InodeUpdate update;
  uint64_t reached = std::min(ioend.sizeAtSubmit.v, (ioend.offset + ioend.length).v);
  if (reached > mapping.storedSize) update.storedSize = reached;
  if (convert.empty() && !update.storedSize) return Status::ok();
  auto room = std::static_pointer_cast<TransactionLog::Room>(ioend.reservation);
  return s.commitWithInode(*inode, mapping, std::move(t), std::move(*room), update);
}

void FileData::abort(Ioend& ioend) {
  state_->freeUnstored(*ioend.mapping, ioend.offset, ioend.offset + ioend.length);
}

void FileData::State::freeUnstored(Mapping& mapping, FileOffset from, FileOffset to) {
  MutexLock extents(mapping.extents.mutex());
  std::vector<Extent> unstored;
  mapping.extents.forEach(from, to, [&](const Extent& e) {
    if (e.state == ExtentState::Unwritten && !e.stored) unstored.push_back(clip(e, from, to));
    return true;
  });
  for (Extent e : unstored) {
    volume.space().freeUnstored(runOf(e));
    e.state = ExtentState::Hole;
    (void)mapping.extents.set(e);
  }
}

}  // namespace ourfs
