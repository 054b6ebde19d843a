#include "index_file_system.h"

#include <algorithm>

#include "common/sync_point.h"
#include "open_files.h"
#include "status_map.h"

namespace ourfs {

namespace {

std::string baseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool isDirectoryPath(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path == kIndexDirectory;
}

FileKind kindOf(const std::string& name) {
  if (name.ends_with(".log") || name.starts_with("LOG")) return FileKind::Volatile;
  if (name.ends_with(".sst") || name.starts_with("MANIFEST-")) return FileKind::Blocks;
  return FileKind::Inline;
}

class VolumeLock : public rocksdb::FileLock {};

}  // namespace

IndexFileSystem::IndexFileSystem(FileContext& context, bool readOnly)
    : context_(context), readOnly_(readOnly) {
  MutexLock l(mu_);
  for (TableFile& file : context_.table.files()) {
    std::string name = file.name;
    files_.emplace(std::move(name), std::make_shared<IndexFile>(context_, std::move(file)));
  }
}

Result<std::shared_ptr<IndexFile>> IndexFileSystem::find(const std::string& path) const {
  MutexLock l(mu_);
  const auto it = files_.find(baseName(path));
  if (it == files_.end()) return Status::error(ENOENT, "index: there is no " + baseName(path));
  return it->second;
}

Result<std::shared_ptr<IndexFile>> IndexFileSystem::create(const std::string& path) {
  const std::string name = baseName(path);
  const FileKind kind = readOnly_ ? FileKind::Volatile : kindOf(name);
  auto file = std::make_shared<IndexFile>(context_, kind, context_.table.newId(), name);
  MutexLock l(mu_);
  std::shared_ptr<IndexFile>& slot = files_[name];
  if (slot != nullptr && !readOnly_) TRY(slot->removed());
  slot = file;
  return file;
}

Status IndexFileSystem::rename(const std::string& from, const std::string& to) {
  if (to == "CURRENT" && !readOnly_ && context_.beforePersist &&
      !mutantEnabled("index.no_persist_hook")) {
    TRY(context_.beforePersist());
  }
  MutexLock l(mu_);
  const auto it = files_.find(from);
  if (it == files_.end()) return Status::error(ENOENT, "index: there is no " + from);
  std::shared_ptr<IndexFile> file = it->second;
  // The table drops the old file of that name in the same change.
  TRY(file->renamed(to));
  files_.erase(it);
  files_[to] = std::move(file);
  return Status::ok();
}

std::vector<std::shared_ptr<IndexFile>> IndexFileSystem::all() const {
  MutexLock l(mu_);
  std::vector<std::shared_ptr<IndexFile>> files;
  for (const auto& [name, file] : files_) files.push_back(file);
  return files;
}

size_t IndexFileSystem::fileCount() const {
  MutexLock l(mu_);
  return files_.size();
}

uint64_t IndexFileSystem::sizeOf(const std::string& name) const {
  const auto file = find(name);
  return file.isOk() ? (*file)->size() : 0;
}

void IndexFileSystem::verify(
    const std::function<void(const std::string&)>& report,
    const std::function<void(ByteCount done, ByteCount total)>& progress) const {
  const auto files = all();
  uint64_t done = 0, total = 0;
  for (const auto& file : files) total += file->size();
  for (const auto& file : files) {
    if (file->kind() != FileKind::Blocks) continue;
    const Status status = file->reader()->verify([&](uint64_t bytes) {
      done = std::min(done + bytes, total);
      if (progress) progress(ByteCount(done), ByteCount(total));
    });
    if (!status) report(file->name() + ": " + status.message());
  }
}

// ---- rocksdb::FileSystem ----

rocksdb::IOStatus IndexFileSystem::NewSequentialFile(const std::string& name,
                                                     const rocksdb::FileOptions&,
                                                     Ptr<rocksdb::FSSequentialFile>* result,
                                                     Debug*) {
  return guarded([&]() -> Status {
    TRY_ASSIGN(auto file, find(name));
    *result = openSequential(std::move(file));
    return Status::ok();
  });
}

rocksdb::IOStatus IndexFileSystem::NewRandomAccessFile(const std::string& name,
                                                       const rocksdb::FileOptions&,
                                                       Ptr<rocksdb::FSRandomAccessFile>* result,
                                                       Debug*) {
  return guarded([&]() -> Status {
    TRY_ASSIGN(auto file, find(name));
    *result = openRandomAccess(std::move(file));
    return Status::ok();
  });
}

rocksdb::IOStatus IndexFileSystem::NewWritableFile(const std::string& name,
                                                   const rocksdb::FileOptions&,
                                                   Ptr<rocksdb::FSWritableFile>* result, Debug*) {
  // Written twice at every mount, and parsed again to be compared: a third of the time of an open,
  // for a file that nobody reads. RocksDB goes on without.
  if (baseName(name).starts_with("OPTIONS-")) return IoStatus::NotSupported("options are not kept");
  return guarded([&]() -> Status {
    TRY_ASSIGN(auto file, create(name));
    *result = openWritable(context_, std::move(file));
    return Status::ok();
  });
}

rocksdb::IOStatus IndexFileSystem::NewDirectory(const std::string&, const IoOptions&,
                                                Ptr<rocksdb::FSDirectory>* result, Debug*) {
  return guarded([&] {
    *result = openDirectory([this] {
      if (readOnly_ || mutantEnabled("index.entry_late")) return Status::ok();
      return context_.table.sync();
    });
    return Status::ok();
  });
}

rocksdb::IOStatus IndexFileSystem::FileExists(const std::string& name, const IoOptions&, Debug*) {
  if (isDirectoryPath(name)) return IoStatus::OK();
  const bool there = find(name).isOk();
  return there ? IoStatus::OK() : IoStatus::NotFound();
}

rocksdb::IOStatus IndexFileSystem::GetChildren(const std::string& directory, const IoOptions&,
                                               std::vector<std::string>* result, Debug*) {
  return guarded([&]() -> Status {
    result->clear();
    if (!isDirectoryPath(directory)) return Status::error(ENOENT);
    MutexLock l(mu_);
    for (const auto& [name, file] : files_) result->push_back(name);
    return Status::ok();
  });
}

rocksdb::IOStatus IndexFileSystem::DeleteFile(const std::string& name, const IoOptions&, Debug*) {
  return guarded([&]() -> Status {
    MutexLock l(mu_);
    const auto it = files_.find(baseName(name));
    if (it == files_.end()) return Status::error(ENOENT);
    const std::shared_ptr<IndexFile> file = it->second;
    files_.erase(it);
    return readOnly_ ? Status::ok() : file->removed();
  });
}

rocksdb::IOStatus IndexFileSystem::CreateDir(const std::string&, const IoOptions&, Debug*) {
  return IoStatus::OK();
}

rocksdb::IOStatus IndexFileSystem::CreateDirIfMissing(const std::string&, const IoOptions&,
                                                      Debug*) {
  return IoStatus::OK();
}

rocksdb::IOStatus IndexFileSystem::DeleteDir(const std::string&, const IoOptions&, Debug*) {
  return IoStatus::NotSupported("the index has one directory");
}

rocksdb::IOStatus IndexFileSystem::GetFileSize(const std::string& name, const IoOptions&,
                                               uint64_t* size, Debug*) {
  return guarded([&]() -> Status {
    TRY_ASSIGN(const auto file, find(name));
    *size = file->size();
    return Status::ok();
  });
}

rocksdb::IOStatus IndexFileSystem::GetFileModificationTime(const std::string&, const IoOptions&,
                                                           uint64_t* time, Debug*) {
  *time = 0;
  return IoStatus::OK();
}

rocksdb::IOStatus IndexFileSystem::RenameFile(const std::string& from, const std::string& to,
                                              const IoOptions&, Debug*) {
  return guarded([&] { return rename(baseName(from), baseName(to)); });
}

// The device itself is locked by whoever opened it.
rocksdb::IOStatus IndexFileSystem::LockFile(const std::string&, const IoOptions&,
                                            rocksdb::FileLock** lock, Debug*) {
  return guarded([&] {
    *lock = std::make_unique<VolumeLock>().release();
    return Status::ok();
  });
}

rocksdb::IOStatus IndexFileSystem::UnlockFile(rocksdb::FileLock* lock, const IoOptions&, Debug*) {
  const std::unique_ptr<rocksdb::FileLock> owned(lock);
  return IoStatus::OK();
}

rocksdb::IOStatus IndexFileSystem::GetTestDirectory(const IoOptions&, std::string*, Debug*) {
  return IoStatus::NotSupported("the index has one directory");
}

rocksdb::IOStatus IndexFileSystem::GetAbsolutePath(const std::string& path, const IoOptions&,
                                                   std::string* result, Debug*) {
  return guarded([&] {
    *result = path;
    return Status::ok();
  });
}

rocksdb::IOStatus IndexFileSystem::IsDirectory(const std::string& path, const IoOptions&,
                                               bool* result, Debug*) {
  *result = isDirectoryPath(path);
  return IoStatus::OK();
}

}  // namespace ourfs
