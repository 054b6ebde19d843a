// Reading a MANIFEST: records in blocks of 32 KiB, each a list of tagged changes.

#include "common/codec.h"
#include "raw_table.h"
#include "varint.h"

namespace ourfs {

namespace {

constexpr size_t kLogBlock = 32768, kLogHeader = 7;
enum class LogPiece : uint8_t { Zero = 0, Full = 1, First = 2, Middle = 3, Last = 4 };

// Of RocksDB's VersionEdit.
enum EditTag : uint64_t {
  kComparator = 1,
  kLogNumber = 2,
  kNextFileNumber = 3,
  kLastSequence = 4,
  kCompactCursor = 5,
  kDeletedFile = 6,
  kPrevLogNumber = 9,
  kMinLogNumberToKeep = 10,
  kNewFile4 = 103,
  kColumnFamily = 200,
  kColumnFamilyAdd = 201,
  kMaxColumnFamily = 203,
  kInAtomicGroup = 300,
  kIgnorable = 1 << 13,  // this bit: a text that may be skipped
};
constexpr uint64_t kEndOfFields = 1;

Status badManifest(const char* what) { return Status::corrupt(std::string("MANIFEST: ") + what); }

class EditReader {
 public:
  EditReader(std::string_view edit, ManifestTables& tables) : d_(edit), tables_(tables) {}

  Status run() {
    while (!d_.atEnd()) {
      const uint64_t tag = number();
      TRY(change(tag));
      if (!good_ || !d_.ok()) return badManifest("a change ends too early");
    }
    return Status::ok();
  }

 private:
  uint64_t number() {
    uint64_t value = 0;
    good_ = good_ && getVarint(d_, &value);
    return good_ ? value : 0;
  }
  void text() { (void)d_.bytes(number()); }

  Status change(uint64_t tag) {
    switch (tag) {
      case kComparator:
      case kColumnFamilyAdd:
        text();
        return Status::ok();
      case kLogNumber:
      case kLastSequence:
      case kPrevLogNumber:
      case kMinLogNumberToKeep:
      case kColumnFamily:
      case kMaxColumnFamily:
      case kInAtomicGroup:
        (void)number();
        return Status::ok();
      case kNextFileNumber:
        tables_.nextNumber = number();
        return Status::ok();
      case kCompactCursor:
        (void)number();
        text();
        return Status::ok();
      case kDeletedFile:
        (void)number();
        tables_.inUse.erase(number());
        return Status::ok();
      case kNewFile4:
        return newFile();
      default:
        if ((tag & kIgnorable) == 0) return badManifest("a change of an unknown kind");
        text();
        return Status::ok();
    }
  }

  Status newFile() {
    (void)number();  // its level
    const uint64_t table = number();
    (void)number();  // its size
    text();
    text();
    (void)number();
    (void)number();
    while (good_ && d_.ok() && number() != kEndOfFields) text();
    tables_.inUse.insert(table);
    return Status::ok();
  }

  Decoder d_;
  bool good_ = true;
  ManifestTables& tables_;
};

}  // namespace

Result<ManifestTables> tablesOfManifest(std::string_view manifest) {
  ManifestTables tables;
  std::string record;
  bool begun = false;
  for (size_t at = 0; at < manifest.size();) {
    const size_t left = kLogBlock - at % kLogBlock;
    if (left < kLogHeader) {
      at += left;
      continue;
    }
    Decoder d(manifest.substr(at));
    (void)d.u32();  // its checksum
    const uint16_t length = d.u16();
    const auto piece = static_cast<LogPiece>(d.u8());
    if (!d.ok() || length > d.remaining() || length > left - kLogHeader)
      return badManifest("a record ends behind it");
    if (piece > LogPiece::Last) return badManifest("a record of an unknown kind");
    at += kLogHeader + length;
    if (piece == LogPiece::Zero) continue;
    const bool first = piece == LogPiece::Full || piece == LogPiece::First;
    if (first == begun) return badManifest("a piece of a record is missing");
    if (first) record.clear();
    record.append(d.bytes(length));
    begun = piece == LogPiece::First || piece == LogPiece::Middle;
    if (!begun) TRY(EditReader(record, tables).run());
  }
  if (begun) return badManifest("its last record has no end");
  return tables;
}

}  // namespace ourfs
