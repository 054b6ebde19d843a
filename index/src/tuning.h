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
// Pool bytes that a flush of everything in memory may take: compaction never uses them.
uint64_t flushReserve(const IndexGeometry& geometry);

// Everything but env, listeners and the table of files.
rocksdb::Options tunedOptions(const IndexGeometry& geometry, ByteCount blockCache);

}  // namespace ourfs
