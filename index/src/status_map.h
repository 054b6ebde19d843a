// Errors on their way into RocksDB and back, and the rule that no exception enters it.
#pragma once

#include <rocksdb/io_status.h>
#include <rocksdb/status.h>

#include <exception>

#include "common/result.h"

namespace ourfs {

rocksdb::IOStatus toIoStatus(const Status& status);
Status fromRocks(const rocksdb::Status& status);

// Runs `body`, which answers a Status. RocksDB is not built to survive an exception.
template <class Body>
rocksdb::IOStatus guarded(Body&& body) noexcept {
  try {
    return toIoStatus(body());
  } catch (const std::exception&) {
    return rocksdb::IOStatus::Aborted();
  }
}

}  // namespace ourfs
