// The handles that RocksDB gets for files and for the directory.
#pragma once

#include <rocksdb/file_system.h>

#include "block_writer.h"
#include "index_file.h"

namespace ourfs {

std::unique_ptr<rocksdb::FSSequentialFile> openSequential(std::shared_ptr<IndexFile> file);
std::unique_ptr<rocksdb::FSRandomAccessFile> openRandomAccess(std::shared_ptr<IndexFile> file);
std::unique_ptr<rocksdb::FSWritableFile> openWritable(FileContext& context,
                                                      std::shared_ptr<IndexFile> file);
// `fsync` is what its Fsync does.
std::unique_ptr<rocksdb::FSDirectory> openDirectory(std::function<Status()> fsync);

}  // namespace ourfs
