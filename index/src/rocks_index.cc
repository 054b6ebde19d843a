#include "rocks_index.h"

#include <rocksdb/write_batch.h>

#include <algorithm>

#include "common/sync_point.h"
#include "position.h"
#include "status_map.h"
#include "tuning.h"

namespace ourfs {

namespace {

constexpr std::chrono::milliseconds kFlushWait{1000};     // between two looks at the failure
constexpr std::chrono::milliseconds kCompactionWait{50};  // patience of one reservation
constexpr std::chrono::milliseconds kPoll{20};            // not every change is told
constexpr std::chrono::seconds kStuck{10};        // no table comes or goes for so long: give up
constexpr std::chrono::seconds kLongestScan{1};   // the same if all that is missing is a scan's end
constexpr uint64_t kWorthCompacting = 1000;       // deletes
constexpr uint64_t kQuicklyCompacted = 64 * MiB;  // of tables: well under a second
constexpr size_t kChangeOverhead = 12;            // bytes of a WriteBatch per change

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
         (!background_ || backlog_.level0() < kLevel0Patience) && admissible();
}

bool RocksIndex::admissible() const {
  return options_.readOnly || !background_ || mutantEnabled("index.admit_without_room") ||
         freeBesideTables() >= admissionRoom(options_.geometry, footprint_.compaction());
}

Status RocksIndex::awaitMemtableRoom() {
  if (!memtableRoom()) {
    while (!failed_ && backlog_.memtables() + 1 >= kMemtables) {
      backlog_.await([this] { return !failed_ && backlog_.memtables() + 1 >= kMemtables; },
                     kFlushWait);
    }
    // Not for ever: the pool may be growing meanwhile.
    backlog_.await(
        [this] { return !failed_ && background_ && backlog_.level0() >= kLevel0Patience; },
        kCompactionWait);
  }
  const auto enough = [this] { return admissible(); };
  const bool admitted = enough() || awaitCompaction(enough) || squeeze();
  if (failed_) return failure();
  return admitted ? Status::ok() : Status::error(ENOSPC, "index: its pool could not hold a flush");
}

bool RocksIndex::compacting() {
  for (const char* property : {"rocksdb.num-running-compactions", "rocksdb.compaction-pending",
                               "rocksdb.num-running-flushes"}) {
    uint64_t value = 0;
    if (db_->GetIntProperty(property, &value) && value > 0) return true;
  }
  return false;
}

bool RocksIndex::awaitCompaction(const std::function<bool()>& enough) {
  uint64_t seen = backlog_.moves();
  auto since = std::chrono::steady_clock::now();
  while (!failed_ && !enough()) {
    const bool running = compacting();
    if (!running && !footprint_.retired()) return enough();
    backlog_.await([&] { return !failed_ && backlog_.moves() == seen && !enough(); }, kPoll);
    const auto now = std::chrono::steady_clock::now();
    if (backlog_.moves() != seen) since = now;
    seen = backlog_.moves();
    if (now - since > (running ? kStuck : kLongestScan)) return enough();
  }
  return !failed_;
}

// Nothing is left that RocksDB would compact of its own accord, and yet too much of the pool is in
// tables: in tombstones, and in what they delete further down. Takes all of it to the bottom, in
// steps that fit.
bool RocksIndex::squeeze() {
  MutexLock l(squeeze_);
  if (failed_) return false;
  if (admissible()) return true;
  if (flushes_ == squeezedAt_) return false;  // nothing has come since
  compactAll();
  return awaitCompaction([this] { return admissible(); });
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
  count(deletes_, static_cast<uint64_t>(std::ranges::count_if(
                      batch.changes(), [](const auto& change) { return !change.isPut; })));
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
  backlog_.moved();
}

// ---- space ----

uint64_t RocksIndex::freeBesideTables() const {
  const uint64_t total = pool_->total().v * options_.geometry.blockSize, used = footprint_.used();
  return total - std::min(total, used);
}

bool RocksIndex::poolSufficient() const {
  return options_.readOnly || mutantEnabled("index.admit_without_room") ||
         freeBesideTables() >= growthRoom(options_.geometry, footprint_.compaction());
}

Status RocksIndex::growPool() {
  const IndexGeometry& g = options_.geometry;
  MutexLock l(grow_);
  if (poolSufficient()) return Status::ok();
  if (failed_) return failure();
  if (background_ && freeBesideTables() >= g.poolReserve().v) {
    // It is compaction that lags. What the pool has taken it keeps, so a little patience first.
    backlog_.await([this] { return !failed_ && !poolSufficient(); }, kCompactionWait);
  }
  while (!poolSufficient()) {
    const uint64_t needed = growthRoom(g, footprint_.compaction()), have = freeBesideTables();
    const uint64_t slack = needed / 4 + std::min(1 * MiB, g.volumeSize.v / 64);
    const Status grown = takeForPool(ByteCount(needed + slack - std::min(needed, have)));
    if (grown.isOk()) continue;
    const bool waited = grown.errnum() == ENOSPC && background_ &&
                        awaitCompaction([this] { return poolSufficient(); });
    if (failed_) return failure();
    return waited ? Status::ok() : grown;
  }
  return Status::ok();
}

void RocksIndex::compactAll() {
  (void)db_->CompactRange(rocksdb::CompactRangeOptions(), nullptr, nullptr);  // its errors: failed_
  squeezedAt_ = flushes_;
}

// What deletes leave behind is in the way of a writer now, not when RocksDB next comes by. Once for
// the same deletes, however many writers find no space.
void RocksIndex::compactDeletes() {
  MutexLock l(squeeze_);
  if (failed_ || deletes_ < kWorthCompacting || !flush()) return;
  deletes_ = 0;
  if (footprint_.used() <= kQuicklyCompacted) {
    compactAll();
  } else {  // RocksDB has been told by the tables' tombstones
    backlog_.await([this] { return !failed_ && compacting(); }, kFlushWait);
  }
}

Result<std::vector<BlockRun>> RocksIndex::shrinkPool(bool hard) {
  if (options_.readOnly || !background_ || db_ == nullptr) return std::vector<BlockRun>();
  if (hard) compactDeletes();
  if (failed_) return failure();
  const IndexGeometry& g = options_.geometry;
  MutexLock l(grow_);
  const uint64_t needed = growthRoom(g, footprint_.compaction()), have = freeBesideTables();
  // More than growPool() would take, or the two would play ball.
  const uint64_t keep = needed + needed / 2 + 2 * std::min(1 * MiB, g.volumeSize.v / 64);
  if (have < keep + (hard ? 1 : needed / 2)) return std::vector<BlockRun>();
  const std::vector<BlockRun> runs = pool_->withdraw((have - keep) / g.blockSize);
  if (runs.empty()) return runs;
  Status done = table_->removePool(runs);
  if (done.errnum() == ENOSPC) {  // the pool is in too many pieces
    for (const BlockRun& run : runs) pool_->add(run);
    return std::vector<BlockRun>();
  }
  if (mutantEnabled("index.shrink_before_sync")) return runs;
  if (done) done = table_->sync();
  if (!done) {
    fail(done);
    return done;
  }
  allowCompaction();
  return runs;
}

Status RocksIndex::takeForPool(ByteCount wanted) {
  if (!options_.takeSpace) return Status::error(ENOSPC, "index: its pool cannot grow");
  TRY_ASSIGN(std::vector<BlockRun> runs, options_.takeSpace(wanted));
  if (runs.empty()) return Status::error(ENOSPC, "index: no space for its pool");
  Status added;
  auto run = runs.begin();
  for (; run != runs.end(); ++run) {
    added = table_->addPool(*run);
    if (!added) break;
    pool_->add(*run);
  }
  // What it could name is room, too; the next call will find out that there is no more.
  if (added.errnum() == ENOSPC && run != runs.begin()) added = Status::ok();
  runs.erase(runs.begin(), run);
  if (!runs.empty() && options_.returnSpace) options_.returnSpace(runs);
  allowCompaction();
  return added;
}

std::vector<BlockRun> RocksIndex::ownedBlocks() const { return table_->pool(); }

ByteCount RocksIndex::poolFree() const {
  const uint64_t free = freeBesideTables();
  return ByteCount(free - std::min(free, options_.geometry.poolReserve().v));
}

// ---- looking ----

Status RocksIndex::verify(const std::function<void(const std::string&)>& report,
                          const std::function<void(ByteCount, ByteCount)>& progress) {
  if (db_ == nullptr) return closedError();
  files_->verify(report, progress);
  const rocksdb::Status status = db_->VerifyChecksum();
  if (!status.ok()) report(fromRocks(status).message());
  return Status::ok();
}

uint64_t RocksIndex::estimatedKeys() const {
  uint64_t keys = 0;
  if (db_ != nullptr) (void)db_->GetIntProperty("rocksdb.estimate-num-keys", &keys);
  return keys;
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
  if (db_ != nullptr) (void)db_->GetIntProperty("rocksdb.background-errors", &c.retries);
  return c;
}

}  // namespace ourfs
