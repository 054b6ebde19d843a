#include "file_table.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "common/checksum.h"
#include "common/codec.h"
#include "common/sync_point.h"
#include "file_table_slot.h"
#include "unit.h"

namespace ourfs {

namespace {

constexpr uint64_t kFirstSequence = 2;

uint64_t randomId() {
  std::random_device source;
  return uint64_t{source()} << 32 | source();
}

// The room that deltas may use: the last sector is kept for closing the slot.
uint64_t deltaLimit(const IndexGeometry& g) { return g.tableSlotSize.v - kTableSector; }

}  // namespace

DeviceOffset FileTable::slotStart(const IndexGeometry& geometry, uint64_t sequence) {
  return geometry.tableStart + ByteCount(sequence % 2 * geometry.tableSlotSize.v);
}

Result<AlignedBuffer> FileTable::snapshotOf(const IndexGeometry& geometry, const TableState& state,
                                            uint64_t tableId, Chain& chain) {
  const std::string body = state.encode();
  SlotHeader header{};
  const uint64_t size = roundUp(sizeof header + body.size(), kTableSector);
  if (size + kTableSector > deltaLimit(geometry)) {
    return Status::error(ENOSPC, "index file table: too many fragments for its slot");
  }
  header.magic = kSlotMagic;
  header.version = kTableVersion;
  header.blockSize = geometry.blockSize;
  header.sequence = chain.sequence;
  header.tableId = tableId;
  header.bodyLength = body.size();
  header.nextId = state.nextId();
  header.volumeSize = geometry.volumeSize.v;
  AlignedBuffer buffer(size);
  std::memcpy(buffer.data(), &header, sizeof header);
  std::memcpy(buffer.data() + sizeof header, body.data(), body.size());
  header.crc = crc32c(buffer.span().subspan(8, sizeof header - 8 + body.size()));
  std::memcpy(buffer.data(), &header, sizeof header);
  chain.previous = header.crc;
  chain.index = 1;
  chain.offset = size;
  return buffer;
}

AlignedBuffer FileTable::deltaOf(const std::string& ops, uint32_t seed, Chain& chain) {
  DeltaHeader header{};
  header.magic = kDeltaMagic;
  header.previous = chain.previous;
  header.length = static_cast<uint32_t>(ops.size());
  header.sequence = chain.sequence;
  header.index = chain.index;
  AlignedBuffer buffer(roundUp(sizeof header + ops.size(), kTableSector));
  std::memcpy(buffer.data(), &header, sizeof header);
  std::memcpy(buffer.data() + sizeof header, ops.data(), ops.size());
  header.crc = crc32c(buffer.span().subspan(8, sizeof header - 8 + ops.size()), seed);
  std::memcpy(buffer.data(), &header, sizeof header);
  chain.previous = header.crc;
  ++chain.index;
  chain.offset += buffer.size();
  return buffer;
}

Status FileTable::format(BlockDevice& device, const IndexGeometry& geometry,
                         const std::vector<BlockRun>& pool) {
  TRY(checkTableGeometry(device, geometry));
  TableState state(geometry);
  std::string ops;
  for (const BlockRun& run : pool) TRY(state.addPool(ops, run));
  Chain chain;
  chain.sequence = kFirstSequence;
  TRY_ASSIGN(AlignedBuffer snapshot, snapshotOf(geometry, state, randomId(), chain));
  // A snapshot of an earlier volume in the other slot must not outlive this.
  AlignedBuffer zeros(kTableSector);
  TRY(device.write(slotStart(geometry, kFirstSequence + 1), zeros.span(), IoClass::FileTable,
                   true));
  return device.write(slotStart(geometry, kFirstSequence), snapshot.span(), IoClass::FileTable,
                      true);
}

FileTable::FileTable(BlockDevice& device, const IndexGeometry& geometry, uint64_t tableId,
                     TableState state, bool readOnly)
    : device_(device),
      geometry_(geometry),
      tableId_(tableId),
      seed_(seedOf(tableId)),
      readOnly_(readOnly),
      state_(std::move(state)) {}

// ---- changes ----

uint64_t FileTable::newId() {
  MutexLock l(mu_);
  return nextId_++;
}

Status FileTable::record(const std::function<Status(TableState&, std::string&)>& change) {
  std::vector<BlockRun> freed;
  {
    MutexLock l(mu_);
    TRY(change(state_, pending_));
    ++recorded_;
    if (inFlight_ != nullptr) disturb();
    freed = state_.takeDropped();
    if (!freed.empty() && !mutantEnabled("index.reuse_freed_early")) {
      for (const BlockRun& run : freed) droppedBlocks_ += run.count.v;
      dropped_.push_back({recorded_, std::move(freed)});
      freed.clear();
    }
  }
  if (!freed.empty() && release_) release_(freed);
  return Status::ok();
}

Status FileTable::create(uint64_t id, const std::string& name) {
  return record([&](TableState& s, std::string& ops) { return s.create(ops, id, name); });
}
Status FileTable::append(uint64_t id, uint64_t bytes, const std::vector<BlockRun>& runs) {
  return record([&](TableState& s, std::string& ops) { return s.append(ops, id, bytes, runs); });
}
Status FileTable::setInline(uint64_t id, const std::string& name, std::string_view bytes) {
  return record([&](TableState& s, std::string& ops) { return s.setInline(ops, id, name, bytes); });
}
Status FileTable::rename(uint64_t id, const std::string& name) {
  return record([&](TableState& s, std::string& ops) { return s.rename(ops, id, name); });
}
Status FileTable::remove(uint64_t id) {
  return record([&](TableState& s, std::string& ops) { return s.remove(ops, id); });
}

Status FileTable::addPool(const BlockRun& run) {
  return record([&](TableState& s, std::string& ops) {
    // Twice the present size: the new blocks may become as fragmented as the old ones are.
    if (2 * s.encodedBound() + ops.size() > geometry_.tableSlotSize.v) {
      return Status::error(ENOSPC, "index file table: no room for more extents");
    }
    return s.addPool(ops, run);
  });
}

Status FileTable::removePool(const std::vector<BlockRun>& runs) {
  return record([&](TableState& s, std::string& ops) {
    // Each may leave one extent more behind.
    constexpr uint64_t kLongestRun = 20;
    const uint64_t bound = s.encodedBound() + runs.size() * kLongestRun;
    if (2 * (bound + ops.size()) > geometry_.tableSlotSize.v) {
      return Status::error(ENOSPC, "index file table: no room for more extents");
    }
    for (const BlockRun& run : runs) TRY(s.removePool(ops, run));
    return Status::ok();
  });
}

// ---- writing ----

Result<FileTable::Write> FileTable::capture() {
  Write w;
  w.upTo = recorded_;
  const DeviceOffset slot = slotStart(geometry_, chain_.sequence);
  const uint64_t size = roundUp(sizeof(DeltaHeader) + pending_.size(), kTableSector);
  if (chain_.offset + size <= deltaLimit(geometry_)) {
    w.at = slot + ByteCount(chain_.offset);
    w.buffer = deltaOf(pending_, seed_, chain_);
  } else {
    std::string closing;
    TableState::close(closing, chain_.sequence + 1);
    Chain old = chain_;
    w.closeAt = slot + ByteCount(old.offset);
    w.closeBuffer = deltaOf(closing, seed_, old);
    ++chain_.sequence;
    w.at = slotStart(geometry_, chain_.sequence);
    state_.setNextId(nextId_);
    TRY_ASSIGN(w.buffer, snapshotOf(geometry_, state_, tableId_, chain_));
  }
  pending_.clear();
  return w;
}

void FileTable::disturb() {
  std::span<std::byte> bytes = inFlight_->span();
  if (mutantEnabled("filetable.grow_in_place")) std::ranges::fill(bytes, kFreedByMutant);
  if (mutantEnabled("filetable.shared_buffer")) {  // the checksum comes last
    bytes = bytes.subspan(sizeof(DeltaHeader));
    std::ranges::copy(asBytes(pending_).first(std::min(pending_.size(), bytes.size())),
                      bytes.begin());
  }
}

Status FileTable::write(Write& w) {
  TRY(device_.flush(IoClass::FileTable));
  TRY(device_.write(w.at, w.buffer.span(), IoClass::FileTable, true));
  if (!w.closeAt) return Status::ok();
  return device_.write(*w.closeAt, w.closeBuffer.span(), IoClass::FileTable, true);
}

// What the result of a write means; returns the blocks that are free because of it.
std::vector<BlockRun> FileTable::settle(const Status& status, uint64_t upTo) {
  std::vector<BlockRun> freed;
  if (!status) {
    if (failure_) failure_ = status.withContext("index file table");
    return freed;
  }
  durable_ = upTo;
  ++writes_;
  auto it = dropped_.begin();
  for (; it != dropped_.end() && it->change <= upTo; ++it) {
    freed.insert(freed.end(), it->runs.begin(), it->runs.end());
  }
  dropped_.erase(dropped_.begin(), it);
  for (const BlockRun& run : freed) droppedBlocks_ -= run.count.v;
  return freed;
}

Status FileTable::sync() {
  std::vector<BlockRun> freed;
  Status status;
  {
    MutexLock l(mu_);
    const uint64_t target = recorded_;
    if (readOnly_) {
      pending_.clear();
      (void)settle(Status::ok(), target);
      return Status::ok();
    }
    while (writing_ && durable_ < target) written_.wait(mu_);
    if (!failure_) return failure_;
    if (durable_ >= target) return Status::ok();
    writing_ = true;
    Result<Write> captured = capture();
    status = captured.status();
    uint64_t upTo = 0;
    if (status) {
      upTo = captured->upTo;
      inFlight_ = &captured->buffer;
      l.unlock();
      SYNC_POINT("filetable.captured");
      status = write(*captured);
      l.lock();
      inFlight_ = nullptr;
    }
    writing_ = false;
    freed = settle(status, upTo);
    written_.notifyAll();
  }
  if (!freed.empty() && release_) release_(freed);
  return status;
}

// ---- looking ----

std::vector<TableFile> FileTable::files() const {
  MutexLock l(mu_);
  std::vector<TableFile> files;
  for (const auto& [id, file] : state_.files()) files.push_back(file);
  return files;
}

std::vector<BlockRun> FileTable::pool() const {
  MutexLock l(mu_);
  return state_.pool();
}

std::vector<BlockRun> FileTable::usedRuns() const {
  MutexLock l(mu_);
  return state_.usedRuns();
}

BlockCount FileTable::droppedBlocks() const {
  MutexLock l(mu_);
  return BlockCount(droppedBlocks_);
}

uint64_t FileTable::writes() const {
  MutexLock l(mu_);
  return writes_;
}

}  // namespace ourfs
