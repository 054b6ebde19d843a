// Opening, background work and closing of the index.
#include <rocksdb/env.h>
#include <rocksdb/listener.h>
#include <spdlog/spdlog.h>

#include "common/sync_point.h"
#include "rocks_index.h"
#include "rocks_log.h"
#include "status_map.h"
#include "tuning.h"

namespace ourfs {

namespace {

// Payload bytes that fit into free space: headers, and last blocks that are not full.
constexpr uint64_t payloadOf(uint64_t bytes) { return bytes - bytes / 16; }

// Keeps the limit itself out of RocksDB's way: reaching it would be a hard error, while only
// compactions shall be held back.
constexpr uint64_t kFarAway = uint64_t{1} << 40;

}  // namespace

// Calls of RocksDB's threads. None may throw, and none is under the database's lock.
class RocksIndex::Listener : public rocksdb::EventListener {
 public:
  explicit Listener(RocksIndex& index) : index_(index) {}
  void OnMemTableSealed(const rocksdb::MemTableInfo& info) override {
    quietly([&] {
      index_.backlog_.sealed(info.first_seqno);
      index_.protectFlushes();
    });
  }
  void OnFlushBegin(rocksdb::DB*, const rocksdb::FlushJobInfo&) override {
    SYNC_POINT("index.flush_begins");
  }
  void OnCompactionBegin(rocksdb::DB*, const rocksdb::CompactionJobInfo&) override {
    SYNC_POINT("index.compaction_begins");
  }
  void OnFlushCompleted(rocksdb::DB* db, const rocksdb::FlushJobInfo& info) override {
    quietly([&] { index_.onFlushCompleted(*db, info.largest_seqno); });
  }
  void OnCompactionCompleted(rocksdb::DB* db, const rocksdb::CompactionJobInfo& info) override {
    quietly([&] { index_.onCompactionCompleted(*db, info.input_files); });
  }
  void OnTableFileCreated(const rocksdb::TableFileCreationInfo&) override {
    quietly([&] { index_.backlog_.moved(); });
  }
  void OnTableFileDeleted(const rocksdb::TableFileDeletionInfo& info) override {
    quietly([&] {
      index_.footprint_.deleted(info.file_path);
      index_.backlog_.moved();
    });
  }
  void OnBackgroundError(rocksdb::BackgroundErrorReason, rocksdb::Status* error) override {
    quietly([&] { index_.fail(fromRocks(*error)); });
  }
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* recover) override {
    *recover = false;
  }

 private:
  template <class Body>
  void quietly(Body&& body) noexcept {
    try {
      body();
    } catch (const std::exception&) {
      index_.fail(Status::error(ENOMEM));
    }
  }
  RocksIndex& index_;
};

RocksIndex::RocksIndex(BlockDevice& device, IndexOptions options, std::unique_ptr<FileTable> table,
                       std::unique_ptr<ChunkPool> pool)
    : options_(std::move(options)),
      table_(std::move(table)),
      pool_(std::move(pool)),
      context_{device, options_.geometry, *table_, *pool_, options_.beforePersist, {}},
      files_(std::make_shared<IndexFileSystem>(context_, options_.readOnly)),
      env_(rocksdb::NewCompositeEnv(files_)),
      footprint_(options_.geometry) {
  table_->setRelease([this](const std::vector<BlockRun>& runs) { pool_->release(runs); });
}

RocksIndex::~RocksIndex() { db_.reset(); }

Status RocksIndex::openDatabase(bool create) {
  rocksdb::Options o = tunedOptions(options_.geometry, options_.blockCache);
  o.create_if_missing = create;
  o.env = env_.get();
  o.info_log = makeRocksLog();
  o.listeners = {std::make_shared<Listener>(*this)};
  space_.reset(rocksdb::NewSstFileManager(env_.get(), files_, o.info_log));
  protectFlushes();
  o.sst_file_manager = space_;
  rocksdb::DB* db = nullptr;
  const rocksdb::Status opened = rocksdb::DB::Open(o, kIndexDirectory, &db);
  if (!opened.ok()) return fromRocks(opened);
  db_.reset(db);
  TRY_ASSIGN(openedAt_, readPosition(*db_, rocksdb::kReadAllTier));
  refreshLevels(*db_, {});
  MutexLock l(mu_);
  applied_ = openedAt_;
  return Status::ok();
}

Status RocksIndex::startBackground() {
  if (failed_) return failure();
  if (options_.readOnly || background_) return Status::ok();
  pool_->endHold();
  background_ = true;
  refreshLevels(*db_, {});
  const rocksdb::Status status = db_->SetOptions({{"disable_auto_compactions", "false"}});
  if (!status.ok()) {
    fail(fromRocks(status));
    return failure();
  }
  return Status::ok();
}

Status RocksIndex::close() {
  if (db_ == nullptr) return failure();
  Status status = flush();
  const rocksdb::Status closed = db_->Close();
  if (status && !closed.ok()) status = fromRocks(closed);
  db_.reset();
  if (status && !options_.readOnly) status = table_->sync();
  return status;
}

void RocksIndex::onFlushCompleted(rocksdb::DB& db, uint64_t lastSequence) {
  flushes_.fetch_add(1, std::memory_order_relaxed);
  // First the file, then the memtable that it was: in between both count, never none.
  refreshLevels(db, {});
  backlog_.flushed(lastSequence);
  protectFlushes();
  if (options_.readOnly || !options_.onPersisted) return;
  const Result<AppliedPosition> position = readPosition(db, rocksdb::kPersistedTier);
  if (position.isOk()) {
    options_.onPersisted(*position);
  } else {
    fail(position.status());
  }
}

void RocksIndex::onCompactionCompleted(rocksdb::DB& db, const std::vector<std::string>& inputs) {
  compactions_.fetch_add(1, std::memory_order_relaxed);
  refreshLevels(db, inputs);
}

void RocksIndex::refreshLevels(rocksdb::DB& db, const std::vector<std::string>& inputs) {
  const auto read = [&db] {
    Footprint::Levels levels;
    uint64_t base = 0;
    db.GetColumnFamilyMetaData(&levels.meta);
    (void)db.GetIntProperty("rocksdb.base-level", &base);
    levels.base = static_cast<int>(base);
    return levels;
  };
  footprint_.refresh(read, inputs,
                     [this](const std::string& name) { return files_->sizeOf(name); });
  backlog_.setLevel0(footprint_.level0());
  allowCompaction();
}

// A compaction begins only if its inputs fit beside what flushes need. RocksDB counts the tables
// itself, so that this stays true while they come and go. Admission sees to it that they do fit: a
// compaction that is held back is tried again a second later only.
void RocksIndex::allowCompaction() {
  space_->SetMaxAllowedSpaceUsage(kFarAway + footprint_.payload() + payloadOf(freeBesideTables()));
}

void RocksIndex::protectFlushes() {
  space_->SetCompactionBufferSize(kFarAway + flushReserve(options_.geometry, backlog_.memtables()));
}

// ---- Index ----

Status Index::format(BlockDevice& device, const IndexGeometry& geometry,
                     const std::vector<BlockRun>& pool) {
  TRY(FileTable::format(device, geometry, pool));
  IndexOptions options;
  options.geometry = geometry;
  TRY_ASSIGN(std::unique_ptr<FileTable> table, FileTable::load(device, geometry, false));
  TRY_ASSIGN(std::unique_ptr<ChunkPool> chunks, ChunkPool::build(table->pool(), {}));
  RocksIndex index(device, std::move(options), std::move(table), std::move(chunks));
  TRY(index.openDatabase(true));
  TRY(index.close());
  return device.flush(IoClass::Index);
}

Result<std::unique_ptr<Index>> Index::open(BlockDevice& device, IndexOptions options) {
  TRY_ASSIGN(std::unique_ptr<FileTable> table,
             FileTable::load(device, options.geometry, options.readOnly));
  TRY_ASSIGN(std::unique_ptr<ChunkPool> pool, ChunkPool::build(table->pool(), table->usedRuns()));
  auto index =
      std::make_unique<RocksIndex>(device, std::move(options), std::move(table), std::move(pool));
  TRY(index->openDatabase(false));
  return std::unique_ptr<Index>(std::move(index));
}

}  // namespace ourfs
