#include "common/codec.h"
#include "common/sync_point.h"
#include "index/schema.h"
#include "varint.h"

namespace ourfs {

namespace {

constexpr uint8_t kInodeVersion = 1;
constexpr uint8_t kExtentVersion = 1;
constexpr uint8_t kDirentVersion = 1;
constexpr size_t kChecksumSize = 4;
constexpr size_t kMaxSymlink = 4095;
constexpr size_t kMaxName = 255;
constexpr uint32_t kMaxMode = 0177777;
constexpr uint32_t kNanosPerSecond = 1'000'000'000;
constexpr uint8_t kDirentEntryBit = 1;
constexpr uint8_t kDirentMoreBit = 2;

// The key goes in front, so that a value under another key does not verify.
uint32_t sealOf(std::string_view key, std::string_view value) {
  return crc32c(asBytes(value), crc32c(asBytes(key)));
}

std::string sealed(std::string_view key, std::string value) {
  const uint32_t seal = sealOf(key, value);
  Encoder(value).u32(seal);
  return value;
}

// The value without its checksum; empty if that does not match.
std::string_view unsealed(std::string_view key, std::string_view value) {
  if (value.size() < kChecksumSize) return {};
  const std::string_view body = value.substr(0, value.size() - kChecksumSize);
  const uint32_t stored = Decoder(value.substr(body.size())).u32();
  const bool right = stored == sealOf(key, body) || mutantEnabled("index.skip_record_checksum");
  return right ? body : std::string_view{};
}

// Times are stored as differences to the birth time, which are short.
void putTime(Encoder& e, const Timestamp& t, const Timestamp& base) {
  putVarint(e, zigzag(static_cast<int64_t>(static_cast<uint64_t>(t.sec) -
                                           static_cast<uint64_t>(base.sec))));
  putVarint(e, t.nsec);
}

bool getTime(Decoder& d, Timestamp* t, const Timestamp& base) {
  uint64_t sec = 0, nsec = 0;
  if (!getVarint(d, &sec) || !getVarint(d, &nsec, kNanosPerSecond - 1)) return false;
  t->sec =
      static_cast<int64_t>(static_cast<uint64_t>(unzigzag(sec)) + static_cast<uint64_t>(base.sec));
  t->nsec = static_cast<uint32_t>(nsec);
  return true;
}

bool getU32(Decoder& d, uint32_t* v, uint32_t max = UINT32_MAX) {
  uint64_t wide = 0;
  if (!getVarint(d, &wide, max)) return false;
  *v = static_cast<uint32_t>(wide);
  return true;
}

bool validName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxName && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

std::string inodeLabel(InodeNo ino) { return "inode " + std::to_string(ino.v); }

}  // namespace

std::string encodeInode(InodeNo ino, const InodeRecord& r) {
  std::string out;
  Encoder e(out);
  e.u8(kInodeVersion);
  for (uint32_t v : {r.mode, r.uid, r.gid, r.nlink, r.generation, r.flags, r.projectId, r.rdev}) {
    putVarint(e, v);
  }
  for (uint64_t v : {r.size, r.blocks, r.entries, r.parent}) putVarint(e, v);
  putTime(e, r.btime, Timestamp{});
  for (const Timestamp& t : {r.atime, r.mtime, r.ctime}) putTime(e, t, r.btime);
  putVarint(e, r.symlink.size());
  e.bytes(r.symlink);
  return sealed(inodeKey(ino), std::move(out));
}

Result<InodeRecord> decodeInode(InodeNo ino, std::string_view value) {
  const std::string_view body = unsealed(inodeKey(ino), value);
  if (body.empty()) return Status::corrupt(inodeLabel(ino) + ": wrong checksum");
  Decoder d(body);
  InodeRecord r;
  if (d.u8() != kInodeVersion) return Status::corrupt(inodeLabel(ino) + ": unknown version");
  bool good = getU32(d, &r.mode, kMaxMode);
  for (uint32_t* v : {&r.uid, &r.gid, &r.nlink, &r.generation, &r.flags, &r.projectId, &r.rdev}) {
    good = good && getU32(d, v);
  }
  for (uint64_t* v : {&r.size, &r.blocks, &r.entries, &r.parent}) good = good && getVarint(d, v);
  good = good && getTime(d, &r.btime, Timestamp{});
  for (Timestamp* t : {&r.atime, &r.mtime, &r.ctime}) good = good && getTime(d, t, r.btime);
  uint64_t length = 0;
  good = good && getVarint(d, &length, kMaxSymlink);
  r.symlink = d.bytes(length);
  if (!good || !d.ok() || !d.atEnd()) {
    return Status::corrupt(inodeLabel(ino) + ": a field is out of range");
  }
  return r;
}

std::string encodeDirent(const DirentRecord& r) {
  std::string out;
  Encoder e(out);
  const bool entry = r.kind == DirentKind::Entry;
  e.u8(static_cast<uint8_t>(kDirentVersion << 4 | (r.more ? kDirentMoreBit : 0) |
                            (entry ? kDirentEntryBit : 0)));
  if (entry) {
    e.u8(r.type);
    putVarint(e, r.ino);
    e.bytes(r.name);
  }
  return out;
}

Result<DirentRecord> decodeDirent(std::string_view value) {
  const auto bad = [](const char* what) {
    return Status::corrupt(std::string("directory entry: ") + what);
  };
  Decoder d(value);
  const uint8_t head = d.u8();
  if (!d.ok() || head >> 4 != kDirentVersion) return bad("unknown version");
  if ((head & 0xf & ~(kDirentMoreBit | kDirentEntryBit)) != 0) return bad("unknown flag");
  DirentRecord r;
  r.more = (head & kDirentMoreBit) != 0;
  r.kind = (head & kDirentEntryBit) != 0 ? DirentKind::Entry : DirentKind::Vacated;
  if (r.kind == DirentKind::Entry) {
    r.type = d.u8();
    if (!getVarint(d, &r.ino) || r.ino == 0) return bad("no inode");
    r.name = d.bytes(d.remaining());
    if (!validName(r.name)) return bad("not a name");
  }
  if (!d.ok() || !d.atEnd()) return bad("wrong length");
  return r;
}

std::string encodeExtent(InodeNo ino, FileOffset offset, const ExtentRecord& r) {
  std::string out;
  Encoder e(out);
  e.u8(static_cast<uint8_t>(kExtentVersion << 4 | static_cast<uint8_t>(r.state)));
  putVarint(e, r.block);
  putVarint(e, r.blocks);
  return sealed(extentKey(ino, offset), std::move(out));
}

Result<ExtentRecord> decodeExtent(InodeNo ino, FileOffset offset, std::string_view value) {
  const auto bad = [&](const char* what) {
    return Status::corrupt("extent of " + inodeLabel(ino) + " at " + std::to_string(offset.v) +
                           ": " + what);
  };
  const std::string_view body = unsealed(extentKey(ino, offset), value);
  if (body.empty()) return bad("wrong checksum");
  Decoder d(body);
  const uint8_t head = d.u8();
  if (head >> 4 != kExtentVersion) return bad("unknown version");
  ExtentRecord r;
  r.state = static_cast<StoredExtentState>(head & 0xf);
  if (r.state != StoredExtentState::Mapped && r.state != StoredExtentState::Unwritten) {
    return bad("unknown state");
  }
  if (!getVarint(d, &r.block) || !getVarint(d, &r.blocks) || !d.ok() || !d.atEnd()) {
    return bad("wrong length");
  }
  if (r.blocks == 0 || r.block > UINT64_MAX - r.blocks) return bad("not a run of blocks");
  return r;
}

}  // namespace ourfs
