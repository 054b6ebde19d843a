#include "tuning.h"

#include <rocksdb/cache.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/table_properties_collectors.h>

#include <algorithm>

#include "unit.h"

namespace ourfs {

namespace {

constexpr uint64_t kBaseMemtables = 4;   // the base level's size, in memtables
constexpr uint64_t kSmallestEdit = 160;  // bytes that one flush adds to the MANIFEST, at least
constexpr uint64_t kRoundedFiles = 32;   // files whose last block is mostly empty
constexpr uint64_t kGateSlack = 2;       // memtables that flushReserve sees in addition
// Memtables of tombstones that may wait in the upper levels until compaction takes them to what
// they delete: only transactions that free something use this room.
constexpr uint64_t kDeletionMemtables = 4;
constexpr size_t kDeletionWindow = 4096;
constexpr size_t kDeletionTrigger = kDeletionWindow / 2;

// Each sync of the MANIFEST takes a unit of its own.
uint64_t manifestReserve(const IndexGeometry& g) {
  const uint64_t limit = manifestLimit(g);
  return limit / kSmallestEdit * unitSizeFor(g.blockSize) + 2 * limit;
}

rocksdb::BlockBasedTableOptions tableOptions(const IndexGeometry& g, ByteCount blockCache) {
  rocksdb::BlockBasedTableOptions t;
  t.block_cache = rocksdb::NewLRUCache(blockCache.v);
  t.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  t.whole_key_filtering = true;
  t.cache_index_and_filter_blocks = true;
  t.cache_index_and_filter_blocks_with_high_priority = true;
  t.pin_l0_filter_and_index_blocks_in_cache = true;
  t.pin_top_level_index_and_filter = true;
  t.format_version = 5;
  if (g.writeBuffer() >= ByteCount(4 * MiB)) {
    // Large files: an index or a filter is too large to be read as a whole.
    t.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
    t.partition_filters = true;
  }
  return t;
}

// Stalls and retries are ours to decide: RocksDB's are set out of reach.
void disarmStalls(rocksdb::Options& o) {
  o.max_write_buffer_number = 64;
  o.level0_slowdown_writes_trigger = 1 << 20;
  o.level0_stop_writes_trigger = 1 << 20;
  o.soft_pending_compaction_bytes_limit = 0;
  o.hard_pending_compaction_bytes_limit = 0;
  o.max_bgerror_resume_count = 0;
  o.avoid_flush_during_shutdown = true;  // close() flushes, and looks at the result
}

}  // namespace

ByteCount IndexGeometry::writeBuffer() const {
  const uint64_t least = std::max(128 * KiB, uint64_t{4} * blockSize);
  return ByteCount(roundUp(std::clamp(volumeSize.v / 1024, least, 16 * MiB), 64 * KiB));
}

ByteCount IndexGeometry::poolReserve() const { return ByteCount(growthRoom(*this, 0)); }

uint64_t manifestLimit(const IndexGeometry& g) {
  return std::clamp(g.writeBuffer().v / 8, 32 * KiB, 512 * KiB);
}

uint64_t compactionLimit(const IndexGeometry& g) {
  return (kLevel0Trigger + kBaseMemtables) * g.writeBuffer().v;
}

uint64_t flushedMemtable(const IndexGeometry& g) {
  const uint64_t buffer = g.writeBuffer().v;
  return roundUp(buffer + buffer / 8, g.blockSize);
}

uint64_t flushReserve(const IndexGeometry& g, uint64_t sealed) {
  return (sealed + 1 + kMemtableSlack) * flushedMemtable(g) + manifestReserve(g);
}

uint64_t admissionRoom(const IndexGeometry& g, uint64_t compaction) {
  constexpr uint64_t kInMemory = kMemtables + kMemtableSlack;
  // What the next compaction leaves may call for one of any size that the limit allows: up to a
  // table beyond it on either side, and a table may be two memtables large.
  const uint64_t usual = compactionLimit(g) + 4 * g.writeBuffer().v;
  compaction = std::max(compaction, usual);
  return (2 * kInMemory + kGateSlack) * flushedMemtable(g) + manifestReserve(g) + compaction +
         compaction / 8 + kRoundedFiles * g.blockSize;
}

uint64_t growthRoom(const IndexGeometry& g, uint64_t compaction) {
  return admissionRoom(g, compaction) + kDeletionMemtables * flushedMemtable(g);
}

rocksdb::Options tunedOptions(const IndexGeometry& g, ByteCount blockCache) {
  rocksdb::Options o;
  disarmStalls(o);
  const uint64_t buffer = g.writeBuffer().v;
  o.write_buffer_size = buffer;
  o.allow_concurrent_memtable_write = false;  // apply is called by one thread at a time
  o.max_background_jobs = 2;                  // one flush, one compaction
  o.max_subcompactions = 1;
  o.disable_auto_compactions = true;  // until startBackground
  o.level0_file_num_compaction_trigger = kLevel0Trigger;
  o.level_compaction_dynamic_level_bytes = true;
  o.target_file_size_base = buffer;
  o.max_bytes_for_level_base = kBaseMemtables * buffer;
  o.max_compaction_bytes = compactionLimit(g);
  o.ignore_max_compaction_bytes_for_input = false;  // else one may take a whole level
  o.compaction_readahead_size = 256 * KiB;
  o.ttl = 0;
  o.compression = rocksdb::kLZ4Compression;
  o.table_properties_collector_factories = {
      rocksdb::NewCompactOnDeletionCollectorFactory(kDeletionWindow, kDeletionTrigger, 0.5)};
  o.table_factory.reset(rocksdb::NewBlockBasedTableFactory(tableOptions(g, blockCache)));
  o.max_manifest_file_size = manifestLimit(g);
  o.manifest_preallocation_size = 4096;
  o.writable_file_max_buffer_size = 64 * KiB;
  o.max_open_files = 512;
  o.max_file_opening_threads = 1;
  o.stats_dump_period_sec = 0;
  o.stats_persist_period_sec = 0;
  return o;
}

}  // namespace ourfs
