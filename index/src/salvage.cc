#include "index/salvage.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "common/checksum.h"
#include "common/codec.h"
#include "common/sync_point.h"
#include "file_table.h"
#include "index_file.h"
#include "lost_table.h"
#include "position.h"
#include "raw_table.h"

namespace ourfs {

namespace {

constexpr size_t kArenaPiece = 1u << 20;

// "000123.sst" is table 123. No table of RocksDB is number 0: "0-7.sst" has lost its number.
std::optional<uint64_t> tableNumber(std::string_view name) {
  if (!name.ends_with(".sst")) return {};
  name.remove_suffix(4);
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc()) return {};
  const bool whole = end == name.data() + name.size();
  return whole || (number == 0 && *end == '-') ? std::optional(number) : std::nullopt;
}

struct NumberedFile {
  uint64_t number;
  TableFile file;
};

// A file table, as it was or found again.
struct SalvagedTable {
  std::unique_ptr<FileTable> table;
  IndexGeometry geometry;             // the table's
  std::optional<DeviceOffset> start;  // found again: of the first unit
};

Result<SalvagedTable> tableOf(
    BlockDevice& device, const IndexGeometry& geometry, const IndexSalvage::Note& missing,
    const std::function<void(ByteCount done, ByteCount total)>& progress) {
  auto known = FileTable::loadForSalvage(device, geometry, missing);
  if (known) return SalvagedTable{std::move(*known), geometry, {}};
  auto found = findLostTable(device, geometry, missing, progress);
  if (!found) return found.status().withContext("the index file table is lost");
  missing("the file table is lost: its files were found on the device by their marks");
  return SalvagedTable{std::move(found->table), found->geometry, found->start};
}

// The files of one file table.
class SalvagedFiles {
 public:
  SalvagedFiles(BlockDevice& device, const IndexGeometry& geometry, FileTable& table,
                ChunkPool& pool)
      : context_{device, geometry, table, pool, {}, {}}, files_(table.files()) {}

  std::vector<NumberedFile> tables() const {  // in order
    std::vector<NumberedFile> tables;
    for (const TableFile& file : files_) {
      const auto number = tableNumber(file.name);
      if (number && !file.isInline) tables.push_back({*number, file});
    }
    std::ranges::sort(tables, {}, &NumberedFile::number);
    return tables;
  }
  FileReader reader(const TableFile& file) { return FileReader(context_, file); }

  // The tables that were in use, by the MANIFEST that CURRENT names.
  Result<ManifestTables> inUse() {
    const TableFile* current = find("CURRENT");
    if (current == nullptr || !current->isInline) return Status::corrupt("CURRENT is missing");
    const TableFile* file = manifest();
    if (file == nullptr) return Status::corrupt("the MANIFEST is missing");
    const FileReader bytes = reader(*file);
    TRY_ASSIGN(const std::string all, bytes.readExactly(0, bytes.size()));
    return tablesOfManifest(all);
  }
  std::optional<uint64_t> manifestId() const {
    const TableFile* file = manifest();
    return file == nullptr ? std::nullopt : std::optional(file->id);
  }

 private:
  const TableFile* manifest() const {
    const TableFile* current = find("CURRENT");
    if (current == nullptr || !current->isInline) return nullptr;
    const std::string name = current->bytes.substr(0, current->bytes.find('\n'));
    const TableFile* file = find(name);
    return file != nullptr && !file->isInline && name.starts_with("MANIFEST-") ? file : nullptr;
  }
  const TableFile* find(std::string_view name) const {
    const auto it = std::ranges::find(files_, name, &TableFile::name);
    return it == files_.end() ? nullptr : &*it;
  }

  FileContext context_;
  const std::vector<TableFile> files_;
};

// Which tables count, by the MANIFEST if there is one.
class TableChoice {
 public:
  // `found`: the number of the MANIFEST's file, if it may be an older one.
  TableChoice(const std::vector<NumberedFile>& tables, Result<ManifestTables> manifest,
              std::optional<uint64_t> found)
      : all_(!manifest) {
    if (all_) return;
    named_ = manifest->inUse;
    missing_ = named_;
    for (const NumberedFile& table : tables) missing_.erase(table.number);
    if (!found || mutantEnabled("salvage.manifest_is_last")) return;
    newer_ = manifest->nextNumber;
    newerFile_ = mutantEnabled("salvage.orphans_count") ? 0 : *found;
    anyNewer_ =
        std::ranges::any_of(tables, [&](const NumberedFile& table) { return isNewer(table); });
  }
  bool counts(const NumberedFile& table) const {
    if (table.number == 0) return all_ || !missing_.empty();  // it may be one of these
    return all_ || named_.contains(table.number) || isNewer(table);
  }
  bool anyNewer() const { return anyNewer_; }
  const std::set<uint64_t>& missing() const { return missing_; }
  // Tables count that were not in use.
  bool loose() const { return all_ || anyNewer_; }

 private:
  // What came after an older MANIFEST is in newer tables. A table that a crashed mount had not put
  // into use has a number that is given again; its file is older than the next mount's MANIFEST.
  bool isNewer(const NumberedFile& table) const {
    return table.number >= newer_ && table.file.id > newerFile_;
  }

  const bool all_;
  bool anyNewer_ = false;
  uint64_t newer_ = UINT64_MAX, newerFile_ = UINT64_MAX;
  std::set<uint64_t> named_, missing_;
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
  TRY_ASSIGN(const SalvagedTable source, tableOf(device, geometry, missing, progress));
  TRY_ASSIGN(const auto pool, ChunkPool::build({}, {}));
  keys->foundAt_ = source.start;
  if (!source.start) keys->owned_ = source.table->pool();
  SalvagedFiles files(device, source.geometry, *source.table, *pool);
  const auto inUse = files.inUse();
  const std::vector<NumberedFile> tables = files.tables();
  const TableChoice choice(tables, inUse, source.start ? files.manifestId() : std::nullopt);
  const std::string before =
      ": what had been removed last may be back, and what was changed last as it was before";
  if (!inUse) missing(inUse.status().message() + before);
  if (choice.anyNewer()) missing("there are tables that no MANIFEST names" + before);

  constexpr uint64_t kPartitionedFrom = 4 * MiB;  // as tuning.cc has it
  const bool partitioned = geometry.writeBuffer().v >= kPartitionedFrom;
  uint64_t done = 0, total = 0;
  for (const NumberedFile& table : tables) total += table.file.size();
  for (const NumberedFile& table : tables) {
    const TableFile& file = table.file;
    done += file.size();
    if (!choice.counts(table)) continue;
    const FileReader reader = files.reader(file);
    const ReadBytes readBytes = [&](uint64_t offset, uint64_t length) {
      return reader.readExactly(offset, length);
    };
    const auto lost = [&](const Status& why) { missing(file.name + ": " + why.message()); };
    if (choice.loose()) keys->rankNextTable();
    const Status read = readRawTable(
        reader.size(), partitioned, readBytes,
        {[&](const RawEntry& e) { keys->add(e.key, e.value, e.sequence, e.isPut); }, lost});
    if (!read) lost(read.withContext("all of it is lost"));
    progress(ByteCount(done), ByteCount(total));
  }
  for (uint64_t number : choice.missing())
    missing("table " + std::to_string(number) + " is missing");
  keys->settle();
  return keys;
}

// A compaction into the last level writes 0 for the sequence numbers: of tables that are all in
// use, nothing is older. It is not so for the tables from which it was made.
void IndexSalvage::rankNextTable() {
  if (mutantEnabled("salvage.zeros_are_oldest")) return;
  const uint64_t highest = nextSequence_ == 0 ? 0 : nextSequence_ - 1;
  constexpr uint64_t kMostRanks = 127;
  const uint64_t rank = highest << 8 == (zeroOrder_ & ~uint64_t{255}) ? (zeroOrder_ & 255) >> 1 : 0;
  zeroOrder_ = highest << 8 | std::min(rank + 1, kMostRanks) << 1;
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
  const uint64_t order = sequence == 0 ? zeroOrder_ : sequence << 8;
  entries_.push_back({arenaNext_, static_cast<uint32_t>(key.size()),
                      static_cast<uint32_t>(value.size()), order | (isPut ? 1 : 0)});
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
