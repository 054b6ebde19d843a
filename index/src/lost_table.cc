#include "lost_table.h"

#include <algorithm>
#include <set>
#include <span>

#include "index_file.h"
#include "lost_units.h"
#include "raw_table.h"
#include "table_codec.h"

namespace ourfs {

namespace {

// A MANIFEST begins with the name of the order of its keys.
constexpr std::string_view kOrderOfKeys = "leveldb.BytewiseComparator";
// Of a file, so many of its units may be missing for each one that is there.
constexpr uint64_t kMostMissing = 16;

// `units`: of one file, in order. Nothing if too little of it is left.
std::optional<TableFile> fileOf(std::span<const LostUnit> units, uint64_t payload) {
  const uint64_t count = uint64_t{units.back().claim.number} + 1;
  if (count / (kMostMissing + 1) > units.size()) return {};
  TableFile file;
  file.id = units.front().claim.fileId;
  uint64_t segment = 0;
  auto next = units.begin();
  for (uint64_t number = 0; number < count; ++number) {
    const bool there = next->claim.number == number;
    // Another unit of the file is never the one that is missing: reading it fails.
    const LostUnit& unit = there ? *next : units.back();
    const uint64_t length = there ? unit.claim.length : payload;
    appendRun(file.runs, {BlockNo(unit.place), BlockCount(1)});
    segment += length;
    if (length == payload && number + 1 < count) {
      if (there) ++next;
      continue;
    }
    file.segments.push_back(segment);
    segment = 0;
    if (there) ++next;
  }
  return file;
}

std::vector<TableFile> filesOf(const std::vector<LostUnit>& units, uint64_t payload) {
  std::vector<TableFile> files;
  for (auto from = units.begin(); from != units.end();) {
    const auto to = std::find_if(
        from, units.end(), [&](const LostUnit& u) { return u.claim.fileId != from->claim.fileId; });
    if (auto file = fileOf({from, to}, payload)) files.push_back(std::move(*file));
    from = to;
  }
  return files;
}

// Gives back their names to the files that still show what they are.
class LostNames {
 public:
  LostNames(FileContext& context, std::vector<TableFile>& files)
      : context_(context), files_(files) {}

  // The number of the MANIFEST's file that counts, if there is one.
  std::optional<uint64_t> run() {
    std::ranges::sort(files_, std::ranges::greater(), &TableFile::id);
    for (TableFile& file : files_) nameTable(file);
    for (TableFile& file : files_) {
      if (!file.name.empty() || !isManifest(file)) continue;
      file.name = "MANIFEST-" + std::to_string(file.id);
      return file.id;
    }
    return {};
  }

 private:
  void nameTable(TableFile& file) {
    const FileReader reader(context_, file);
    const auto number = numberOfRawTable(reader.size(), [&](uint64_t offset, uint64_t length) {
      return reader.readExactly(offset, length);
    });
    if (!number) return;
    if (!number->has_value()) file.name = "0-" + std::to_string(file.id) + ".sst";
    // A mount that crashed may have given the number before, to a file that was never in use.
    else if (numbers_.insert(**number).second)
      file.name = std::to_string(**number) + ".sst";
  }

  bool isManifest(const TableFile& file) const {
    const FileReader reader(context_, file);
    const uint64_t head = std::min(reader.size(), file.segments.front());
    const auto begins = reader.readExactly(0, std::min(head, context_.payload()));
    if (!begins || begins->find(kOrderOfKeys) == std::string::npos) return false;
    const auto bytes = reader.readExactly(0, reader.size());
    if (!bytes) return false;  // the newest may be damaged; an older one says less
    return tablesOfManifest(*bytes).isOk();
  }

  FileContext& context_;
  std::vector<TableFile>& files_;
  std::set<uint64_t> numbers_;
};

Result<TableState> stateOf(const IndexGeometry& geometry, const std::vector<TableFile>& files,
                           std::optional<uint64_t> manifest) {
  TableState state(geometry);
  std::set<uint64_t> places, ids;
  for (const TableFile& file : files) {
    ids.insert(file.id);
    for (const BlockRun& run : file.runs) {
      for (uint64_t i = 0; i < run.count.v; ++i) places.insert(run.start.v + i);
    }
  }
  std::vector<BlockRun> pool;
  for (uint64_t place : places) appendRun(pool, {BlockNo(place), BlockCount(1)});
  std::string ops;
  for (const BlockRun& run : pool) TRY(state.addPool(ops, run));
  for (const TableFile& file : files) {
    ops.clear();
    TRY(state.create(ops, file.id, file.name));
    for (size_t i = 0; i < file.segments.size(); ++i)
      TRY(state.append(ops, file.id, file.segments[i],
                       i == 0 ? file.runs : std::vector<BlockRun>()));
  }
  if (!manifest) return state;
  uint64_t free = 1;
  while (ids.contains(free)) ++free;
  TRY(state.setInline(ops, free, "CURRENT", "MANIFEST-" + std::to_string(*manifest) + "\n"));
  return state;
}

}  // namespace

Result<LostTable> findLostTable(
    BlockDevice& device, const IndexGeometry& geometry,
    const std::function<void(const std::string&)>& note,
    const std::function<void(ByteCount done, ByteCount total)>& progress) {
  LostTable lost;
  lost.geometry = geometry;
  lost.geometry.blockSize = static_cast<uint32_t>(unitSizeFor(geometry.blockSize));
  TRY_ASSIGN(const LostUnits found, findLostUnits(device, lost.geometry, note, progress));
  lost.start = DeviceOffset(found.firstPlace * lost.geometry.blockSize);

  const auto nameless =
      FileTable::ofFound(device, lost.geometry, found.seed, TableState(lost.geometry));
  TRY_ASSIGN(const auto pool, ChunkPool::build({}, {}));
  FileContext context{device, lost.geometry, *nameless, *pool, {}, {}};
  std::vector<TableFile> files = filesOf(found.units, context.payload());
  const auto manifest = LostNames(context, files).run();
  std::erase_if(files, [](const TableFile& file) { return file.name.empty(); });
  TRY_ASSIGN(TableState state, stateOf(lost.geometry, files, manifest));
  lost.table = FileTable::ofFound(device, lost.geometry, found.seed, std::move(state));
  return lost;
}

}  // namespace ourfs
