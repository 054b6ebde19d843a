// The bytes of one superblock slot. Little-endian. docs/format.md says the same in prose.
//
// Nothing that a user chooses (label, uuid) lies where another filesystem keeps its magic, and the
// rest of a slot is zero, so that libblkid takes a volume for nothing else.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fs/superblock.h"

namespace ourfs {

inline constexpr char kSuperblockMagic[16] = {'o', 'u', 'r', 'f', 's',  ' ',  'v',  'o',
                                              'l', 'u', 'm', 'e', '\n', 0x1a, '\r', 0};
inline constexpr uint32_t kSuperblockClean = 1u << 0;  // flags; the others are zero
inline constexpr size_t kLabelField = 64;              // bytes, NUL-padded; the last is always NUL

struct SuperblockTime {
  int64_t sec;
  uint32_t nsec;
  uint32_t zero;
};

struct SuperblockFormat {
  char magic[16];
  uint32_t crc;  // crc32c of the whole slot with this field zero
  uint32_t version;
  uint64_t sequence;
  uint64_t generation;
  uint64_t compat;
  uint64_t roCompat;
  uint64_t incompat;
  uint32_t blockSize;
  uint32_t flags;
  uint32_t journalSector;
  uint32_t zero;
  uint64_t volumeSize;
  uint64_t tableStart;
  uint8_t uuid[16];
  uint64_t tableSlotSize;
  uint64_t journalStart;
  uint64_t journalSize;
  uint64_t dataStart;
  uint64_t nameKey[2];
  uint64_t mountCount;
  SuperblockTime created;
  SuperblockTime lastMounted;
  SuperblockTime lastChecked;
  char label[kLabelField];
  uint8_t rest[3816];
};
static_assert(sizeof(SuperblockTime) == 16);
static_assert(sizeof(SuperblockFormat) == kSuperblockSize);
static_assert(offsetof(SuperblockFormat, crc) == 16);
static_assert(offsetof(SuperblockFormat, version) == 20);
static_assert(offsetof(SuperblockFormat, sequence) == 24);
static_assert(offsetof(SuperblockFormat, generation) == 32);
static_assert(offsetof(SuperblockFormat, compat) == 40);
static_assert(offsetof(SuperblockFormat, roCompat) == 48);
static_assert(offsetof(SuperblockFormat, incompat) == 56);
static_assert(offsetof(SuperblockFormat, blockSize) == 64);
static_assert(offsetof(SuperblockFormat, flags) == 68);
static_assert(offsetof(SuperblockFormat, journalSector) == 72);
static_assert(offsetof(SuperblockFormat, volumeSize) == 80);
static_assert(offsetof(SuperblockFormat, tableStart) == 88);
static_assert(offsetof(SuperblockFormat, uuid) == 96);
static_assert(offsetof(SuperblockFormat, tableSlotSize) == 112);
static_assert(offsetof(SuperblockFormat, journalStart) == 120);
static_assert(offsetof(SuperblockFormat, journalSize) == 128);
static_assert(offsetof(SuperblockFormat, dataStart) == 136);
static_assert(offsetof(SuperblockFormat, nameKey) == 144);
static_assert(offsetof(SuperblockFormat, mountCount) == 160);
static_assert(offsetof(SuperblockFormat, created) == 168);
static_assert(offsetof(SuperblockFormat, lastMounted) == 184);
static_assert(offsetof(SuperblockFormat, lastChecked) == 200);
static_assert(offsetof(SuperblockFormat, label) == 216);
static_assert(offsetof(SuperblockFormat, rest) == 280);

}  // namespace ourfs
