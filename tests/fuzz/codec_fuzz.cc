// Keys, values and batches. What is decoded encodes to the same bytes: there is one spelling only.
#include "common/checksum.h"
#include "common/codec.h"
#include "free_snapshot.h"
#include "fuzz_input.h"
#include "index/batch.h"
#include "index/schema.h"
#include "position.h"

namespace {

using namespace ourfs;

// The key again, from its parts.
std::string spelled(const ParsedKey& key) {
  switch (key.kind) {
    case 'I':
      return inodeKey(key.ino);
    case 'D':
      return direntKey(key.ino, key.number);
    case 'X':
      return xattrKey(key.ino, key.name);
    case 'E':
      return extentKey(key.ino, FileOffset(key.number));
    case 'O':
      return orphanKey(key.ino);
    case 'F':
      return freeGroupKey(key.ino.v);
    case 'C':
      return settingKey(key.name);
    case 'L':
      return std::string(kLogPositionKey);
    default:
      return std::string(kFreeHeaderKey);
  }
}

// A value whose checksum, which is in its last four bytes, is right.
std::string sealedWith(const std::string& key, std::string body) {
  const uint32_t crc = crc32c(asBytes(body), crc32c(asBytes(key)));
  Encoder(body).u32(crc);
  return body;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input in(data, size);
  const uint8_t kind = in.u8();
  const InodeNo ino(1 + in.u8());
  const std::string bytes = in.rest();
  switch (kind % 8) {
    case 0:
      if (const auto key = parseKey(bytes)) fuzz::require(spelled(*key) == bytes);
      break;
    case 1: {
      const std::string value = sealedWith(inodeKey(ino), bytes);
      if (const auto r = decodeInode(ino, value)) fuzz::require(encodeInode(ino, *r) == value);
      break;
    }
    case 2:
      if (const auto r = decodeDirent(bytes)) fuzz::require(encodeDirent(*r) == bytes);
      break;
    case 3: {
      const FileOffset at(4096);
      const std::string value = sealedWith(extentKey(ino, at), bytes);
      if (const auto r = decodeExtent(ino, at, value)) {
        fuzz::require(encodeExtent(ino, at, *r) == value);
      }
      break;
    }
    case 4:
      if (const auto b = IndexBatch::decode(bytes)) fuzz::require(b->encode() == bytes);
      break;
    case 5: {
      const std::string value = sealedWith(std::string(kLogPositionKey), bytes);
      if (const auto p = decodePosition(value)) fuzz::require(encodePosition(*p) == value);
      break;
    }
    case 6:
      if (const auto runs = decodeGroup(bytes)) {
        for (const auto& run : *runs) fuzz::require(run.start + run.count <= kGroupBlocks);
      }
      break;
    default:
      if (const auto header = decodeSnapshotHeader(sealedWith("", bytes))) {
        fuzz::require(decodeSnapshotHeader(encodeSnapshotHeader(*header)).isOk());
      }
      break;
  }
  return 0;
}
