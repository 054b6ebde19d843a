// RocksDB's own log, handed to ours: its errors, and for debugging its warnings (which are chatty).
#pragma once

#include <rocksdb/env.h>

#include <memory>

namespace ourfs {

std::shared_ptr<rocksdb::Logger> makeRocksLog();

}  // namespace ourfs
