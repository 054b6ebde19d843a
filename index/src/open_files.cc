#include "open_files.h"

#include "status_map.h"

namespace ourfs {

namespace {

using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

// Reads from a file as it was when it was opened (Blocks), or as it is (in memory).
class Source {
 public:
  explicit Source(std::shared_ptr<IndexFile> file) : file_(std::move(file)) {
    if (file_->kind() == FileKind::Blocks) reader_ = file_->reader();
  }
  Result<size_t> read(uint64_t offset, size_t n, char* into) const {
    if (reader_ != nullptr) return reader_->read(offset, n, into);
    return file_->readMemory(offset, n, into);
  }
  Status read(uint64_t offset, size_t n, Slice* result, char* into) const {
    TRY_ASSIGN(const size_t got, read(offset, n, into));
    *result = Slice(into, got);
    return Status::ok();
  }

 private:
  const std::shared_ptr<IndexFile> file_;
  std::shared_ptr<const FileReader> reader_;
};

class SequentialFile : public rocksdb::FSSequentialFile {
 public:
  explicit SequentialFile(std::shared_ptr<IndexFile> file) : source_(std::move(file)) {}
  IOStatus Read(size_t n, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) override {
    return guarded([&] {
      const Status status = source_.read(at_, n, result, scratch);
      if (status) at_ += result->size();
      return status;
    });
  }
  IOStatus Skip(uint64_t n) override {
    at_ += n;
    return IOStatus::OK();
  }

 private:
  const Source source_;
  uint64_t at_ = 0;
};

class RandomAccessFile : public rocksdb::FSRandomAccessFile {
 public:
  explicit RandomAccessFile(std::shared_ptr<IndexFile> file) : source_(std::move(file)) {}
  IOStatus Read(uint64_t offset, size_t n, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) const override {
    return guarded([&] { return source_.read(offset, n, result, scratch); });
  }

 private:
  const Source source_;
};

class BlockFile : public rocksdb::FSWritableFile {
 public:
  BlockFile(FileContext& context, std::shared_ptr<IndexFile> file)
      : writer_(context, std::move(file)) {}
  using FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    return guarded([&] { return writer_.append({data.data(), data.size()}); });
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override {
    return guarded([&] { return writer_.sync(); });
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override {
    return guarded([&] { return writer_.writeOut(); });
  }
  uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return writer_.size(); }

 private:
  BlockWriter writer_;
};

class MemoryFile : public rocksdb::FSWritableFile {
 public:
  explicit MemoryFile(std::shared_ptr<IndexFile> file) : file_(std::move(file)) {}
  using FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    return guarded([&] {
      file_->appendMemory({data.data(), data.size()});
      return Status::ok();
    });
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override {
    return guarded([&] { return file_->syncInline(); });
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return file_->size(); }

 private:
  const std::shared_ptr<IndexFile> file_;
};

class Directory : public rocksdb::FSDirectory {
 public:
  explicit Directory(std::function<Status()> fsync) : fsync_(std::move(fsync)) {}
  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    return guarded([&] { return fsync_(); });
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

 private:
  const std::function<Status()> fsync_;
};

}  // namespace

std::unique_ptr<rocksdb::FSSequentialFile> openSequential(std::shared_ptr<IndexFile> file) {
  return std::make_unique<SequentialFile>(std::move(file));
}

std::unique_ptr<rocksdb::FSRandomAccessFile> openRandomAccess(std::shared_ptr<IndexFile> file) {
  return std::make_unique<RandomAccessFile>(std::move(file));
}

std::unique_ptr<rocksdb::FSWritableFile> openWritable(FileContext& context,
                                                      std::shared_ptr<IndexFile> file) {
  if (file->kind() == FileKind::Blocks) {
    return std::make_unique<BlockFile>(context, std::move(file));
  }
  return std::make_unique<MemoryFile>(std::move(file));
}

std::unique_ptr<rocksdb::FSDirectory> openDirectory(std::function<Status()> fsync) {
  return std::make_unique<Directory>(std::move(fsync));
}

}  // namespace ourfs
