#include "index/salvage.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "common/checksum.h"
#include "common/codec.h"
#include "file_table.h"
#include "index_file.h"
#include "position.h"
#include "raw_table.h"

namespace ourfs {

namespace {

constexpr size_t kArenaPiece = 1u << 20;

// "000123.sst" is table 123.
std::optional<uint64_t> tableNumber(std::string_view name) {
  if (!name.ends_with(".sst")) return {};
  name.remove_suffix(4);
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size()) return {};
  return number;
}

Result<std::string> readExactly(const FileReader& file, uint64_t offset, uint64_t length) {
  std::string bytes(length, '\0');
  TRY_ASSIGN(const size_t got, file.read(offset, length, bytes.data()));
  if (got != length) return Status::corrupt("index: a file is too short");
  return bytes;
}

// The files of one file table.
class SalvagedFiles {
 public:
  SalvagedFiles(BlockDevice& device, const IndexGeometry& geometry, FileTable& table,
                ChunkPool& pool)
      : context_{device, geometry, table, pool, {}, {}}, files_(table.files()) {}

  const std::vector<TableFile>& all() const { return files_; }
  FileReader reader(const TableFile& file) { return FileReader(context_, file); }

  // The tables that were in use, by the MANIFEST that CURRENT names.
  Result<std::set<uint64_t>> inUse() {
    const TableFile* current = find("CURRENT");
    if (current == nullptr || !current->isInline) return Status::corrupt("CURRENT is missing");
    const std::string name = current->bytes.substr(0, current->bytes.find('\n'));
    const TableFile* manifest = find(name);
    if (manifest == nullptr || manifest->isInline || !name.starts_with("MANIFEST-"))
      return Status::corrupt("the MANIFEST is missing");
    const FileReader file = reader(*manifest);
    TRY_ASSIGN(const std::string bytes, readExactly(file, 0, file.size()));
    return tablesOfManifest(bytes);
  }

 private:
  const TableFile* find(std::string_view name) const {
    const auto it = std::ranges::find(files_, name, &TableFile::name);
    return it == files_.end() ? nullptr : &*it;
  }

  FileContext context_;
  const std::vector<TableFile> files_;
};

}  // namespace

Result<IndexGeometry> IndexSalvage::findGeometry(BlockDevice& device, const IndexGeometry& guess) {
  return FileTable::findGeometry(device, guess);
}

Result<std::unique_ptr<IndexSalvage>> IndexSalvage::read(
    BlockDevice& device, const IndexGeometry& geometry, const Note& note,
    const std::function<void(ByteCount done, ByteCount total)>& progress) {
  std::unique_ptr<IndexSalvage> keys(new IndexSalvage());
  const auto missing = [&](const std::string& what) {
    keys->complete_ = false;
    note("index: " + what);
  };
  TRY_ASSIGN(const auto table, FileTable::loadForSalvage(device, geometry, missing));
  TRY_ASSIGN(const auto pool, ChunkPool::build({}, {}));
  keys->owned_ = table->pool();
  SalvagedFiles files(device, geometry, *table, *pool);
  auto inUse = files.inUse();
  if (!inUse) missing(inUse.status().message() + ": what had been removed last may be back");

  constexpr uint64_t kPartitionedFrom = 4 * MiB;  // as tuning.cc has it
  const bool partitioned = geometry.writeBuffer().v >= kPartitionedFrom;
  uint64_t done = 0, total = 0;
  for (const TableFile& file : files.all()) total += file.size();
  for (const TableFile& file : files.all()) {
    done += file.size();
    const auto number = tableNumber(file.name);
    if (!number || file.isInline || (inUse && inUse->erase(*number) == 0)) continue;
    const FileReader reader = files.reader(file);
    const ReadBytes readBytes = [&](uint64_t offset, uint64_t length) {
      return readExactly(reader, offset, length);
    };
    const auto lost = [&](const Status& why) { missing(file.name + ": " + why.message()); };
    const Status read = readRawTable(
        reader.size(), partitioned, readBytes,
        {[&](const RawEntry& e) { keys->add(e.key, e.value, e.sequence, e.isPut); }, lost});
    if (!read) lost(read.withContext("all of it is lost"));
    progress(ByteCount(done), ByteCount(total));
  }
  if (inUse) {
    for (uint64_t number : *inUse) missing("table " + std::to_string(number) + " is missing");
  }
  keys->settle();
  return keys;
}

void IndexSalvage::add(std::string_view key, std::string_view value, uint64_t sequence,
                       bool isPut) {
  const size_t size = key.size() + value.size();
  if (size > arenaLeft_) {
    arenaLeft_ = std::max(kArenaPiece, size);
    arena_.push_back(std::make_unique<char[]>(arenaLeft_));
    arenaNext_ = arena_.back().get();
  }
  std::memcpy(arenaNext_, key.data(), key.size());
  if (!value.empty()) std::memcpy(arenaNext_ + key.size(), value.data(), value.size());
  entries_.push_back({arenaNext_, static_cast<uint32_t>(key.size()),
                      static_cast<uint32_t>(value.size()), sequence * 2 + (isPut ? 1 : 0)});
  arenaNext_ += size;
  arenaLeft_ -= size;
  nextSequence_ = std::max(nextSequence_, sequence + 1);
}

void IndexSalvage::apply(const IndexBatch& batch) {
  for (const IndexBatch::Change& change : batch.changes())
    add(change.key, change.value, nextSequence_, change.isPut);
}

void IndexSalvage::settle() {
  std::ranges::sort(entries_, [](const Entry& a, const Entry& b) {
    const int order = a.key().compare(b.key());
    return order != 0 ? order < 0 : a.order > b.order;
  });
  std::string_view last;
  bool any = false;
  std::erase_if(entries_, [&](const Entry& e) {
    const bool older = any && e.key() == last;
    last = e.key();
    any = true;
    return older || e.order % 2 == 0;
  });
}

std::vector<IndexSalvage::Entry>::const_iterator IndexSalvage::lowerBound(
    std::string_view key) const {
  return std::ranges::lower_bound(entries_, key, {}, &Entry::key);
}

std::optional<std::string_view> IndexSalvage::get(std::string_view key) const {
  const auto it = lowerBound(key);
  if (it == entries_.end() || it->key() != key) return {};
  return it->value();
}

void IndexSalvage::scan(std::string_view prefix,
                        const std::function<bool(std::string_view, std::string_view)>& each) const {
  for (auto it = lowerBound(prefix); it != entries_.end() && it->key().starts_with(prefix); ++it) {
    if (!each(it->key(), it->value())) return;
  }
}

std::optional<AppliedPosition> IndexSalvage::persisted() const {
  const auto value = get(kLogPositionKey);
  if (!value) return {};
  const auto position = decodePosition(*value);
  return position ? std::optional(*position) : std::nullopt;
}

}  // namespace ourfs
