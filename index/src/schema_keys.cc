#include "common/codec.h"
#include "index/schema.h"

namespace ourfs {

namespace {

constexpr size_t kMaxXattrName = 255;
constexpr unsigned kSlotBits = 8;
constexpr unsigned kHashBits = 54;

std::string keyOf(char kind, uint64_t number) {
  std::string key(1, kind);
  Encoder(key).u64be(number);
  return key;
}

std::string keyOf(char kind, uint64_t first, uint64_t second) {
  std::string key = keyOf(kind, first);
  Encoder(key).u64be(second);
  return key;
}

Status badKey() { return Status::corrupt("index: a key that no kind of record has"); }

}  // namespace

std::string inodeKey(InodeNo ino) { return keyOf('I', ino.v); }
std::string direntKey(InodeNo dir, uint64_t cookie) { return keyOf('D', dir.v, cookie); }
std::string xattrKey(InodeNo ino, std::string_view name) { return keyOf('X', ino.v).append(name); }
std::string extentKey(InodeNo ino, FileOffset offset) { return keyOf('E', ino.v, offset.v); }
std::string orphanKey(InodeNo ino) { return keyOf('O', ino.v); }
std::string freeGroupKey(uint64_t group) { return keyOf('F', group); }
std::string settingKey(std::string_view name) { return std::string(1, 'C').append(name); }

std::string direntPrefix(InodeNo dir) { return keyOf('D', dir.v); }
std::string xattrPrefix(InodeNo ino) { return keyOf('X', ino.v); }
std::string extentPrefix(InodeNo ino) { return keyOf('E', ino.v); }

std::string prefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

Result<ParsedKey> parseKey(std::string_view key) {
  if (key.empty()) return badKey();
  ParsedKey parsed;
  parsed.kind = key.front();
  Decoder d(key.substr(1));
  switch (parsed.kind) {
    case 'L':
    case 'G':
      break;
    case 'C':
      parsed.name = d.bytes(d.remaining());
      if (parsed.name.empty()) return badKey();
      break;
    case 'F':
      parsed.ino = InodeNo(d.u64be());
      break;
    case 'I':
    case 'O':
    case 'D':
    case 'E':
    case 'X':
      parsed.ino = InodeNo(d.u64be());
      if (parsed.ino.v == 0) return badKey();
      if (parsed.kind == 'D' || parsed.kind == 'E') parsed.number = d.u64be();
      if (parsed.kind == 'X') {
        parsed.name = d.bytes(d.remaining());
        if (parsed.name.empty() || parsed.name.size() > kMaxXattrName) return badKey();
      }
      break;
    default:
      return badKey();
  }
  if (!d.ok() || !d.atEnd()) return badKey();
  return parsed;
}

uint64_t nameCookie(std::string_view name, const SipKey& key) {
  const uint64_t bucket = sipHash(asBytes(name), key) >> (64 - kHashBits);
  const uint64_t cookie = bucket << kSlotBits;
  // Bucket 0 is given up: its first slots are the cookies of ".", ".." and the start.
  return cookie == 0 ? uint64_t{1} << kSlotBits : cookie;
}

}  // namespace ourfs
