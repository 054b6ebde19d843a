#include "raw_table.h"

#include <lz4.h>

#include "common/codec.h"
#include "varint.h"

namespace ourfs {

namespace {

constexpr uint64_t kTableFooter = 53;  // checksum type, two handles, padding, version, magic
constexpr uint64_t kTableMagic = 0x88e241b785f4cff7;
constexpr uint64_t kBlockTrailer = 5;           // compression type and checksum, behind each block
constexpr uint64_t kLargestBlock = 256u << 20;  // far above what RocksDB writes
constexpr uint8_t kUncompressed = 0, kLz4 = 4;
constexpr uint8_t kDeletionKind = 0, kPutKind = 1, kSingleDeletionKind = 7;
constexpr uint32_t kTwoLevels = 2;

Status badBlock(const std::string& what) { return Status::corrupt("a block of a table: " + what); }

struct BlockHandle {
  uint64_t offset = 0, size = 0;
};

bool getBlockHandle(Decoder& d, BlockHandle* handle) {
  return getVarint(d, &handle->offset) && getVarint(d, &handle->size);
}

// What the properties of a table say of its index, and its number.
struct RawIndexForm {
  bool twoLevels = false;
  bool deltas = true;  // values have no length, and may be differences
  std::optional<uint64_t> number;
};

// The entries of a block, whose restart points are left out.
Result<std::string_view> entriesOf(std::string_view block) {
  if (block.size() < sizeof(uint32_t)) return badBlock("too short");
  const uint32_t restarts = Decoder(block.substr(block.size() - sizeof(uint32_t))).u32();
  // The highest bit would announce a hash index, which our tables do not have.
  if (restarts > block.size() / sizeof(uint32_t) - 1)
    return badBlock("wrong number of restart points");
  return block.substr(0, block.size() - sizeof(uint32_t) * (uint64_t{restarts} + 1));
}

// Keys are stored as what differs from the key before.
class RawKeyReader {
 public:
  // False if it cannot be read. `shared`: bytes that are those of the key before.
  bool next(Decoder& d, uint64_t shared, uint64_t rest) {
    if (shared > key_.size() || rest > d.remaining()) return false;
    key_.resize(shared);
    key_.append(d.bytes(rest));
    return true;
  }
  const std::string& key() const { return key_; }

 private:
  std::string key_;
};

Status forEachEntry(std::string_view block,
                    const std::function<Status(std::string_view, std::string_view)>& each) {
  TRY_ASSIGN(const std::string_view entries, entriesOf(block));
  Decoder d(entries);
  RawKeyReader reader;
  while (!d.atEnd()) {
    uint64_t shared = 0, rest = 0, length = 0;
    if (!getVarint(d, &shared) || !getVarint(d, &rest) || !getVarint(d, &length) ||
        !reader.next(d, shared, rest) || length > d.remaining())
      return badBlock("an entry ends behind it");
    TRY(each(reader.key(), d.bytes(length)));
  }
  return Status::ok();
}

Status forEachHandle(std::string_view block, const RawIndexForm& form,
                     const std::function<void(const BlockHandle&)>& each) {
  if (!form.deltas) {
    return forEachEntry(block, [&](std::string_view, std::string_view value) -> Status {
      Decoder d(value);
      BlockHandle handle;
      if (!getBlockHandle(d, &handle)) return badBlock("no place of a block");
      each(handle);
      return Status::ok();
    });
  }
  TRY_ASSIGN(const std::string_view entries, entriesOf(block));
  Decoder d(entries);
  RawKeyReader reader;
  BlockHandle handle;
  while (!d.atEnd()) {
    uint64_t shared = 0, rest = 0, change = 0;
    if (!getVarint(d, &shared) || !getVarint(d, &rest) || !reader.next(d, shared, rest))
      return badBlock("an entry ends behind it");
    if (shared == 0) {
      if (!getBlockHandle(d, &handle)) return badBlock("no place of a block");
    } else {
      if (!getVarint(d, &change)) return badBlock("no place of a block");
      handle.offset += handle.size + kBlockTrailer;
      handle.size += static_cast<uint64_t>(unzigzag(change));
    }
    each(handle);
  }
  return Status::ok();
}

class RawTableReader {
 public:
  RawTableReader(uint64_t size, const ReadBytes& read, const RawTableCallbacks& callbacks)
      : size_(size), read_(read), callbacks_(callbacks) {}

  Status run(bool partitioned) {
    TRY(readFooter());
    RawIndexForm form, told;
    form.twoLevels = partitioned;
    if (const Status known = readProperties(told); known)
      form = told;
    else
      callbacks_.damaged(known);
    TRY_ASSIGN(const std::string block, blockAt(index_));
    return forEachHandle(block, form, [&](const BlockHandle& handle) {
      const Status done = form.twoLevels ? readPartition(handle, form) : readData(handle);
      if (!done) callbacks_.damaged(done);
    });
  }

  Result<std::optional<uint64_t>> number() {
    TRY(readFooter());
    RawIndexForm form;
    const Status known = readProperties(form);
    return known ? form.number : std::nullopt;
  }

 private:
  Status readFooter() {
    if (size_ < kTableFooter) return badBlock("no footer");
    TRY_ASSIGN(const std::string footer, read_(size_ - kTableFooter, kTableFooter));
    if (Decoder(std::string_view(footer).substr(kTableFooter - sizeof(uint64_t))).u64() !=
        kTableMagic)
      return badBlock("no footer");
    Decoder d(std::string_view(footer).substr(1));
    if (!getBlockHandle(d, &meta_) || !getBlockHandle(d, &index_)) return badBlock("no footer");
    return Status::ok();
  }

  Result<std::string> blockAt(const BlockHandle& handle) {
    if (handle.size > kLargestBlock || handle.offset > size_ ||
        size_ - handle.offset < kBlockTrailer ||
        handle.size > size_ - handle.offset - kBlockTrailer)
      return badBlock("it lies outside of its file");
    TRY_ASSIGN(std::string bytes, read_(handle.offset, handle.size + 1));
    const auto compression = static_cast<uint8_t>(bytes.back());
    bytes.pop_back();
    if (compression == kUncompressed) return bytes;
    if (compression != kLz4) return badBlock("unknown compression");
    Decoder d(bytes);
    uint64_t size = 0;
    if (!getVarint(d, &size, kLargestBlock)) return badBlock("no size");
    return lz4Decode(d.bytes(d.remaining()), size);
  }

  Status readProperties(RawIndexForm& form) {
    TRY_ASSIGN(const std::string directory, blockAt(meta_));
    std::optional<BlockHandle> place;
    TRY(forEachEntry(directory, [&](std::string_view name, std::string_view value) {
      Decoder d(value);
      BlockHandle handle;
      if (name == "rocksdb.properties" && getBlockHandle(d, &handle)) place = handle;
      return Status::ok();
    }));
    if (!place) return badBlock("no properties");
    TRY_ASSIGN(const std::string properties, blockAt(*place));
    form.deltas = false;
    return forEachEntry(properties, [&](std::string_view name, std::string_view value) {
      Decoder d(value);
      uint64_t number = 0;
      if (name == "rocksdb.block.based.table.index.type")
        form.twoLevels = d.u32() == kTwoLevels;
      else if (name == "rocksdb.index.value.is.delta.encoded")
        form.deltas = getVarint(d, &number) && number != 0;
      else if (name == "rocksdb.original.file.number" && getVarint(d, &number))
        form.number = number;
      return Status::ok();
    });
  }

  Status readPartition(const BlockHandle& place, const RawIndexForm& form) {
    TRY_ASSIGN(const std::string block, blockAt(place));
    return forEachHandle(block, form, [&](const BlockHandle& handle) {
      if (const Status done = readData(handle); !done) callbacks_.damaged(done);
    });
  }

  Status readData(const BlockHandle& place) {
    TRY_ASSIGN(const std::string block, blockAt(place));
    return forEachEntry(block, [&](std::string_view key, std::string_view value) -> Status {
      if (key.size() < sizeof(uint64_t)) return badBlock("a key is too short");
      const uint64_t tag = Decoder(key.substr(key.size() - sizeof(uint64_t))).u64();
      const auto kind = static_cast<uint8_t>(tag);
      if (kind != kPutKind && kind != kDeletionKind && kind != kSingleDeletionKind)
        return badBlock("an entry of an unknown kind");
      RawEntry entry;
      entry.key = key.substr(0, key.size() - sizeof(uint64_t));
      entry.value = value;
      entry.sequence = tag >> 8;
      entry.isPut = kind == kPutKind;
      callbacks_.entry(entry);
      return Status::ok();
    });
  }

  const uint64_t size_;
  const ReadBytes& read_;
  const RawTableCallbacks& callbacks_;
  BlockHandle meta_, index_;  // readFooter() sets them
};

}  // namespace

Status readRawTable(uint64_t size, bool partitioned, const ReadBytes& read,
                    const RawTableCallbacks& callbacks) {
  return RawTableReader(size, read, callbacks).run(partitioned);
}

Result<std::optional<uint64_t>> numberOfRawTable(uint64_t size, const ReadBytes& read) {
  const RawTableCallbacks nobody;
  return RawTableReader(size, read, nobody).number();
}

Result<std::string> lz4Decode(std::string_view in, size_t size) {
  constexpr size_t kBestRatio = 255;
  if (in.size() > LZ4_MAX_INPUT_SIZE || size > LZ4_MAX_INPUT_SIZE || size / kBestRatio > in.size())
    return badBlock("more than LZ4 can hold");
  std::string out(size, '\0');
  const int decoded = LZ4_decompress_safe(in.data(), out.data(), static_cast<int>(in.size()),
                                          static_cast<int>(size));
  if (decoded < 0 || static_cast<size_t>(decoded) != size) return badBlock("no LZ4");
  return out;
}

}  // namespace ourfs
