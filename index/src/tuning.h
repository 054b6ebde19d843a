// How the sizes inside RocksDB follow from the size of the volume.
#pragma once

#include <rocksdb/options.h>

#include "index/index.h"

namespace ourfs {

// Memtables, the one being written included, that may hold what is not flushed yet.
inline constexpr uint64_t kMemtables = 4;
// One more for the batches of transactions that were admitted while there was still room.
inline constexpr uint64_t kMemtableSlack = 1;
inline constexpr int kLevel0Trigger = 4;    // files that start a compaction
inline constexpr int kLevel0Patience = 12;  // files from which reservations wait a little

// The largest MANIFEST before a new one is begun.
uint64_t manifestLimit(const IndexGeometry& geometry);
// Pool bytes that one memtable becomes, at most.
uint64_t flushedMemtable(const IndexGeometry& geometry);
// Pool bytes that flushes of what is in memory now may take: a compaction that would use them does
// not begin. `sealed` memtables wait; one is being written, one belongs to admitted transactions.
uint64_t flushReserve(const IndexGeometry& geometry, uint64_t sealed);
// Pool bytes beside the tables without which no transaction may be admitted, if the largest
// compaction now takes `compaction`: everything in memory is flushed, that compaction has grown by
// as much and still begins, and the MANIFEST is written. What is admitted with less could leave
// level 0 without a way down, and then the pool without room for a flush.
uint64_t admissionRoom(const IndexGeometry& geometry, uint64_t compaction);
// The same for a transaction that may make the index larger.
uint64_t growthRoom(const IndexGeometry& geometry, uint64_t compaction);
// Beyond this RocksDB adds no neighbours to a compaction.
uint64_t compactionLimit(const IndexGeometry& geometry);

// Everything but env, listeners and the table of files.
rocksdb::Options tunedOptions(const IndexGeometry& geometry, ByteCount blockCache);

}  // namespace ourfs
