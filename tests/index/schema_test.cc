#include "index/schema.h"

#include <gtest/gtest.h>

#include <set>

#include "../../index/src/position.h"
#include "common/codec.h"
#include "common/sync_point.h"
#include "mutant.h"
#include "random.h"

namespace ourfs {
namespace {

using test::Random;

uint64_t anyWidth(Random& random) { return (random.below(UINT64_MAX)) >> random.below(64); }

Timestamp anyTime(Random& random) {
  return {static_cast<int64_t>(anyWidth(random)) * (random.oneIn(2) ? 1 : -1),
          static_cast<uint32_t>(random.below(1'000'000'000))};
}

InodeRecord anyInode(Random& random) {
  InodeRecord r;
  r.mode = static_cast<uint32_t>(random.below(0200000));
  for (uint32_t* v : {&r.uid, &r.gid, &r.nlink, &r.generation, &r.flags, &r.projectId, &r.rdev}) {
    *v = static_cast<uint32_t>(anyWidth(random));
  }
  for (uint64_t* v : {&r.size, &r.blocks, &r.entries, &r.parent}) *v = anyWidth(random);
  for (Timestamp* t : {&r.atime, &r.mtime, &r.ctime, &r.btime}) *t = anyTime(random);
  if (random.oneIn(4)) r.symlink = random.bytes(1 + random.below(4095));
  return r;
}

bool same(const InodeRecord& a, const InodeRecord& b) {
  return std::tie(a.mode, a.uid, a.gid, a.nlink, a.generation, a.flags, a.projectId, a.rdev, a.size,
                  a.blocks, a.entries, a.parent, a.atime, a.mtime, a.ctime, a.btime, a.symlink) ==
         std::tie(b.mode, b.uid, b.gid, b.nlink, b.generation, b.flags, b.projectId, b.rdev, b.size,
                  b.blocks, b.entries, b.parent, b.atime, b.mtime, b.ctime, b.btime, b.symlink);
}

TEST(SchemaTest, InodesComeBackAsTheyWere) {
  Random random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 5000; ++i) {
    const InodeRecord record = anyInode(random);
    const InodeNo ino(1 + anyWidth(random) / 2);
    Result<InodeRecord> back = decodeInode(ino, encodeInode(ino, record));
    ASSERT_TRUE(back.isOk()) << back.status().message();
    ASSERT_TRUE(same(*back, record));
  }
}

TEST(SchemaTest, AnInodeUnderAnotherNumberIsNoticed) {
  Random random;
  const std::string value = encodeInode(InodeNo(7), anyInode(random));
  EXPECT_EQ(decodeInode(InodeNo(8), value).errnum(), EUCLEAN);
}

// A record that is wrong and yet of the right form: only its checksum tells.
TEST(SchemaTest, AFlippedBitOfARecordIsNoticed) {
  const InodeNo ino(7);
  InodeRecord inode;
  inode.mode = 0100644;
  std::string flippedInode = encodeInode(ino, inode);
  flippedInode[1] ^= 1;  // of the mode
  const ExtentRecord extent{1000, 8, StoredExtentState::Mapped};
  std::string flippedExtent = encodeExtent(ino, FileOffset(0), extent);
  flippedExtent[1] ^= 1;  // of the block
  const AppliedPosition position{Lsn(4096), 77};
  std::string flippedPosition = encodePosition(position);
  flippedPosition[1] ^= 0x10;  // of the LSN
  EXPECT_EQ(decodeInode(ino, flippedInode).errnum(), EUCLEAN);
  EXPECT_EQ(decodeExtent(ino, FileOffset(0), flippedExtent).errnum(), EUCLEAN);
  EXPECT_EQ(decodePosition(flippedPosition).errnum(), EUCLEAN);

  ScopedMutant records("index.skip_record_checksum"), tail("index.skip_position_checksum");
  const auto wrongInode = decodeInode(ino, flippedInode);
  const auto wrongExtent = decodeExtent(ino, FileOffset(0), flippedExtent);
  const auto wrongPosition = decodePosition(flippedPosition);
  ASSERT_TRUE(wrongInode.isOk() && wrongExtent.isOk() && wrongPosition.isOk());
  EXPECT_NE(wrongInode->mode, inode.mode);
  EXPECT_NE(wrongExtent->block, extent.block);
  EXPECT_NE(wrongPosition->end, position.end);
  test::reportCaught("index.skip_record_checksum", 1, "every inode and extent record is checked");
  test::reportCaught("index.skip_position_checksum", 1, "the tail's position is checked");
}

TEST(SchemaTest, AnOrdinaryInodeTakesUnder80Bytes) {
  InodeRecord record;
  record.mode = 0100644;
  record.uid = record.gid = 1000;
  record.nlink = 1;
  record.generation = 0xffffffff;
  record.size = record.blocks = 1 * MiB;
  record.atime = record.mtime = record.ctime = record.btime = {1'700'000'000, 999'999'999};
  EXPECT_LT(encodeInode(InodeNo(1'000'000), record).size(), 80u);
}

TEST(SchemaTest, DirectoryEntriesComeBackAsTheyWere) {
  Random random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 5000; ++i) {
    DirentRecord record;
    record.more = random.oneIn(2);
    if (random.oneIn(4)) {
      record.kind = DirentKind::Vacated;
    } else {
      record.ino = 1 + anyWidth(random) / 2;
      record.type = static_cast<uint8_t>(random.below(16));
      record.name = std::string(1 + random.below(255), 'n');
    }
    Result<DirentRecord> back = decodeDirent(encodeDirent(record));
    ASSERT_TRUE(back.isOk()) << back.status().message();
    EXPECT_EQ(std::tie(back->kind, back->more, back->type, back->ino, back->name),
              std::tie(record.kind, record.more, record.type, record.ino, record.name));
  }
}

TEST(SchemaTest, NamesThatNoFileMayHaveAreRefused) {
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"),
        std::string("a\0b", 3), std::string(256, 'x')}) {
    DirentRecord record;
    record.ino = 5;
    record.name = name;
    EXPECT_EQ(decodeDirent(encodeDirent(record)).errnum(), EUCLEAN) << name;
  }
}

TEST(SchemaTest, ExtentsComeBackAsTheyWereAndOnlyUnderTheirKey) {
  Random random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 5000; ++i) {
    const ExtentRecord record{
        anyWidth(random) / 2, 1 + anyWidth(random) / 2,
        random.oneIn(2) ? StoredExtentState::Mapped : StoredExtentState::Unwritten};
    const InodeNo ino(1 + anyWidth(random) / 2);
    const FileOffset at(anyWidth(random));
    const std::string value = encodeExtent(ino, at, record);
    Result<ExtentRecord> back = decodeExtent(ino, at, value);
    ASSERT_TRUE(back.isOk()) << back.status().message();
    EXPECT_EQ(std::tie(back->block, back->blocks, back->state),
              std::tie(record.block, record.blocks, record.state));
    EXPECT_EQ(decodeExtent(ino, FileOffset(at.v ^ 1), value).errnum(), EUCLEAN);
  }
}

TEST(SchemaTest, EveryFlippedBitOfASealedValueIsNoticed) {
  Random random;
  const std::string inode = encodeInode(InodeNo(9), anyInode(random));
  const std::string extent = encodeExtent(InodeNo(9), FileOffset(4096), ExtentRecord{77, 3});
  for (size_t bit = 0; bit < inode.size() * 8; ++bit) {
    std::string bytes = inode;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    ASSERT_EQ(decodeInode(InodeNo(9), bytes).errnum(), EUCLEAN);
  }
  for (size_t bit = 0; bit < extent.size() * 8; ++bit) {
    std::string bytes = extent;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    ASSERT_EQ(decodeExtent(InodeNo(9), FileOffset(4096), bytes).errnum(), EUCLEAN);
  }
}

TEST(SchemaTest, RandomBytesNeverCrashADecoder) {
  Random random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 50000; ++i) {
    const std::string bytes = random.bytes(random.below(80));
    // With a right checksum behind them, so that the fields are reached too.
    std::string sealedInode = bytes, sealedExtent = bytes;
    Encoder(sealedInode).u32(crc32c(asBytes(bytes), crc32c(asBytes(inodeKey(InodeNo(3))))));
    Encoder(sealedExtent)
        .u32(crc32c(asBytes(bytes), crc32c(asBytes(extentKey(InodeNo(3), FileOffset(0))))));
    if (Result<InodeRecord> r = decodeInode(InodeNo(3), sealedInode); r.isOk()) {
      EXPECT_LT(r->atime.nsec, 1'000'000'000u);
    }
    if (Result<ExtentRecord> r = decodeExtent(InodeNo(3), FileOffset(0), sealedExtent); r.isOk()) {
      EXPECT_GT(r->blocks, 0u);
    }
    if (Result<DirentRecord> r = decodeDirent(bytes); r.isOk()) {
      EXPECT_EQ(encodeDirent(*r), bytes);
    }
    if (Result<ParsedKey> r = parseKey(bytes); r.isOk()) {
      EXPECT_NE(std::string("IDXEOLFGC").find(r->kind), std::string::npos);
    }
  }
}

TEST(SchemaTest, KeysParseBackAndSortByNumber) {
  Random random;
  SCOPED_TRACE(random.trace());
  for (int i = 0; i < 2000; ++i) {
    const uint64_t a = 1 + anyWidth(random) / 2, b = 1 + anyWidth(random) / 2;
    EXPECT_EQ(a < b, inodeKey(InodeNo(a)) < inodeKey(InodeNo(b)));
    EXPECT_EQ(a < b, extentKey(InodeNo(4), FileOffset(a)) < extentKey(InodeNo(4), FileOffset(b)));
    Result<ParsedKey> dirent = parseKey(direntKey(InodeNo(a), b));
    ASSERT_TRUE(dirent.isOk());
    EXPECT_EQ(std::tie(dirent->kind, dirent->ino.v, dirent->number), std::tuple('D', a, b));
    Result<ParsedKey> xattr = parseKey(xattrKey(InodeNo(a), "user.x"));
    ASSERT_TRUE(xattr.isOk());
    EXPECT_EQ(xattr->name, "user.x");
    EXPECT_EQ(parseKey(freeGroupKey(b))->ino.v, b);
    EXPECT_EQ(parseKey(orphanKey(InodeNo(a)))->ino.v, a);
    EXPECT_EQ(parseKey(settingKey("next"))->name, "next");
  }
  EXPECT_TRUE(parseKey(kLogPositionKey).isOk());
  EXPECT_TRUE(parseKey(kFreeHeaderKey).isOk());
  EXPECT_EQ(parseKey("").errnum(), EUCLEAN);
  EXPECT_EQ(parseKey("I").errnum(), EUCLEAN);
  EXPECT_EQ(parseKey("Lx").errnum(), EUCLEAN);
  EXPECT_EQ(parseKey(inodeKey(InodeNo(0))).errnum(), EUCLEAN);
}

TEST(SchemaTest, APrefixEndLiesBehindItsKeysAndBeforeTheNext) {
  EXPECT_LT(direntKey(InodeNo(5), UINT64_MAX), prefixEnd(direntPrefix(InodeNo(5))));
  EXPECT_LE(prefixEnd(direntPrefix(InodeNo(5))), direntKey(InodeNo(6), 0));
  EXPECT_EQ(prefixEnd(direntPrefix(InodeNo(255))), direntPrefix(InodeNo(256)).substr(0, 8));
  EXPECT_EQ(prefixEnd("a\xff\xff"), "b");
}

TEST(SchemaTest, CookiesArePositiveOffsetsWithAnEmptySlotByte) {
  Random random;
  SCOPED_TRACE(random.trace());
  std::set<uint64_t> seen;
  for (int i = 0; i < 10000; ++i) {
    const uint64_t cookie = nameCookie("file" + std::to_string(i), SipKey{random.seed(), 2});
    EXPECT_GE(cookie, kFirstCookie);
    EXPECT_LT(cookie, uint64_t{1} << 62);
    EXPECT_EQ(cookie & 0xff, 0u);
    seen.insert(cookie);
  }
  EXPECT_EQ(seen.size(), 10000u);
}

}  // namespace
}  // namespace ourfs
