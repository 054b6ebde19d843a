#include "status_map.h"

namespace ourfs {

rocksdb::IOStatus toIoStatus(const Status& status) {
  switch (status.errnum()) {
    case 0:
      return rocksdb::IOStatus::OK();
    case ENOSPC:
      return rocksdb::IOStatus::NoSpace(status.message());
    case EUCLEAN:
      return rocksdb::IOStatus::Corruption(status.message());
    case ENOENT:
      return rocksdb::IOStatus::PathNotFound(status.message());
    case EINVAL:
      return rocksdb::IOStatus::InvalidArgument(status.message());
    default:
      return rocksdb::IOStatus::IOError(status.message());
  }
}

Status fromRocks(const rocksdb::Status& status) {
  if (status.ok()) return Status::ok();
  int errnum = EIO;
  // What the index holds cannot be right, or lacks a file: nothing but damage leads there.
  if (status.IsCorruption() || status.IsPathNotFound() || status.IsNotFound() ||
      status.IsInvalidArgument()) {
    errnum = EUCLEAN;
  }
  if (status.IsNoSpace()) errnum = ENOSPC;
  return Status::error(errnum, "index: " + status.ToString());
}

}  // namespace ourfs
