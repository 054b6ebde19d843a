// RocksIndex: Index on RocksDB. See index.h for the contract.
//
// Lock order: grow_, squeeze_ -> (footprint -> file system, table, pool: see there). mu_ and the
// backlog's lock are innermost; no callback of the owner and no call into RocksDB is made under
// them.
#pragma once

#include <rocksdb/db.h>
#include <rocksdb/sst_file_manager.h>

#include "backlog.h"
#include "footprint.h"
#include "index_file_system.h"

namespace ourfs {

class RocksIndex : public Index {
 public:
  RocksIndex(BlockDevice& device, IndexOptions options, std::unique_ptr<FileTable> table,
             std::unique_ptr<ChunkPool> pool);
  ~RocksIndex() override;
  Status openDatabase(bool create);

  Status startBackground() override;
  Status close() override;
  Status awaitMemtableRoom() override;
  bool memtableRoom() const override;
  Status apply(const IndexBatch& batch, const AppliedPosition& position) override;
  Result<std::optional<std::string>> get(std::string_view key) override;
  Status scan(std::string_view from, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& each) override;
  AppliedPosition applied() const override;
  Result<AppliedPosition> persisted() override;
  Status flush() override;
  bool poolSufficient() const override;
  Status growPool() override;
  Result<std::vector<BlockRun>> shrinkPool(bool hard) override;
  std::vector<BlockRun> ownedBlocks() const override;
  ByteCount poolFree() const override;
  Status verify(const std::function<void(const std::string&)>& report,
                const std::function<void(ByteCount, ByteCount)>& progress) override;
  uint64_t estimatedKeys() const override;
  IndexCounters counters() const override;

 private:
  class Listener;
  Status failure() const;
  void fail(const Status& why);
  Result<AppliedPosition> readPosition(rocksdb::DB& db, rocksdb::ReadTier tier);
  void onFlushCompleted(rocksdb::DB& db, uint64_t lastSequence);
  void onCompactionCompleted(rocksdb::DB& db, const std::vector<std::string>& inputs);
  void refreshLevels(rocksdb::DB& db, const std::vector<std::string>& inputs);
  void allowCompaction();
  void protectFlushes();
  // Bytes of the pool that no table takes, also if a running compaction has written to them.
  uint64_t freeBesideTables() const;
  bool admissible() const;  // see admissionRoom
  bool compacting();
  // Waits until `enough`, but not without a compaction from which it can come.
  bool awaitCompaction(const std::function<bool()>& enough);
  bool squeeze() EXCLUDES(squeeze_);
  void compactAll() REQUIRES(squeeze_);
  void compactDeletes() EXCLUDES(squeeze_);
  Status takeForPool(ByteCount wanted);

  const IndexOptions options_;
  const std::unique_ptr<FileTable> table_;
  const std::unique_ptr<ChunkPool> pool_;
  FileContext context_;
  const std::shared_ptr<IndexFileSystem> files_;
  const std::unique_ptr<rocksdb::Env> env_;
  std::shared_ptr<rocksdb::SstFileManager> space_;  // keeps compactions from what flushes need
  Footprint footprint_;
  Backlog backlog_;
  std::unique_ptr<rocksdb::DB> db_;  // unset after close; its threads use what is above

  std::atomic<bool> background_ = false;
  Mutex grow_;                                             // one thread changes the pool's size
  Mutex squeeze_;                                          // one thread compacts everything
  uint64_t squeezedAt_ GUARDED_BY(squeeze_) = UINT64_MAX;  // flushes_ after the last time

  mutable Mutex mu_;
  AppliedPosition applied_ GUARDED_BY(mu_);
  uint64_t flushedBatches_ GUARDED_BY(mu_) = 0;  // batches_ when the last flush() succeeded
  AppliedPosition openedAt_;                     // constant after open
  Status failure_ GUARDED_BY(mu_);
  std::atomic<bool> failed_ = false;
  std::atomic<uint64_t> gets_ = 0, scans_ = 0, batches_ = 0, changes_ = 0, flushes_ = 0,
                        compactions_ = 0;
  std::atomic<uint64_t> deletes_ = 0;  // since compactDeletes() last looked
};

}  // namespace ourfs
