// Footprint: what RocksDB's tables take of the pool, and what its next compaction may take on top.
//
// A table is counted from the moment a version names it until it is deleted: one that no version
// names any more (retired) still has its blocks, for as long as somebody reads it. What a running
// compaction or flush has written so far is not counted: whoever looks for room leaves room for the
// whole of it.
//
// Threads: any.
#pragma once

#include <rocksdb/metadata.h>

#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/mutex.h"
#include "index/index.h"

namespace ourfs {

class Footprint {
 public:
  explicit Footprint(const IndexGeometry& geometry) : geometry_(geometry) {}

  struct Levels {
    rocksdb::ColumnFamilyMetaData meta;
    int base = 0;  // the level that compaction out of level 0 goes to
  };
  // `read` is called under a lock, so that an older answer cannot replace a newer one. Of `inputs`,
  // names of tables that a compaction has read, those become retired that no version names;
  // `size` tells the bytes of a table, 0 if it is gone.
  void refresh(const std::function<Levels()>& read, const std::vector<std::string>& inputs,
               const std::function<uint64_t(const std::string& name)>& size);
  void deleted(const std::string& name);

  uint64_t used() const { return used_.load(std::memory_order_relaxed); }        // of the pool
  uint64_t payload() const { return payload_.load(std::memory_order_relaxed); }  // RocksDB's bytes
  uint64_t compaction() const {
    return compaction_.load(std::memory_order_relaxed);
  }                                                                       // of the pool
  int level0() const { return level0_.load(std::memory_order_relaxed); }  // files
  bool retired() const { return anyRetired_.load(std::memory_order_relaxed); }

  // Pool bytes that the largest compaction of these levels may write.
  uint64_t largestCompaction(const Levels& levels) const;
  uint64_t poolBytes(uint64_t tableBytes) const;  // of one table

 private:
  uint64_t levelBytes(const rocksdb::LevelMetaData& level) const;
  uint64_t largestStep(const rocksdb::LevelMetaData& from, const rocksdb::LevelMetaData& to) const;
  void publish() REQUIRES(mu_);

  const IndexGeometry geometry_;
  mutable Mutex mu_;
  uint64_t live_ GUARDED_BY(mu_) = 0, livePayload_ GUARDED_BY(mu_) = 0;
  std::map<std::string, uint64_t> retired_ GUARDED_BY(mu_);  // name -> bytes
  std::atomic<uint64_t> used_ = 0, payload_ = 0, compaction_ = 0;
  std::atomic<int> level0_ = 0;
  std::atomic<bool> anyRetired_ = false;
};

}  // namespace ourfs
