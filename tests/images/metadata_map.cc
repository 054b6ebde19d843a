#include "images/metadata_map.h"

#include <algorithm>
#include <cstring>

#include "../../index/src/file_table.h"
#include "../../index/src/raw_table.h"
#include "../../index/src/unit.h"
#include "common/codec.h"
#include "images/sparse_image.h"
#include "journal/format.h"

namespace ourfs::images {

namespace {

template <class T>
T structAt(BlockDevice& device, uint64_t at) {
  T value{};
  const std::string bytes = peek(device, at, sizeof(T));
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

// The header of record `lsn`, which may begin in front of the ring's end and go on at its start.
RecordHeader recordAt(BlockDevice& device, const Superblock& s, uint64_t lsn) {
  const uint64_t at = lsn % s.journalSize.v;
  const uint64_t first = std::min<uint64_t>(sizeof(RecordHeader), s.journalSize.v - at);
  const std::string bytes = peek(device, s.journalStart.v + at, first) +
                            peek(device, s.journalStart.v, sizeof(RecordHeader) - first);
  RecordHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  return header;
}

// Where the units of a file begin, in its order.
std::vector<uint64_t> unitsOf(const TableFile& file, const Superblock& s) {
  const uint64_t unitSize = unitSizeFor(s.blockSize);
  std::vector<uint64_t> starts;
  for (const BlockRun& run : file.runs) {
    const uint64_t start = run.start.v * s.blockSize;
    for (uint64_t done = 0; done < run.count.v * s.blockSize; done += unitSize) {
      if (starts.size() == file.units(unitSize)) return starts;
      starts.push_back(start + done);
    }
  }
  return starts;
}

// The MANIFEST that CURRENT names, then the tables that it names. Unset if they cannot be read.
std::optional<std::vector<TableFile>> filesInUse(BlockDevice& device, const Superblock& s,
                                                 const FileTable& table) {
  const std::vector<TableFile> all = table.files();
  const auto named = [&](const std::string& name) {
    return std::ranges::find(all, name, &TableFile::name);
  };
  const auto current = named("CURRENT");
  if (current == all.end()) return {};
  const auto manifest = named(current->bytes.substr(0, current->bytes.find('\n')));
  if (manifest == all.end()) return {};
  std::string bytes;
  for (const uint64_t at : unitsOf(*manifest, s)) {
    const auto header = structAt<UnitHeader>(device, at);
    bytes += peek(device, at + kUnitHeader, header.length);
  }
  const auto tables = tablesOfManifest(bytes);
  if (!tables) return {};
  std::vector<TableFile> files{*manifest};
  for (const uint64_t number : tables->inUse) {
    std::string digits = std::to_string(number);
    digits.insert(0, 6 - std::min<size_t>(6, digits.size()), '0');
    const auto file = named(digits + ".sst");
    if (file == all.end()) return {};
    files.push_back(*file);
  }
  return files;
}

}  // namespace

const char* partName(Part part) {
  static constexpr const char* kNames[kParts] = {"superblock",  "file table",    "file table's end",
                                                 "journal",     "journal's end", "index",
                                                 "no live byte"};
  return kNames[static_cast<size_t>(part)];
}

std::optional<MetadataMap> MetadataMap::of(BlockDevice& device, const LogRange& log) {
  const auto s = SuperblockStore(device).load();
  if (!s.isOk()) return {};
  const IndexGeometry geometry = indexGeometry(*s);
  const auto table = FileTable::load(device, geometry, true);
  if (!table.isOk()) return {};

  MetadataMap map;
  for (const uint64_t at : {kSuperblockSlotA, kSuperblockSlotB}) {
    map.live_.push_back({at, at + kSuperblockSize, Part::Superblock});
  }
  uint64_t sequences[2] = {};
  for (const unsigned slot : {0u, 1u}) {
    const auto header = structAt<SlotHeader>(device, s->tableStart.v + slot * s->tableSlotSize.v);
    sequences[slot] = header.magic == kSlotMagic ? header.sequence : 0;
  }
  map.addTable(device, *s, sequences[1] > sequences[0] ? 1 : 0);
  if (!map.addJournal(device, *s, log)) return {};
  const auto files = filesInUse(device, *s, **table);
  if (!files) return {};
  map.manifest_ = unitsOf(files->front(), *s);
  for (const TableFile& file : *files) {
    for (const uint64_t at : unitsOf(file, *s)) {
      map.live_.push_back({at, at + unitSizeFor(s->blockSize), Part::Index});
    }
  }
  std::ranges::sort(map.live_, {}, &Piece::start);

  map.regions_.push_back({0, s->dataStart.v, Part::Dead});
  for (const BlockRun& run : (*table)->pool()) {
    const uint64_t start = run.start.v * s->blockSize;
    map.regions_.push_back({start, start + run.count.v * s->blockSize, Part::Dead});
  }
  return map;
}

void MetadataMap::addTable(BlockDevice& device, const Superblock& s, unsigned slot) {
  const uint64_t start = s.tableStart.v + slot * s.tableSlotSize.v;
  const auto header = structAt<SlotHeader>(device, start);
  live_.push_back({start, start + sizeof header + header.bodyLength, Part::Table});
  uint64_t at = roundUp(live_.back().end, kTableSector);
  uint32_t previous = header.crc;
  while (at < start + s.tableSlotSize.v) {
    const auto delta = structAt<DeltaHeader>(device, at);
    if (delta.magic != kDeltaMagic || delta.sequence != header.sequence ||
        delta.previous != previous) {
      break;
    }
    live_.push_back({at, at + sizeof delta + delta.length, Part::Table});
    previous = delta.crc;
    at = roundUp(live_.back().end, kTableSector);
  }
  if (previous != header.crc) live_.back().part = Part::TableEnd;
}

// Everything that ends at or below the highest durable position that a record names is proved.
bool MetadataMap::addJournal(BlockDevice& device, const Superblock& s, const LogRange& log) {
  struct Record {
    uint64_t lsn, length;
  };
  std::vector<Record> records;
  uint64_t proved = 0;
  for (uint64_t lsn = log.tail; lsn < log.end;) {
    RecordHeader header = recordAt(device, s, lsn);
    if (header.magic != kRecordMagic || header.lsn != lsn) {
      if (isAligned(lsn, s.journalSector)) return false;
      lsn = roundUp(lsn, s.journalSector);
      continue;
    }
    records.push_back({lsn, sizeof header + header.payloadLength});
    proved = std::max(proved, header.durableLsn);
    lsn = roundUp(lsn + records.back().length, kRecordAlignment);
  }
  for (const Record& r : records) {
    const bool live = roundUp(r.lsn + r.length, kRecordAlignment) <= proved;
    addRing(s, r.lsn, r.length, live ? Part::Journal : Part::LogEnd);
  }
  return true;
}

void MetadataMap::addRing(const Superblock& s, uint64_t lsn, uint64_t length, Part part) {
  const uint64_t at = lsn % s.journalSize.v, start = s.journalStart.v + at;
  const uint64_t first = std::min(length, s.journalSize.v - at);
  live_.push_back({start, start + first, part});
  if (first < length) {
    live_.push_back({s.journalStart.v, s.journalStart.v + length - first, part});
  }
}

Part MetadataMap::partAt(uint64_t byte) const {
  auto it = std::ranges::upper_bound(live_, byte, {}, &Piece::start);
  if (it == live_.begin()) return Part::Dead;
  --it;
  return byte < it->end ? it->part : Part::Dead;
}

}  // namespace ourfs::images
