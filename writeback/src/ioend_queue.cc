#include "ioend_queue.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/sync_point.h"

namespace ourfs {

namespace {

FileOffset endOf(const Ioend& ioend) { return ioend.offset + ioend.length; }

// One rule each; the I/Os come sorted by file and offset.
bool continues(const WriteIo& a, const WriteIo& b) {
  if (a.ioend.mapping != b.ioend.mapping) return false;
  if (b.boundary) return false;
  if (!a.ioend.status.isOk() || !b.ioend.status.isOk()) return false;
  if (a.ioend.type != b.ioend.type) return false;
  if ((a.ioend.reservation == nullptr) != (b.ioend.reservation == nullptr)) return false;
  if (endOf(a.ioend) != b.ioend.offset) return false;
  return a.ioend.address + a.ioend.length == b.ioend.address;
}

std::shared_ptr<FolioShare> shareOf(const WriteIo& io, const Folio* folio) {
  for (const auto& [shared, share] : io.shares)
    if (shared == folio) return share;
  return nullptr;
}

}  // namespace

bool Ioend::needsCommit() const {
  if (type == IomapType::Unwritten) return true;
  return std::min((offset + length).v, sizeAtSubmit.v) > mapping->storedSize.load();
}

void endFolio(Mapping& mapping, const std::shared_ptr<Folio>& folio, bool failed) {
  mapping.pages.endWriteback(*folio);
  if (!failed) return;
  LockedFolio locked = mapping.pages.lock(folio->index());
  if (!locked || locked.share() != folio) return;
  mapping.pages.evict(std::move(locked));  // one that was written again meanwhile stays
}

IoendQueue::IoendQueue(WritebackOps& ops, Done done) : ops_(ops), done_(std::move(done)) {
  thread_ = Thread([this] { run(); });
}

IoendQueue::~IoendQueue() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notifyAll();
  }
  thread_.join();
}

void IoendQueue::push(std::shared_ptr<WriteIo> io) {
  MutexLock lock(mutex_);
  queue_.push_back(std::move(io));
  changed_.notifyAll();
}

void IoendQueue::run() {
  for (;;) {
    Ios ios;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !(stopping_ && idle())) changed_.wait(mutex_);
      if (queue_.empty()) return;
      ios.swap(queue_);
    }
    endAll(std::move(ios));
  }
}

void IoendQueue::endAll(Ios ios) {
  std::vector<WriteIo*> sorted;
  for (const auto& io : ios) sorted.push_back(io.get());
  std::stable_sort(sorted.begin(), sorted.end(), [](const WriteIo* a, const WriteIo* b) {
    if (a->file != b->file) return std::less<>()(a->file, b->file);
    return a->ioend.offset < b->ioend.offset;
  });
  WriteIo* const* const all = sorted.data();
  for (size_t first = 0; first < sorted.size();) {
    size_t last = first + 1;
    while (last < sorted.size() && continues(*sorted[last - 1], *sorted[last])) ++last;
    endGroup(all + first, all + last);
    first = last;
  }
}

void IoendQueue::endGroup(WriteIo* const* first, WriteIo* const* last) {
  const bool endEarly = mutantEnabled("writeback.end_before_convert");
  const auto endFolios = [&] {
    for (auto io = first; io != last; ++io) {
      SYNC_POINT("ioend.before_end_writeback");
      for (const auto& folio : (*io)->ioend.folios) {
        const auto share = shareOf(**io, folio.get());
        const bool failed = !(*io)->ioend.status.isOk();
        if (share && failed) share->failed = true;
        if (share && share->left.fetch_sub(1) != 1) continue;
        endFolio(*(*io)->ioend.mapping, folio, failed || (share && share->failed));
      }
    }
  };
  if (endEarly) endFolios();
  ops_.written(*(*first)->ioend.mapping);
  const Status status = finish(first, last);
  for (auto io = first; io != last; ++io) {
    if ((*io)->ioend.status.isOk()) (*io)->ioend.status = status;
    if (!(*io)->ioend.status.isOk()) fail(**io);
  }
  if (!endEarly) endFolios();
  for (auto io = first; io != last; ++io) end(**io);
}

Status IoendQueue::finish(WriteIo* const* first, WriteIo* const* last) {
  // What needed no transaction when it was submitted needs none now: the stored size only went down
  // since then if the file was truncated, and truncate tells the size itself.
  if (!(*first)->ioend.status.isOk() || !(*first)->ioend.reservation) return Status::ok();
  Ioend whole = (*first)->ioend;
  whole.sizeAtSubmit = FileOffset(0);
  for (auto io = first; io != last; ++io) {
    const Ioend& part = (*io)->ioend;
    whole.length = endOf(part) - whole.offset;
    whole.sizeAtSubmit = std::max(whole.sizeAtSubmit, std::min(endOf(part), part.sizeAtSubmit));
    if (io != first)
      whole.folios.insert(whole.folios.end(), part.folios.begin(), part.folios.end());
  }
  // The file may have become shorter, then what it was longer is nobody's data.
  const FileOffset size(whole.mapping->size.load());
  whole.sizeAtSubmit = std::min(whole.sizeAtSubmit, size);
  if (mutantEnabled("writeback.size_unclamped")) whole.sizeAtSubmit = size;
  if (!whole.needsCommit()) return Status::ok();
  SYNC_POINT_TRY("ioend.before_convert");
  if (whole.sizeAtSubmit.v > whole.mapping->storedSize.load()) SYNC_POINT_TRY("ioend.before_size");
  TRY(ops_.finish(whole));
  SYNC_POINT("ioend.after_convert");
  return Status::ok();
}

void IoendQueue::fail(WriteIo& io) {
  Mapping& mapping = *io.ioend.mapping;
  ++mapping.counters.writebackErrors;
  mapping.recordError(io.ioend.status.errnum());
  if (!io.file->errorLogged.exchange(true)) {
    spdlog::error("inode {}: writing {} bytes at {} failed, their data is lost: {}", mapping.ino.v,
                  io.ioend.length.v, io.ioend.offset.v, io.ioend.status.message());
  }
  for (const auto& folio : io.ioend.folios) giveBack(io, *folio);
}

void IoendQueue::giveBack(WriteIo& io, const Folio& folio) {
  // Under the folio lock: a block that a writer made dirty again keeps its space, and a writer that
  // comes later finds its map stale.
  Mapping& mapping = *io.ioend.mapping;
  const bool keepDirty = mutantEnabled("writeback.failed_keeps_dirty");
  const ByteCount block(folio.blockSize());
  LockedFolio locked = mapping.pages.lock(folio.index());
  if (!locked) return;  // only without its rule: a folio in writeback stays
  const FileOffset from = std::max(io.ioend.offset, folio.offset());
  const FileOffset to = std::min(endOf(io.ioend), folio.offset() + ByteCount(folio.size()));
  for (FileOffset pos = from; pos < to; pos += block) {
    const auto number = static_cast<uint32_t>((pos - folio.offset()).v / block.v);
    if (folio.dirty(number)) continue;
    Ioend part = io.ioend;
    part.offset = pos;
    part.length = block;
    part.address = io.ioend.address + (pos - io.ioend.offset);
    ops_.abort(part);
    locked->clearUptodate(number);
    if (!keepDirty) continue;
    locked->setUptodate(number);
    mapping.pages.markDirty(locked, number * folio.blockSize(), (number + 1) * folio.blockSize());
  }
}

void IoendQueue::end(WriteIo& io) {
  // Whoever waits may destroy the file, the pool or the journal as soon as it is told.
  const Status status = io.ioend.status;
  const uint64_t bytes = io.ioend.length.v;
  Mapping& mapping = *io.ioend.mapping;
  ++mapping.counters.ioends;
  if (status.isOk()) mapping.counters.writtenBytes += bytes;
  io.ioend.folios.clear();
  io.ioend.reservation.reset();
  io.ioend.mapping.reset();
  done_(bytes);
  io.file->flights.end(io.ticket);
  io.window->leave(status);
  outstanding_.fetch_sub(1);
}

}  // namespace ourfs
