#include "rocks_index.h"

#include <rocksdb/write_batch.h>

#include "position.h"
#include "status_map.h"
#include "tuning.h"

namespace ourfs {

namespace {

constexpr std::chrono::milliseconds kFlushWait{1000};     // between two looks at the failure
constexpr std::chrono::milliseconds kCompactionWait{50};  // patience of one reservation
constexpr size_t kChangeOverhead = 12;                    // bytes of a WriteBatch per change

rocksdb::Slice slice(std::string_view s) { return {s.data(), s.size()}; }
std::string_view view(const rocksdb::Slice& s) { return {s.data(), s.size()}; }

void count(std::atomic<uint64_t>& counter, uint64_t n = 1) {
  counter.fetch_add(n, std::memory_order_relaxed);
}

Status closedError() { return Status::error(ESHUTDOWN, "index: it is closed"); }

}  // namespace

// ---- room ----

bool RocksIndex::memtableRoom() const {
  // One memtable is always being written; kMemtables - 1 may wait.
  return backlog_.memtables() + 1 < kMemtables &&
         (!background_ || backlog_.level0() < kLevel0Patience);
}

bool RocksIndex::flushFits() const {
  return options_.readOnly || !background_ || obtainableFree() >= flushReserve(options_.geometry);
}

Status RocksIndex::awaitMemtableRoom() {
  if (!memtableRoom()) {
    while (!failed_ && backlog_.memtables() + 1 >= kMemtables) {
      backlog_.await([this] { return !failed_ && backlog_.memtables() + 1 >= kMemtables; },
                     kFlushWait);
    }
    // Compaction may have to wait for space that only the caller's transaction gives back.
    backlog_.await([this] { return !failed_ && !memtableRoom(); }, kCompactionWait);
  }
  if (failed_) return failure();
  if (!flushFits()) return Status::error(ENOSPC, "index: its pool could not hold a flush");
  return Status::ok();
}

// ---- writing ----

Status RocksIndex::apply(const IndexBatch& batch, const AppliedPosition& position) {
  if (failed_) return failure();
  if (db_ == nullptr) return closedError();
  rocksdb::WriteBatch write(batch.encodedSize() + kChangeOverhead * (batch.changes().size() + 4));
  for (const IndexBatch::Change& change : batch.changes()) {
    if (change.key == kLogPositionKey) return Status::error(EINVAL, "index: a reserved key");
    const rocksdb::Status added =
        change.isPut ? write.Put(change.key, change.value) : write.Delete(change.key);
    if (!added.ok()) return fromRocks(added);
  }
  rocksdb::Status status = write.Put(slice(kLogPositionKey), encodePosition(position));
  if (!status.ok()) return fromRocks(status);
  rocksdb::WriteOptions how;
  how.disableWAL = true;
  how.no_slowdown = true;
  status = db_->Write(how, &write);
  if (!status.ok()) {
    fail(fromRocks(status));
    return failure();
  }
  count(batches_);
  count(changes_, batch.changes().size());
  MutexLock l(mu_);
  applied_ = position;
  return Status::ok();
}

// ---- reading ----

Result<std::optional<std::string>> RocksIndex::get(std::string_view key) {
  if (db_ == nullptr) return closedError();
  count(gets_);
  rocksdb::PinnableSlice value;
  const rocksdb::Status status =
      db_->Get(rocksdb::ReadOptions(), db_->DefaultColumnFamily(), slice(key), &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  if (!status.ok()) return fromRocks(status);
  return std::optional<std::string>(value.ToString());
}

Status RocksIndex::scan(std::string_view from, std::string_view end,
                        const std::function<bool(std::string_view, std::string_view)>& each) {
  if (db_ == nullptr) return closedError();
  count(scans_);
  if (!end.empty() && from >= end) return Status::ok();
  const rocksdb::Slice lower = slice(from), upper = slice(end);
  rocksdb::ReadOptions how;
  how.iterate_lower_bound = &lower;
  if (!end.empty()) how.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(how));
  for (it->Seek(lower); it->Valid(); it->Next()) {
    if (!each(view(it->key()), view(it->value()))) return Status::ok();
  }
  return fromRocks(it->status());
}

AppliedPosition RocksIndex::applied() const {
  MutexLock l(mu_);
  return applied_;
}

Result<AppliedPosition> RocksIndex::readPosition(rocksdb::DB& db, rocksdb::ReadTier tier) {
  rocksdb::ReadOptions how;
  how.read_tier = tier;
  std::string value;
  const rocksdb::Status status = db.Get(how, slice(kLogPositionKey), &value);
  if (status.IsNotFound()) return AppliedPosition{};
  if (!status.ok()) return fromRocks(status);
  return decodePosition(value);
}

Result<AppliedPosition> RocksIndex::persisted() {
  if (options_.readOnly) return openedAt_;  // what this mount flushes is in memory only
  if (db_ == nullptr) return closedError();
  return readPosition(*db_, rocksdb::kPersistedTier);
}

Status RocksIndex::flush() {
  if (failed_) return failure();
  if (db_ == nullptr) return closedError();
  if (options_.readOnly) return Status::ok();
  const uint64_t batches = batches_;
  AppliedPosition target;
  {
    MutexLock l(mu_);
    if (batches == flushedBatches_) return Status::ok();
    target = applied_;
  }
  rocksdb::FlushOptions how;
  how.wait = true;
  how.allow_write_stall = true;
  // Flush may return early although nothing has failed: only the persisted position counts.
  constexpr int kAttempts = 8;
  for (int i = 0; i < kAttempts && !failed_; ++i) {
    const rocksdb::Status flushed = db_->Flush(how);
    if (!flushed.ok()) {
      fail(fromRocks(flushed));
      break;
    }
    TRY_ASSIGN(const AppliedPosition position, persisted());
    if (position.end < target.end) continue;
    MutexLock l(mu_);
    flushedBatches_ = std::max(flushedBatches_, batches);
    return Status::ok();
  }
  fail(Status::error(EIO, "index: a flush did not persist what was applied"));
  return failure();
}

// ---- failure ----

Status RocksIndex::failure() const {
  MutexLock l(mu_);
  return failure_;
}

void RocksIndex::fail(const Status& why) {
  {
    MutexLock l(mu_);
    if (!failure_) return;
    failure_ = why;
    failed_ = true;
  }
  if (options_.onFailure) options_.onFailure(why);
  backlog_.wake();
}

// ---- space ----

uint64_t RocksIndex::obtainableFree() const {
  return (pool_->free() + table_->droppedBlocks()).v * options_.geometry.blockSize;
}

uint64_t RocksIndex::neededFree() const {
  const uint64_t compaction = compactionNeed_.load(std::memory_order_relaxed);
  return std::max(options_.geometry.poolReserve().v,
                  flushReserve(options_.geometry) + compaction + compaction / 8);
}

bool RocksIndex::poolSufficient() const {
  return options_.readOnly || pool_->free().v * options_.geometry.blockSize >= neededFree();
}

Status RocksIndex::growPool() {
  MutexLock l(grow_);
  if (poolSufficient()) return Status::ok();
  if (failed_) return failure();
  if (table_->droppedBlocks().v > 0) {
    const Status synced = table_->sync();
    if (!synced) {
      fail(synced);
      return failure();
    }
  }
  const uint64_t needed = neededFree(), target = needed + needed / 4 + 1 * MiB;
  while (!poolSufficient()) {
    if (!options_.takeSpace) return Status::error(ENOSPC, "index: its pool cannot grow");
    const uint64_t have = pool_->free().v * options_.geometry.blockSize;
    TRY_ASSIGN(const std::vector<BlockRun> runs, options_.takeSpace(ByteCount(target - have)));
    if (runs.empty()) return Status::error(ENOSPC, "index: no space for its pool");
    for (const BlockRun& run : runs) {
      TRY(table_->addPool(run));
      pool_->add(run);
    }
  }
  allowCompaction();
  return Status::ok();
}

std::vector<BlockRun> RocksIndex::ownedBlocks() const { return table_->pool(); }

ByteCount RocksIndex::poolFree() const {
  const uint64_t free = pool_->free().v * options_.geometry.blockSize;
  return ByteCount(free - std::min(free, options_.geometry.poolReserve().v));
}

// ---- looking ----

Status RocksIndex::verify(const std::function<void(const std::string&)>& report) {
  if (db_ == nullptr) return closedError();
  files_->verify(report);
  const rocksdb::Status status = db_->VerifyChecksum();
  if (!status.ok()) report(fromRocks(status).message());
  return Status::ok();
}

IndexCounters RocksIndex::counters() const {
  IndexCounters c;
  c.gets = gets_;
  c.scans = scans_;
  c.batches = batches_;
  c.changes = changes_;
  c.flushes = flushes_;
  c.compactions = compactions_;
  c.tableWrites = table_->writes();
  c.manifestSyncs = context_.manifestSyncs;
  c.poolBlocks = pool_->total().v;
  c.poolFree = pool_->free().v;
  c.fileCount = files_->fileCount();
  return c;
}

}  // namespace ourfs
