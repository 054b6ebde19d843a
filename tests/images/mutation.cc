#include "images/mutation.h"

#include <algorithm>
#include <cstring>

#include "../../index/src/file_table.h"
#include "../../index/src/unit.h"
#include "../../journal/src/record.h"
#include "common/checksum.h"
#include "common/codec.h"
#include "images/sparse_image.h"

namespace ourfs::images {

namespace {

using Random = std::mt19937_64;

uint64_t below(Random& random, uint64_t n) { return n == 0 ? 0 : random() % n; }

// Numbers at which something ends, or near one that is there.
uint64_t oddNumber(Random& random, uint64_t now) {
  static constexpr uint64_t kEdges[] = {0,          1,          2,          63,         4095,
                                        4096,       8192,       65535,      1u << 20,   INT32_MAX,
                                        1ull << 31, UINT32_MAX, 1ull << 53, 1ull << 62, INT64_MAX,
                                        1ull << 63, UINT64_MAX};
  switch (below(random, 4)) {
    case 0:
      return now + 1;
    case 1:
      return now - 1;
    case 2:
      return now ^ (1ull << below(random, 64));
    default:
      return kEdges[below(random, std::size(kEdges))];
  }
}

void spoilBytes(std::string& bytes, Random& random) {
  for (uint64_t n = 1 + below(random, 4); n > 0; --n) {
    const size_t at = below(random, bytes.size() + 1);
    switch (below(random, 4)) {
      case 0:
        bytes.insert(at, 1 + below(random, 9), static_cast<char>(random()));
        break;
      case 1:
        bytes.erase(at, 1 + below(random, 9));
        break;
      default:
        if (at < bytes.size()) bytes[at] = static_cast<char>(random());
    }
  }
}

// Changes bytes in place.
void spoilInPlace(std::string& bytes, Random& random) {
  for (uint64_t n = 1 + below(random, 4); n > 0 && !bytes.empty(); --n) {
    bytes[below(random, bytes.size())] = static_cast<char>(random());
  }
}

// ---- superblock ----

struct Field {
  size_t at, size;
};
// docs/format.md, section 2: all but the checksum, and some of the bytes behind.
constexpr Field kFields[] = {{0, 8},   {20, 4},  {24, 8},  {32, 8},  {40, 8},  {48, 8},  {56, 8},
                             {64, 4},  {68, 4},  {72, 4},  {76, 4},  {80, 8},  {88, 8},  {96, 8},
                             {112, 8}, {120, 8}, {128, 8}, {136, 8}, {144, 8}, {160, 8}, {168, 8},
                             {176, 4}, {184, 8}, {200, 8}, {216, 8}, {276, 4}, {280, 8}};
constexpr size_t kCrcAt = 16;

void mutateSuperblock(BlockDevice& device, Random& random) {
  const std::string a = peek(device, kSuperblockSlotA, kSuperblockSize);
  const std::string b = peek(device, kSuperblockSlotB, kSuperblockSize);
  std::string bytes = superblockSequence(a) >= superblockSequence(b) ? a : b;
  const Field& field = kFields[below(random, std::size(kFields))];
  uint64_t value = 0;
  std::memcpy(&value, bytes.data() + field.at, field.size);
  value = below(random, 3) == 0 ? roundDown(oddNumber(random, value), 64 * KiB)
                                : oddNumber(random, value);
  std::memcpy(bytes.data() + field.at, &value, field.size);
  std::memset(bytes.data() + kCrcAt, 0, 4);
  const uint32_t crc = crc32c(asBytes(bytes));
  std::memcpy(bytes.data() + kCrcAt, &crc, 4);
  poke(device, kSuperblockSlotA, bytes);
  poke(device, kSuperblockSlotB, bytes);
}

// ---- file table ----

template <class Header>
Header headerIn(const std::string& bytes, size_t at) {
  Header header;
  std::memcpy(&header, bytes.data() + at, sizeof header);
  return header;
}

// Seals what is at `at`, with `length` bytes behind its header. The checksum.
template <class Header>
uint32_t sealAt(std::string& bytes, size_t at, uint64_t length, uint32_t seed) {
  auto header = headerIn<Header>(bytes, at);
  header.crc =
      crc32c(asBytes(std::string_view(bytes).substr(at + 8, sizeof header - 8 + length)), seed);
  std::memcpy(bytes.data() + at, &header, sizeof header);
  return header.crc;
}

void mutateTable(BlockDevice& device, const MetadataMap& map, Random& random) {
  std::vector<Piece> pieces;  // the snapshot, then its deltas
  for (const Piece& p : map.live()) {
    if (p.part == Part::Table || p.part == Part::TableEnd) pieces.push_back(p);
  }
  const size_t chosen = below(random, pieces.size());
  uint32_t previous = 0, seed = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    std::string bytes = peek(device, pieces[i].start, pieces[i].end - pieces[i].start);
    const size_t headerSize = i == 0 ? sizeof(SlotHeader) : sizeof(DeltaHeader);
    if (i == 0) {
      if (i == chosen && below(random, 3) == 0) {  // version to volume size, 8 bytes at a time
        const size_t at = 8 + 8 * below(random, 6);
        uint64_t value = headerIn<uint64_t>(bytes, at);
        value = oddNumber(random, value);
        std::memcpy(bytes.data() + at, &value, 8);
        auto header = headerIn<SlotHeader>(bytes, 0);
        header.bodyLength = std::min<uint64_t>(header.bodyLength, bytes.size() - sizeof header);
        std::memcpy(bytes.data(), &header, sizeof header);
      }
      seed = seedOf(headerIn<SlotHeader>(bytes, 0).tableId);
    } else {
      auto header = headerIn<DeltaHeader>(bytes, 0);
      header.previous = previous;
      std::memcpy(bytes.data(), &header, sizeof header);
    }
    if (i == chosen) {
      std::string body = bytes.substr(headerSize);
      spoilInPlace(body, random);
      bytes.replace(headerSize, body.size(), body);
    }
    previous = i == 0 ? sealAt<SlotHeader>(bytes, 0, headerIn<SlotHeader>(bytes, 0).bodyLength, 0)
                      : sealAt<DeltaHeader>(bytes, 0, bytes.size() - headerSize, seed);
    poke(device, pieces[i].start, bytes);
  }
}

// ---- journal ----

class Ring {
 public:
  Ring(BlockDevice& device, const Superblock& s) : device_(device), s_(s) {}
  std::string read(uint64_t lsn, uint64_t length) {
    std::string bytes;
    pieces(lsn, length, [&](uint64_t at, uint64_t n, uint64_t) { bytes += peek(device_, at, n); });
    return bytes;
  }
  void write(uint64_t lsn, const std::string& bytes) {
    pieces(lsn, bytes.size(), [&](uint64_t at, uint64_t n, uint64_t done) {
      poke(device_, at, bytes.substr(done, n));
    });
  }
  void put(RecordHeader header, const std::string& payload) {
    write(header.lsn, std::string(reinterpret_cast<const char*>(&header), sizeof header) + payload);
  }

 private:
  template <class Each>
  void pieces(uint64_t lsn, uint64_t length, Each&& each) {
    for (uint64_t done = 0; done < length;) {
      const uint64_t at = (lsn + done) % s_.journalSize.v;
      const uint64_t n = std::min(length - done, s_.journalSize.v - at);
      each(s_.journalStart.v + at, n, done);
      done += n;
    }
  }
  BlockDevice& device_;
  const Superblock& s_;
};

// Puts a record with this payload where the next one belongs.
void appendRecord(BlockDevice& device, const Superblock& s, const Subject& subject,
                  const std::string& payload) {
  RecordHeader header;
  header.payloadLength = static_cast<uint32_t>(payload.size());
  header.previousCrc = subject.logCrc;
  header.lsn = roundUp(subject.log.end, s.journalSector);
  header.generation = s.generation;
  header.crc = recordCrc(header, asBytes(payload));
  Ring(device, s).put(header, payload);
}

void spoilHeader(RecordHeader& header, Random& random) {
  switch (below(random, 5)) {
    case 0:
      header.payloadLength = static_cast<uint32_t>(oddNumber(random, header.payloadLength));
      break;
    case 1:
      header.lsn = oddNumber(random, header.lsn);
      break;
    case 2:
      header.generation = oddNumber(random, header.generation);
      break;
    case 3:
      header.durableLsn = oddNumber(random, header.durableLsn);
      break;
    default:
      header.flags = static_cast<uint32_t>(oddNumber(random, header.flags));
  }
}

void mutateJournal(BlockDevice& device, const Superblock& s, const Subject& subject,
                   Random& random) {
  Ring ring(device, s);
  std::vector<std::pair<RecordHeader, std::string>> records;
  for (uint64_t lsn = subject.log.tail; lsn < subject.log.end;) {
    const std::string head = ring.read(lsn, sizeof(RecordHeader));
    const auto header = headerIn<RecordHeader>(head, 0);
    if (header.magic != kRecordMagic || header.lsn != lsn) {
      lsn = roundUp(lsn + 1, s.journalSector);
      continue;
    }
    records.emplace_back(header, ring.read(lsn + sizeof header, header.payloadLength));
    lsn += recordBytes(header.payloadLength);
  }
  if (records.empty()) return appendRecord(device, s, subject, mutatedBatch(subject, random));
  const size_t chosen = below(random, records.size());
  uint32_t previous = records.front().first.previousCrc;
  for (size_t i = 0; i < records.size(); ++i) {
    auto& [header, payload] = records[i];
    const uint64_t at = header.lsn;
    header.previousCrc = previous;
    if (i == chosen) {
      const bool inHeader = below(random, 2) == 0;
      inHeader ? spoilHeader(header, random) : spoilInPlace(payload, random);
    }
    header.crc = previous = recordCrc(header, asBytes(payload));
    ring.write(at, std::string(reinterpret_cast<const char*>(&header), sizeof header) + payload);
  }
}

// ---- keys and values ----

// The value's own checksum, where it has one.
void sealValue(const std::string& key, std::string& value) {
  if (key.empty() || (key[0] != 'I' && key[0] != 'E') || value.size() < 4) return;
  value.resize(value.size() - 4);
  const uint32_t crc = crc32c(asBytes(value), crc32c(asBytes(key)));
  Encoder(value).u32(crc);
}

void changeInode(InodeRecord& r, Random& random) {
  uint32_t* const small[] = {&r.mode, &r.nlink, &r.flags, &r.rdev, &r.generation, &r.projectId};
  uint64_t* const large[] = {&r.size, &r.blocks, &r.entries, &r.parent};
  const uint64_t dice = below(random, 12);
  if (dice < std::size(small)) {
    *small[dice] = static_cast<uint32_t>(oddNumber(random, *small[dice]));
    r.mode &= 0177777;
  } else if (dice < 10) {
    uint64_t& field = *large[dice - 6];
    field = oddNumber(random, field);
  } else if (dice == 10) {
    r.mtime.sec = static_cast<int64_t>(oddNumber(random, static_cast<uint64_t>(r.mtime.sec)));
  } else {
    r.symlink.assign(below(random, 4096), 'm');
  }
}

// A value of the same kind with another field, if there is a kind with fields.
std::string changedValue(const std::string& key, const std::string& value, Random& random) {
  const auto parsed = parseKey(key);
  if (!parsed) return value;
  if (parsed->kind == 'I') {
    auto r = decodeInode(parsed->ino, value);
    if (!r) return value;
    changeInode(*r, random);
    return encodeInode(parsed->ino, *r);
  }
  if (parsed->kind == 'D') {
    auto r = decodeDirent(value);
    if (!r) return value;
    const uint64_t dice = below(random, 4);
    if (dice == 0) r->ino = std::max<uint64_t>(1, oddNumber(random, r->ino));
    if (dice == 1) r->type = static_cast<uint8_t>(random());
    if (dice == 2) r->more = !r->more;
    if (dice == 3) r->name += 'm';
    return encodeDirent(*r);
  }
  if (parsed->kind == 'E') {
    const FileOffset offset(parsed->number);
    auto r = decodeExtent(parsed->ino, offset, value);
    if (!r) return value;
    const uint64_t dice = below(random, 3);
    if (dice == 0) r->block = oddNumber(random, r->block);
    if (dice == 1) r->blocks = oddNumber(random, r->blocks);
    if (dice == 2) r->state = StoredExtentState::Unwritten;
    return encodeExtent(parsed->ino, offset, *r);
  }
  std::string other = value;
  spoilBytes(other, random);
  return other;
}

// Another number in a key, or other bytes anywhere in it.
std::string changedKey(std::string key, Random& random) {
  if (key.size() < 9 || below(random, 4) == 0) {
    spoilBytes(key, random);
    return key.empty() || key == kLogPositionKey ? "m" : key;  // no batch has these
  }
  const size_t at = key.size() >= 17 && below(random, 2) == 0 ? 9 : 1;
  Decoder d(std::string_view(key).substr(at));
  std::string number;
  Encoder(number).u64be(oddNumber(random, d.u64be()));
  return key.replace(at, 8, number);
}

void mutateRecord(IndexBatch& batch, const Subject& subject, Random& random) {
  const auto& [key, value] = subject.records[below(random, subject.records.size())];
  std::string newKey = key, newValue = value;
  switch (below(random, 8)) {
    case 0:
      return batch.erase(key);
    case 1:
      spoilBytes(newValue, random);
      break;
    case 2:
      spoilBytes(newValue, random);
      sealValue(key, newValue);
      break;
    case 3:
      newKey = changedKey(key, random);
      sealValue(newKey, newValue);
      break;
    case 4:  // what belongs to another key
      newValue = subject.records[below(random, subject.records.size())].second;
      sealValue(key, newValue);
      break;
    default:
      newValue = changedValue(key, value, random);
  }
  batch.put(newKey, newValue);
}

// ---- units ----

void mutateUnits(BlockDevice& device, const Superblock& s, const MetadataMap& map, Random& random) {
  std::vector<Piece> pieces;
  for (const Piece& p : map.live()) {
    if (p.part == Part::Index) pieces.push_back(p);
  }
  const auto table = FileTable::load(device, indexGeometry(s), true);
  if (!table || pieces.empty()) return;
  const uint64_t unitSize = unitSizeFor(s.blockSize);
  const Piece& piece = pieces[below(random, pieces.size())];
  const uint64_t at = piece.start + unitSize * below(random, (piece.end - piece.start) / unitSize);
  std::string unit = peek(device, at, unitSize);
  const auto header = headerIn<UnitHeader>(unit, 0);
  std::string payload = unit.substr(kUnitHeader, header.length);
  spoilInPlace(payload, random);
  unit.replace(kUnitHeader, payload.size(), payload);
  sealUnit(std::as_writable_bytes(std::span(unit)),
           uint64_t{header.fileHigh} << 32 | header.fileLow, header.number, header.length,
           (*table)->seed());
  poke(device, at, unit);
}

// ---- the MANIFEST: records in blocks of 32 KiB; crc, length and kind in front of each ----

// RocksDB keeps a CRC in this form.
uint32_t maskedCrc(uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; }

// Changes the payload of one record in place.
void mutateLog(std::string& bytes, Random& random) {
  constexpr size_t kLogBlock = 32768, kLogHeader = 7;
  std::vector<std::pair<size_t, size_t>> records;  // where the payload begins, its length
  for (size_t at = 0; at + kLogHeader <= bytes.size();) {
    const size_t left = kLogBlock - at % kLogBlock;
    if (left < kLogHeader) {
      at += left;
      continue;
    }
    const size_t length = Decoder(std::string_view(bytes).substr(at + 4)).u16();
    if (at + kLogHeader + length > bytes.size()) break;
    if (length > 0) records.emplace_back(at + kLogHeader, length);
    at += kLogHeader + length;
  }
  if (records.empty()) return;
  const auto [at, length] = records[below(random, records.size())];
  std::string payload = bytes.substr(at, length);
  spoilInPlace(payload, random);
  bytes.replace(at, length, payload);
  std::string crc;  // of the kind, which stands in front of the payload, and of the payload
  Encoder(crc).u32(maskedCrc(crc32c(asBytes(std::string_view(bytes).substr(at - 1, length + 1)))));
  bytes.replace(at - kLogHeader, crc.size(), crc);
}

void mutateManifest(BlockDevice& device, const Superblock& s, const MetadataMap& map,
                    Random& random) {
  const auto table = FileTable::load(device, indexGeometry(s), true);
  if (!table) return;
  const uint64_t unitSize = unitSizeFor(s.blockSize);
  std::vector<std::string> units;
  std::string log;
  for (const uint64_t at : map.manifest()) {
    units.push_back(peek(device, at, unitSize));
    log += units.back().substr(kUnitHeader, headerIn<UnitHeader>(units.back(), 0).length);
  }
  mutateLog(log, random);
  size_t done = 0;
  for (size_t i = 0; i < units.size(); ++i) {
    const auto header = headerIn<UnitHeader>(units[i], 0);
    units[i].replace(kUnitHeader, header.length, log.substr(done, header.length));
    done += header.length;
    sealUnit(std::as_writable_bytes(std::span(units[i])),
             uint64_t{header.fileHigh} << 32 | header.fileLow, header.number, header.length,
             (*table)->seed());
    poke(device, map.manifest()[i], units[i]);
  }
}

}  // namespace

const char* layerName(Layer layer) {
  static constexpr const char* kNames[kLayers] = {
      "superblock", "file table", "journal", "keys and values", "RocksDB's bytes", "its MANIFEST"};
  return kNames[static_cast<size_t>(layer)];
}

std::string mutatedBatch(const Subject& subject, std::mt19937_64& random) {
  IndexBatch batch;
  for (uint64_t n = 1 + below(random, 4); n > 0; --n) mutateRecord(batch, subject, random);
  return batch.encode();
}

std::unique_ptr<MemoryDevice> mutated(const Subject& subject, const MetadataMap& map, Layer layer,
                                      std::mt19937_64& random) {
  auto device = subject.device->clone();
  const auto s = SuperblockStore(*device).load();
  if (!s) return device;
  switch (layer) {
    case Layer::Superblock:
      for (uint64_t n = 1 + below(random, 3); n > 0; --n) mutateSuperblock(*device, random);
      break;
    case Layer::Table:
      mutateTable(*device, map, random);
      break;
    case Layer::Journal:
      mutateJournal(*device, *s, subject, random);
      break;
    case Layer::Records:
      appendRecord(*device, *s, subject, mutatedBatch(subject, random));
      break;
    case Layer::Units:
      mutateUnits(*device, *s, map, random);
      break;
    case Layer::Manifest:
      mutateManifest(*device, *s, map, random);
      break;
  }
  return device;
}

}  // namespace ourfs::images
