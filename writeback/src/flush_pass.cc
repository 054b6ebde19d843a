#include "flush_pass.h"

#include <algorithm>
#include <cstring>

#include "common/sync_point.h"

namespace ourfs {

namespace {
constexpr uint64_t kLookAhead = 64 * MiB;  // the longest piece that is allocated at once
}  // namespace

FlushPass::FlushPass(const FlushContext& context, std::shared_ptr<DirtyFile> file,
                     std::shared_ptr<FlushWindow> window, const FlushGoal& goal)
    : context_(context),
      file_(std::move(file)),
      mapping_(*file_->mapping),
      window_(std::move(window)),
      goal_(goal),
      endIndex_(roundUp(goal.to.v, mapping_.pages.folioSize()) / mapping_.pages.folioSize()),
      index_(goal.from.v / mapping_.pages.folioSize()) {}

void FlushPass::run() {
  while (const auto next = mapping_.pages.nextDirty(index_, endIndex_)) {
    index_ = *next;
    if (started_ >= goal_.budget) {
      more_ = true;
      break;
    }
    const Outcome outcome = visit();
    submitReady();
    if (outcome == Outcome::Done) ++index_;
    if (outcome == Outcome::Reserve) reserve();
  }
  close();
  submitReady();
}

FlushPass::Outcome FlushPass::visit() {
  LockedFolio folio = mapping_.pages.lock(index_);
  if (!folio) return Outcome::Done;
  if (folio->inWriteback()) {
    if (!goal_.sync) return Outcome::Done;
    folio.unlock();
    close();
    submitReady();
    folio = mapping_.pages.lock(index_);
    if (!folio || !mapping_.pages.waitWriteback(folio)) return Outcome::Again;
  }
  return folio->anyDirty() ? writeFolio(folio) : Outcome::Done;
}

FlushPass::Outcome FlushPass::writeFolio(LockedFolio& folio) {
  const FileOffset base = folio->offset(), size(mapping_.size.load());
  if (size <= base) {  // truncated, and about to be dropped
    mapping_.pages.clearDirty(folio, 0, folio->blocks());
    return Outcome::Done;
  }
  const uint64_t live = std::min<uint64_t>((size - base).v, folio->size());
  if (live < folio->size() && !mutantEnabled("writeback.no_eof_zero"))
    std::memset(folio->data() + live, 0, folio->size() - live);
  const auto liveBlocks =
      static_cast<uint32_t>(roundUp(live, folio->blockSize()) / folio->blockSize());
  mapping_.pages.clearDirty(folio, liveBlocks, folio->blocks());

  planRuns(folio, liveBlocks, size);
  if (runs_.empty()) return Outcome::Done;
  const size_t count = affordable(base, folio->blockSize());
  if (count == 0) return Outcome::Reserve;
  startFolio(folio, count, size);
  return count == runs_.size() || !goal_.sync ? Outcome::Done : Outcome::Again;
}

void FlushPass::planRuns(LockedFolio& folio, uint32_t liveBlocks, FileOffset size) {
  const uint32_t blockSize = folio->blockSize();
  const bool all = mutantEnabled("writeback.whole_folio");
  runs_.clear();
  for (uint32_t from = 0; from < liveBlocks;) {
    if (!all && !folio->dirty(from)) {
      ++from;
      continue;
    }
    uint32_t to = from + 1;
    while (to < liveBlocks && (all || folio->dirty(to))) ++to;
    const FileOffset pos = folio->offset() + ByteCount(uint64_t{from} * blockSize);
    Run run;
    run.from = from;
    run.to = to;
    run.type = IomapType::Delalloc;  // if there is no map
    run.status = mapAt(pos);
    if (run.status.isOk()) {
      run.to = from + static_cast<uint32_t>(
                          std::min<uint64_t>(to - from, (map_.end() - pos).v / blockSize));
      run.type = map_.type;
      run.address = map_.addressOf(pos);
      run.boundary = (map_.flags & kIomapBoundary) != 0 && pos == map_.offset;
      const FileOffset end = folio->offset() + ByteCount(uint64_t{run.to} * blockSize);
      run.commit =
          run.type == IomapType::Unwritten || std::min(end, size).v > mapping_.storedSize.load();
    }
    from = run.to;
    if (run.status.isOk() && run.type == IomapType::Hole)  // truncated here
      mapping_.pages.clearDirty(folio, run.from, run.to);
    else
      runs_.push_back(run);
  }
}

Status FlushPass::mapAt(FileOffset pos) {
  SYNC_POINT_TRY("writeback.before_map");
  if (map_.offset <= pos && pos < map_.end()) {
    if (map_.cookie == mapping_.extents.sequence()) return Status::ok();
    if (mutantEnabled("writeback.skip_map_check")) return Status::ok();
    ++mapping_.counters.staleWriteback;
  }
  map_ = {};
  TRY_ASSIGN(Iomap map, context_.ops.mapForWriteback(mapping_, pos, dirtyRunAt(pos)));
  const bool covers = map.offset <= pos && pos < map.end() &&
                      isAligned((map.end() - pos).v, mapping_.pages.blockSize());
  const bool usable = map.type == IomapType::Mapped || map.type == IomapType::Unwritten ||
                      map.type == IomapType::Hole;
  if (!covers || !usable) {
    return Status::corrupt("inode " + std::to_string(mapping_.ino.v) + ": no place to write " +
                           std::to_string(pos.v));
  }
  map_ = map;
  SYNC_POINT_TRY("writeback.after_map");
  return Status::ok();
}

ByteCount FlushPass::dirtyRunAt(FileOffset pos) {
  if (pos < runEnd_) return runEnd_ - pos;
  const uint64_t folioSize = mapping_.pages.folioSize();
  uint64_t end = pos.v / folioSize + 1;
  const uint64_t most = end + kLookAhead / folioSize;
  while (end < most && mapping_.pages.nextDirty(end, end + 1)) ++end;
  runEnd_ = FileOffset(end * folioSize);
  return runEnd_ - pos;
}

size_t FlushPass::affordable(FileOffset base, uint32_t blockSize) const {
  // Each new I/O that commits needs a reservation, and there is one at most: to wait for a second
  // one while holding the first could be a circle of flushes in a small journal.
  bool reserved = reservation_ != nullptr || !reserveFailed_.isOk();
  const Run* before = nullptr;
  for (size_t i = 0; i < runs_.size(); ++i) {
    const Run& run = runs_[i];
    const FileOffset pos = base + ByteCount(uint64_t{run.from} * blockSize);
    const ByteCount length(uint64_t{run.to - run.from} * blockSize);
    const bool fresh = before != nullptr || !open_ || !joins(*open_, run, pos, length);
    if (fresh && run.commit && run.status.isOk()) {
      if (!reserved) return i;
      reserved = !reserveFailed_.isOk();
    }
    before = fresh ? &run : before;
  }
  return runs_.size();
}

void FlushPass::startFolio(LockedFolio& folio, size_t runs, FileOffset size) {
  const FileOffset base = folio->offset();
  auto share = folio->blocks() > 1 ? std::make_shared<FolioShare>() : nullptr;
  bool started = false;
  for (size_t i = 0; i < runs; ++i) {
    const Run& run = runs_[i];
    const FileOffset pos = base + ByteCount(uint64_t{run.from} * folio->blockSize());
    const ByteCount length(uint64_t{run.to - run.from} * folio->blockSize());
    if (!open_ || !joins(*open_, run, pos, length)) open(run, pos, size);
    // Not before the ticket of its first I/O was taken (Flights).
    if (!started) mapping_.pages.startWriteback(folio, run.from, runs_[runs - 1].to);
    started = true;
    append(folio, run, size, share);
    started_ += length;
  }
  if (!share || share->left.fetch_sub(1) != 1) return;
  // All of its I/Os ended while the last one was being put together.
  const std::shared_ptr<Folio> ended = folio.share();
  folio.unlock();
  endFolio(mapping_, ended, share->failed);
}

bool FlushPass::joins(const WriteIo& io, const Run& run, FileOffset pos, ByteCount length) const {
  const Ioend& ioend = io.ioend;
  if (run.boundary) return false;
  if (!run.status.isOk() || !ioend.status.isOk()) return false;
  if (run.type != ioend.type) return false;
  if (run.commit && !ioend.reservation) return false;
  if (ioend.offset + ioend.length != pos) return false;
  if (ioend.address + ioend.length != run.address) return false;
  return ioend.length + length <= context_.ioSize;
}

void FlushPass::open(const Run& run, FileOffset pos, FileOffset size) {
  close();
  open_ = std::make_shared<WriteIo>();
  open_->window = window_;
  open_->file = file_;
  open_->boundary = run.boundary;
  Ioend& ioend = open_->ioend;
  ioend.mapping = file_->mapping;
  ioend.offset = pos;
  ioend.address = run.address;
  ioend.type = run.type;
  ioend.sizeAtSubmit = size;
  ioend.status = run.status;
  if (run.commit && run.status.isOk()) {
    ioend.reservation = std::move(reservation_);
    if (!ioend.reservation) ioend.status = reserveFailed_;
  }
  const ByteCount reach = std::max(context_.ioSize, ByteCount(mapping_.pages.folioSize()));
  open_->ticket = file_->flights.begin(pos, pos + reach);
  context_.ioends.announce();
}

void FlushPass::append(const LockedFolio& folio, const Run& run, FileOffset size,
                       const std::shared_ptr<FolioShare>& share) {
  const uint32_t blockSize = folio->blockSize();
  const size_t length = size_t{run.to - run.from} * blockSize;
  Ioend& ioend = open_->ioend;
  ioend.length += ByteCount(length);
  ioend.sizeAtSubmit = size;
  open_->pieces.push_back({folio->data() + size_t{run.from} * blockSize, length});
  if (!ioend.folios.empty() && ioend.folios.back().get() == &*folio) return;
  ioend.folios.push_back(folio.share());
  if (!share) return;
  ++share->left;
  open_->shares.emplace_back(&*folio, share);
}

void FlushPass::close() {
  if (open_) ready_.push_back(std::move(open_));
  open_.reset();
}

void FlushPass::submitReady() {
  for (const auto& io : ready_) submit(io);
  ready_.clear();
}

void FlushPass::submit(const std::shared_ptr<WriteIo>& io) {
  window_->enter(context_.maxInFlight);
  if (!io->ioend.status.isOk()) {
    context_.ioends.push(io);
    return;
  }
  if (io->ioend.reservation && mutantEnabled("writeback.publish_mapped_early")) {
    io->ioend.status = context_.ops.finish(io->ioend);
    io->ioend.reservation.reset();
  }
  IoRequest request;
  request.op = IoOp::Write;
  request.cls = IoClass::Data;
  request.offset = io->ioend.address;
  request.length = io->ioend.length;
  request.pieces = std::move(io->pieces);
  request.done = [io, &ioends = context_.ioends](Status status) {
    if (io->ioend.status.isOk()) io->ioend.status = std::move(status);
    ioends.push(io);
  };
  context_.device.submit(std::move(request));
  SYNC_POINT("writeback.after_submit");
}

void FlushPass::reserve() {
  if (!mutantEnabled("writeback.reserve_before_submit")) {
    close();
    submitReady();
  }
  Result<std::shared_ptr<void>> reserved = context_.ops.prepare();
  if (reserved)
    reservation_ = std::move(reserved).value();
  else
    reserveFailed_ = reserved.status();
}

}  // namespace ourfs
