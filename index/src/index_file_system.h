// IndexFileSystem: RocksDB's view of the volume: one flat directory, kIndexDirectory.
//
// Which files are durable: MANIFEST-* and *.sst live in blocks, CURRENT, IDENTITY and temporary
// files inline in the file table; *.log and LOG in memory only, since nothing needs them again;
// OPTIONS-* cannot be made at all. A file's Sync brings its data to the device and its size into
// the table's next sync; the directory's Fsync is a table sync; a MANIFEST's Sync is both, after
// beforePersist. A rename over CURRENT also calls beforePersist. With readOnly every new file is in
// memory and nothing reaches the device.
//
// Threads: any. No function throws.
#pragma once

#include <rocksdb/file_system.h>

#include <functional>
#include <map>
#include <memory>

#include "index_file.h"

namespace ourfs {

inline constexpr const char* kIndexDirectory = "/index";

class IndexFileSystem : public rocksdb::FileSystem {
 public:
  template <class T>
  using Ptr = std::unique_ptr<T>;
  using Debug = rocksdb::IODebugContext;
  using IoOptions = rocksdb::IOOptions;
  using IoStatus = rocksdb::IOStatus;

  // `context` outlives it.
  IndexFileSystem(FileContext& context, bool readOnly);

  const char* Name() const override { return "OurfsIndex"; }

  IoStatus NewSequentialFile(const std::string& name, const rocksdb::FileOptions&,
                             Ptr<rocksdb::FSSequentialFile>* result, Debug*) override;
  IoStatus NewRandomAccessFile(const std::string& name, const rocksdb::FileOptions&,
                               Ptr<rocksdb::FSRandomAccessFile>* result, Debug*) override;
  IoStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions&,
                           Ptr<rocksdb::FSWritableFile>* result, Debug*) override;
  IoStatus NewDirectory(const std::string& name, const IoOptions&,
                        Ptr<rocksdb::FSDirectory>* result, Debug*) override;
  IoStatus FileExists(const std::string& name, const IoOptions&, Debug*) override;
  IoStatus GetChildren(const std::string& directory, const IoOptions&,
                       std::vector<std::string>* result, Debug*) override;
  IoStatus DeleteFile(const std::string& name, const IoOptions&, Debug*) override;
  IoStatus CreateDir(const std::string&, const IoOptions&, Debug*) override;
  IoStatus CreateDirIfMissing(const std::string&, const IoOptions&, Debug*) override;
  IoStatus DeleteDir(const std::string&, const IoOptions&, Debug*) override;
  IoStatus GetFileSize(const std::string& name, const IoOptions&, uint64_t* size, Debug*) override;
  IoStatus GetFileModificationTime(const std::string& name, const IoOptions&, uint64_t* time,
                                   Debug*) override;
  IoStatus RenameFile(const std::string& from, const std::string& to, const IoOptions&,
                      Debug*) override;
  IoStatus LockFile(const std::string& name, const IoOptions&, rocksdb::FileLock** lock,
                    Debug*) override;
  IoStatus UnlockFile(rocksdb::FileLock* lock, const IoOptions&, Debug*) override;
  IoStatus GetTestDirectory(const IoOptions&, std::string*, Debug*) override;
  IoStatus GetAbsolutePath(const std::string& path, const IoOptions&, std::string* result,
                           Debug*) override;
  IoStatus IsDirectory(const std::string& path, const IoOptions&, bool* result, Debug*) override;

  // ---- for Index ----
  size_t fileCount() const;
  uint64_t sizeOf(const std::string& name) const;  // bytes; 0 if there is no such file
  // Reads every unit of every file on the device.
  void verify(const std::function<void(const std::string&)>& report,
              const std::function<void(ByteCount done, ByteCount total)>& progress) const;

 private:
  Result<std::shared_ptr<IndexFile>> find(const std::string& path) const;
  Result<std::shared_ptr<IndexFile>> create(const std::string& path);
  Status rename(const std::string& from, const std::string& to);
  std::vector<std::shared_ptr<IndexFile>> all() const;

  FileContext& context_;
  const bool readOnly_;
  mutable Mutex mu_;  // outside that of a file, of the table and of the pool
  std::map<std::string, std::shared_ptr<IndexFile>> files_ GUARDED_BY(mu_);
};

}  // namespace ourfs
