#include "../../index/src/chunk_pool.h"

#include "index_fixture.h"

namespace ourfs {
namespace {

using namespace test;

class ChunkPoolTest : public IndexTest {};

std::unique_ptr<ChunkPool> poolOf(const std::vector<BlockRun>& runs,
                                  const std::vector<BlockRun>& used = {}) {
  auto pool = ChunkPool::build(runs, used);
  EXPECT_TRUE(pool.isOk());
  return std::move(pool).value();
}

TEST_F(ChunkPoolTest, RandomUseNeverGivesABlockTwice) {
  Random random;
  SCOPED_TRACE(random.trace());
  auto pool = poolOf({{BlockNo(100), BlockCount(500)}, {BlockNo(1000), BlockCount(300)}});
  pool->endHold();
  std::set<uint64_t> owned;
  std::vector<std::vector<BlockRun>> held;
  for (int i = 0; i < 20000; ++i) {
    if (random.oneIn(2)) {
      const uint64_t want = 1 + random.below(40);
      auto got = pool->allocate(want, BlockNo(random.below(1400)));
      EXPECT_EQ(got.isOk(), want <= 800 - owned.size());
      if (!got.isOk()) continue;
      uint64_t sum = 0;
      for (const BlockRun& r : *got) {
        for (uint64_t b = r.start.v; b < (r.start + r.count).v; ++b, ++sum) {
          ASSERT_TRUE(owned.insert(b).second);
          ASSERT_TRUE((b >= 100 && b < 600) || (b >= 1000 && b < 1300));
        }
      }
      ASSERT_EQ(sum, want);
      held.push_back(*got);
    } else if (!held.empty()) {
      std::swap(held[random.below(held.size())], held.back());
      for (const BlockRun& r : held.back()) {
        for (uint64_t b = r.start.v; b < (r.start + r.count).v; ++b) owned.erase(b);
      }
      random.oneIn(2) ? pool->release(held.back()) : pool->giveBack(held.back());
      held.pop_back();
    }
    ASSERT_EQ(pool->free().v, 800 - owned.size());
  }
}

TEST_F(ChunkPoolTest, ContiguousSpaceIsPreferredAndContinuedFromTheHint) {
  auto pool = poolOf({{BlockNo(10), BlockCount(100)}}, {{BlockNo(20), BlockCount(5)}});
  EXPECT_EQ(*pool->allocate(30, BlockNo(0)),
            (std::vector<BlockRun>{{BlockNo(25), BlockCount(30)}}));
  EXPECT_EQ(*pool->allocate(5, BlockNo(55)), (std::vector<BlockRun>{{BlockNo(55), BlockCount(5)}}));
  EXPECT_EQ(*pool->allocate(10, BlockNo(0)),
            (std::vector<BlockRun>{{BlockNo(10), BlockCount(10)}}));
}

TEST_F(ChunkPoolTest, ReleasedBlocksStayBusyUntilTheHoldEnds) {
  auto pool = poolOf({{BlockNo(10), BlockCount(4)}}, {{BlockNo(10), BlockCount(4)}});
  pool->release({{BlockNo(11), BlockCount(2)}});
  EXPECT_EQ(pool->free().v, 0u);
  EXPECT_EQ(pool->allocate(1, BlockNo(0)).errnum(), ENOSPC);
  pool->endHold();
  EXPECT_EQ(*pool->allocate(2, BlockNo(0)), (std::vector<BlockRun>{{BlockNo(11), BlockCount(2)}}));
}

TEST_F(ChunkPoolTest, FilesThatOverlapOrLieOutsideAreRefused) {
  const std::vector<BlockRun> pool = {{BlockNo(10), BlockCount(10)}};
  const auto refused = [&](const std::vector<BlockRun>& used) {
    return ChunkPool::build(pool, used).errnum() == EUCLEAN;
  };
  EXPECT_TRUE(refused({{BlockNo(5), BlockCount(2)}}));
  EXPECT_TRUE(refused({{BlockNo(18), BlockCount(3)}}));
  EXPECT_TRUE(refused({{BlockNo(25), BlockCount(1)}}));
  EXPECT_TRUE(refused({{BlockNo(12), BlockCount(3)}, {BlockNo(14), BlockCount(1)}}));
  EXPECT_FALSE(refused({{BlockNo(12), BlockCount(3)}, {BlockNo(15), BlockCount(5)}}));
}

}  // namespace
}  // namespace ourfs
