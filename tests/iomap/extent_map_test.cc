#include "iomap/extent_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "random_seed.h"

namespace ourfs {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint32_t kBlockSize = 4096;

// In blocks.
Extent extent(uint64_t offset, uint64_t length, ExtentState state, uint64_t address = 0,
              bool stored = true) {
  return {FileOffset(offset * kBlockSize), ByteCount(length * kBlockSize),
          DeviceOffset(address * kBlockSize), state,
          stored && state != ExtentState::Delalloc && state != ExtentState::Hole};
}
Extent mapped(uint64_t offset, uint64_t length, uint64_t address) {
  return extent(offset, length, ExtentState::Mapped, address);
}
Extent unwritten(uint64_t offset, uint64_t length, uint64_t address, bool stored = true) {
  return extent(offset, length, ExtentState::Unwritten, address, stored);
}
Extent delalloc(uint64_t offset, uint64_t length) {
  return extent(offset, length, ExtentState::Delalloc);
}
Extent hole(uint64_t offset, uint64_t length) { return extent(offset, length, ExtentState::Hole); }

class ExtentMapTest : public ::testing::Test {
 protected:
  ExtentDelta set(const Extent& e) {
    MutexLock lock(map_.mutex());
    return map_.set(e);
  }
  Extent find(uint64_t block) {
    MutexLock lock(map_.mutex());
    return map_.find(FileOffset(block * kBlockSize));
  }
  std::vector<Extent> all() {
    std::vector<Extent> found;
    MutexLock lock(map_.mutex());
    map_.forEach(FileOffset(0), kFileEnd, [&](const Extent& e) {
      found.push_back(e);
      return true;
    });
    return found;
  }
  ExtentMap map_{kBlockSize};
};

TEST_F(ExtentMapTest, WhatIsNotCoveredIsAHoleUpToItsNeighbours) {
  set(mapped(10, 5, 100));
  set(mapped(20, 5, 200));
  EXPECT_EQ(find(0), hole(0, 10));
  EXPECT_EQ(find(17), hole(15, 5));
  EXPECT_EQ(find(12), mapped(10, 5, 100));
  EXPECT_EQ(find(30).end(), kFileEnd);
  EXPECT_EQ(find(30).state, ExtentState::Hole);
}

TEST_F(ExtentMapTest, NeighboursThatContinueEachOtherMergeAndTheDeltaSaysSo) {
  set(mapped(0, 4, 100));
  set(mapped(8, 4, 108));
  ExtentDelta delta = set(mapped(4, 4, 104));
  EXPECT_THAT(all(), ElementsAre(mapped(0, 12, 100)));
  EXPECT_THAT(delta.erased, ElementsAre(mapped(8, 4, 108)));
  EXPECT_THAT(delta.written, ElementsAre(mapped(0, 12, 100)));
  EXPECT_THAT(delta.replaced, IsEmpty());
}

TEST_F(ExtentMapTest, NeighboursThatDoNotContinueOnDiskStayApart) {
  set(mapped(0, 4, 100));
  ExtentDelta delta = set(mapped(4, 4, 200));
  EXPECT_THAT(all(), ElementsAre(mapped(0, 4, 100), mapped(4, 4, 200)));
  EXPECT_THAT(delta.erased, IsEmpty());
  EXPECT_THAT(delta.written, ElementsAre(mapped(4, 4, 200)));
}

TEST_F(ExtentMapTest, ConvertingTheMiddleSplitsTheUnwrittenExtent) {
  set(unwritten(0, 12, 100));
  ExtentDelta delta = set(mapped(4, 4, 104));
  EXPECT_THAT(all(), ElementsAre(unwritten(0, 4, 100), mapped(4, 4, 104), unwritten(8, 4, 108)));
  EXPECT_THAT(delta.erased, IsEmpty());
  EXPECT_THAT(delta.written,
              ElementsAre(unwritten(0, 4, 100), mapped(4, 4, 104), unwritten(8, 4, 108)));
  EXPECT_THAT(delta.replaced, ElementsAre(unwritten(4, 4, 104)));
}

TEST_F(ExtentMapTest, AKeyThatGetsANewValueIsWrittenAndNotErased) {
  set(mapped(0, 8, 100));
  ExtentDelta delta = set(hole(4, 4));
  EXPECT_THAT(delta.erased, IsEmpty());
  EXPECT_THAT(delta.written, ElementsAre(mapped(0, 4, 100)));
  delta = set(hole(0, 4));
  EXPECT_THAT(delta.erased, ElementsAre(mapped(0, 4, 100)));
  EXPECT_THAT(delta.written, IsEmpty());
  EXPECT_THAT(all(), IsEmpty());
}

TEST_F(ExtentMapTest, WhatLivesOnlyInCoreNeverReachesTheDelta) {
  ExtentDelta delta = set(delalloc(0, 8));
  EXPECT_THAT(delta.written, IsEmpty());
  delta = set(unwritten(0, 8, 100, false));
  EXPECT_THAT(delta.written, IsEmpty());
  EXPECT_THAT(delta.erased, IsEmpty());
  EXPECT_THAT(delta.replaced, ElementsAre(delalloc(0, 8)));
  delta = set(mapped(2, 2, 102));
  EXPECT_THAT(delta.written, ElementsAre(mapped(2, 2, 102)));
}

TEST_F(ExtentMapTest, AWriteOfWhatIsThereAlreadyChangesNothingButTheSequence) {
  set(mapped(0, 8, 100));
  const uint64_t before = map_.sequence();
  ExtentDelta delta = set(mapped(2, 2, 102));
  EXPECT_THAT(delta.erased, IsEmpty());
  EXPECT_THAT(delta.written, IsEmpty());
  EXPECT_GT(map_.sequence(), before);
}

TEST_F(ExtentMapTest, ALaterMapNeverRepeatsACookieOfAnEarlierOne) {
  uint64_t last = 0;
  for (int round = 0; round < 3; ++round) {
    ExtentMap map(kBlockSize);
    EXPECT_GT(map.sequence(), last);
    MutexLock lock(map.mutex());
    for (int i = 0; i < 10; ++i) map.bump();
    last = map.sequence();
  }
}

TEST_F(ExtentMapTest, LoadAndUnloadBumpAndKeepTheAccount) {
  const uint64_t before = map_.sequence();
  MutexLock lock(map_.mutex());
  map_.load({mapped(0, 4, 10), unwritten(8, 4, 20)});
  EXPECT_TRUE(map_.loaded());
  EXPECT_EQ(map_.storedBytes(), ByteCount(8 * kBlockSize));
  const uint64_t loaded = map_.sequence();
  EXPECT_GT(loaded, before);
  map_.unload();
  EXPECT_GT(map_.sequence(), loaded);
  EXPECT_FALSE(map_.loaded());
  EXPECT_EQ(map_.count(), 0u);
  EXPECT_EQ(map_.storedBytes(), ByteCount(0));
}

// The model: one entry per block, and what the index would hold if it applied every delta.
struct BlockModel {
  static constexpr uint64_t kBlocks = 200;
  std::vector<Extent> blocks;
  std::map<uint64_t, Extent> index;

  BlockModel() {
    for (uint64_t b = 0; b < kBlocks; ++b) blocks.push_back(hole(b, 1));
  }
  void set(const Extent& e) {
    for (uint64_t b = e.offset.v / kBlockSize; b < e.end().v / kBlockSize; ++b) {
      blocks[b] = e;
      blocks[b].offset = FileOffset(b * kBlockSize);
      blocks[b].length = ByteCount(kBlockSize);
      if (e.address.v != 0) blocks[b].address = e.address + (blocks[b].offset - e.offset);
    }
  }
  void apply(const ExtentDelta& delta) {
    for (const Extent& e : delta.erased) EXPECT_EQ(index.erase(e.offset.v), 1u);
    for (const Extent& e : delta.written) {
      auto it = index.find(e.offset.v);
      EXPECT_TRUE(it == index.end() || it->second != e) << "a write that changes nothing";
      index[e.offset.v] = e;
    }
  }
};

TEST_F(ExtentMapTest, RandomChangesAgreeWithABlockModelAndTheDeltasWithAnIndex) {
  test::Random random(test::randomSeed("ExtentMap"));
  BlockModel model;
  for (int step = 0; step < 20000; ++step) {
    const uint64_t from = random.below(BlockModel::kBlocks);
    const uint64_t length = random.between(1, std::min<uint64_t>(20, BlockModel::kBlocks - from));
    const uint64_t address = 1000 + from + 1000 * random.below(2);
    Extent e = hole(from, length);
    switch (random.below(5)) {
      case 0:
        e = delalloc(from, length);
        break;
      case 1:
        e = mapped(from, length, address);
        break;
      case 2:
        e = unwritten(from, length, address, true);
        break;
      case 3:
        e = unwritten(from, length, address, false);
        break;
      default:
        break;
    }
    model.set(e);
    model.apply(set(e));
    for (uint64_t b = 0; b < BlockModel::kBlocks; ++b) {
      Extent got = find(b);
      if (got.state == ExtentState::Mapped || got.state == ExtentState::Unwritten)
        got.address += FileOffset(b * kBlockSize) - got.offset;
      got.offset = FileOffset(b * kBlockSize);
      got.length = ByteCount(kBlockSize);
      ASSERT_EQ(got, model.blocks[b]) << "block " << b << " step " << step;
    }
    std::map<uint64_t, Extent> stored;
    uint64_t bytes = 0;
    for (const Extent& x : all())
      if (x.stored) stored[x.offset.v] = x, bytes += x.length.v;
    ASSERT_EQ(stored, model.index) << "step " << step;
    MutexLock lock(map_.mutex());
    ASSERT_EQ(map_.storedBytes().v, bytes);
  }
}

}  // namespace
}  // namespace ourfs
