#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "iomap/iomap.h"
#include "iomap/mapping.h"

namespace ourfs {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

constexpr uint32_t kBlock = 4096;

// Answers what the test has put in.
class ScriptedOps : public IomapOps {
 public:
  Result<Iomap> begin(Mapping& mapping, FileOffset pos, ByteCount, IomapIntent) override {
    if (failure != 0) return Status::error(failure);
    ++begins;
    Iomap map = next;
    if (follow) map.offset = FileOffset(roundDown(pos.v, kBlock));
    map.cookie = mapping.extents.sequence();
    return map;
  }
  Status end(Mapping&, const Iomap& map, FileOffset, ByteCount done, IomapIntent) override {
    ++ends;
    ended.push_back(done.v);
    endFlags = map.flags;
    return Status::ok();
  }
  void punchDelalloc(Mapping&, FileOffset, FileOffset) override {}

  Iomap next;
  bool follow = false;
  int failure = 0, begins = 0, ends = 0;
  uint32_t endFlags = 0;
  std::vector<uint64_t> ended;
};

Iomap blocks(uint64_t from, uint64_t count, IomapType type, uint32_t flags = 0) {
  Iomap map;
  map.offset = FileOffset(from * kBlock);
  map.length = ByteCount(count * kBlock);
  map.address = DeviceOffset(100 * kBlock);
  map.type = type;
  map.flags = flags;
  return map;
}

class IomapIterTest : public ::testing::Test {
 protected:
  void bump() {
    MutexLock lock(mapping_.extents.mutex());
    mapping_.extents.bump();
  }
  FolioPool pool_{kBlock, ByteCount(1 * MiB)};
  MappingCounters counters_;
  Mapping mapping_{InodeNo(1), kBlock, pool_, counters_};
  ScriptedOps ops_;
};

TEST_F(IomapIterTest, ProvidersThatAnswerNonsenseAreRefused) {
  struct Case {
    const char* what;
    Iomap map;
    IomapIntent intent = IomapIntent::Read;
  };
  Iomap halfBlock = blocks(0, 2, IomapType::Mapped), halfAddress = halfBlock;
  halfBlock.length = ByteCount(kBlock + 512);
  halfAddress.address = DeviceOffset(512);
  const Case cases[] = {
      {"empty", blocks(0, 0, IomapType::Mapped)},
      {"behind", blocks(1, 4, IomapType::Mapped)},
      {"stale", blocks(0, 4, IomapType::Mapped, kIomapStale)},
      {"inline", blocks(0, 4, IomapType::Inline)},
      {"half a block", halfBlock},
      {"address in a block", halfAddress},
      {"hole for a write", blocks(0, 4, IomapType::Hole), IomapIntent::Write},
      {"hole for a direct write", blocks(0, 4, IomapType::Hole), IomapIntent::DirectWrite},
      {"promise for a direct write", blocks(0, 4, IomapType::Delalloc), IomapIntent::DirectWrite},
  };
  for (const Case& c : cases) {
    ops_.next = c.map;
    IomapIter iter(mapping_, ops_, FileOffset(10), ByteCount(100), c.intent);
    EXPECT_EQ(iter.next().errnum(), EUCLEAN) << c.what;
    EXPECT_EQ(ops_.begins, ops_.ends) << c.what;
  }
}

TEST_F(IomapIterTest, EveryBeginHasItsEndWithWhatWasDone) {
  ops_.next = blocks(0, 2, IomapType::Mapped);
  ops_.follow = true;
  {
    IomapIter iter(mapping_, ops_, FileOffset(10), ByteCount(4 * kBlock), IomapIntent::Read);
    EXPECT_TRUE(*iter.next());
    EXPECT_EQ(iter.length(), ByteCount(2 * kBlock - 10));
    iter.advance(ByteCount(100));
    EXPECT_TRUE(*iter.next());
    EXPECT_EQ(iter.pos(), FileOffset(110));
    iter.markStale();
  }
  EXPECT_THAT(ops_.ended, ElementsAre(100, 0));
  EXPECT_NE(ops_.endFlags & kIomapStale, 0u);
}

TEST_F(IomapIterTest, AFailedBeginHasNoEnd) {
  ops_.failure = ENOSPC;
  IomapIter iter(mapping_, ops_, FileOffset(0), ByteCount(10), IomapIntent::Write);
  EXPECT_EQ(iter.next().errnum(), ENOSPC);
  EXPECT_EQ(ops_.ends, 0);
}

TEST_F(IomapIterTest, NoProgressEndsTheLoopUnlessTheMapWasStale) {
  ops_.next = blocks(0, 8, IomapType::Mapped);
  IomapIter iter(mapping_, ops_, FileOffset(0), ByteCount(kBlock), IomapIntent::Write);
  for (int round = 0; round < 5; ++round) {
    EXPECT_TRUE(*iter.next());
    EXPECT_EQ(iter.lockFirst(), round >= 2) << round;
    iter.markStale();
  }
  EXPECT_TRUE(*iter.next());
  EXPECT_FALSE(*iter.next());
  EXPECT_EQ(ops_.begins, ops_.ends);
}

TEST_F(IomapIterTest, ProgressEndsLockFirst) {
  ops_.next = blocks(0, 8, IomapType::Mapped);
  IomapIter iter(mapping_, ops_, FileOffset(0), ByteCount(8 * kBlock), IomapIntent::Write);
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE(*iter.next());
    if (round < 2) iter.markStale();
  }
  EXPECT_TRUE(iter.lockFirst());
  bump();
  EXPECT_FALSE(iter.valid());
  EXPECT_TRUE(iter.resampleLocked().isOk());
  EXPECT_TRUE(iter.valid());
  iter.advance(ByteCount(kBlock));
  EXPECT_FALSE(iter.lockFirst());
  EXPECT_EQ(counters_.lockFirst, 1u);
}

TEST_F(IomapIterTest, NewIsARangeOfBytesAndRemapsAreClippedToIt) {
  ops_.next = blocks(4, 4, IomapType::Delalloc, kIomapNew);
  IomapIter iter(mapping_, ops_, FileOffset(4 * kBlock + 10), ByteCount(20 * kBlock),
                 IomapIntent::Write);
  EXPECT_TRUE(*iter.next());
  iter.markStale();
  ops_.next = blocks(0, 6, IomapType::Delalloc);  // begins before the range, ends inside it
  EXPECT_TRUE(*iter.next());
  EXPECT_NE(iter.map().flags & kIomapNew, 0u);
  EXPECT_EQ(iter.map().offset, FileOffset(4 * kBlock));
  EXPECT_EQ(iter.map().end(), FileOffset(6 * kBlock));
  iter.advance(iter.length());
  ops_.next = blocks(0, 30, IomapType::Unwritten);  // ends behind it
  EXPECT_TRUE(*iter.next());
  EXPECT_NE(iter.map().flags & kIomapNew, 0u);
  EXPECT_EQ(iter.map().end(), FileOffset(8 * kBlock));
  EXPECT_EQ(iter.map().address, DeviceOffset(104 * kBlock));
  EXPECT_THAT(iter.unusedNew(), ElementsAre(Pair(FileOffset(6 * kBlock), FileOffset(8 * kBlock))));
  iter.advance(iter.length());
  EXPECT_TRUE(*iter.next());
  EXPECT_EQ(iter.map().flags & kIomapNew, 0u);
  EXPECT_TRUE(iter.unusedNew().empty());
  EXPECT_EQ(counters_.remapKeptNew, 2u);
}

TEST_F(IomapIterTest, ARangeReservedTwiceIsOneRange) {
  ops_.next = blocks(0, 2, IomapType::Delalloc, kIomapNew);
  IomapIter iter(mapping_, ops_, FileOffset(0), ByteCount(20 * kBlock), IomapIntent::Write);
  EXPECT_TRUE(*iter.next());
  iter.markStale();
  ops_.next = blocks(0, 5, IomapType::Delalloc, kIomapNew);
  EXPECT_TRUE(*iter.next());
  EXPECT_THAT(iter.unusedNew(), ElementsAre(Pair(FileOffset(0), FileOffset(5 * kBlock))));
}

TEST_F(IomapIterTest, ARemapThatBecameMappedIsNotNew) {
  ops_.next = blocks(0, 2, IomapType::Delalloc, kIomapNew);
  IomapIter iter(mapping_, ops_, FileOffset(0), ByteCount(kBlock), IomapIntent::Write);
  EXPECT_TRUE(*iter.next());
  iter.markStale();
  ops_.next = blocks(0, 2, IomapType::Mapped);
  EXPECT_TRUE(*iter.next());
  EXPECT_EQ(iter.map().flags & kIomapNew, 0u);
  EXPECT_EQ(counters_.remapMaskedNew, 1u);
}

TEST(ErrSeqTest, AnErrorIsToldOncePerOpenFile) {
  ErrSeq errors;
  ErrSeq::Cursor first = errors.sample();
  EXPECT_EQ(errors.checkAndAdvance(first), 0);
  errors.set(EIO);
  ErrSeq::Cursor later = errors.sample();
  EXPECT_EQ(errors.checkAndAdvance(first), EIO);
  EXPECT_EQ(errors.checkAndAdvance(first), 0);
  EXPECT_EQ(errors.checkAndAdvance(later), 0);
  errors.set(EIO);
  EXPECT_EQ(errors.checkAndAdvance(first), EIO) << "the same error again is a new one";
  errors.set(ENOSPC);
  EXPECT_EQ(errors.checkAndAdvance(later), ENOSPC);
}

}  // namespace
}  // namespace ourfs
