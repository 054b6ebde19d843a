// SpaceAllocator against a simple model, and the rules of promises and busy blocks.
#include "fs/space.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <set>
#include <vector>

#include "common/sync_point.h"
#include "mutant.h"
#include "random_seed.h"
#include "rounds.h"

namespace ourfs {
namespace {

BlockRun run(uint64_t start, uint64_t count) { return {BlockNo(start), BlockCount(count)}; }

std::vector<BlockRun> freeRuns(const SpaceAllocator& space) {
  std::vector<BlockRun> runs;
  space.forEachFree([&](BlockRun r) { runs.push_back(r); });
  return runs;
}

class SpaceTest : public ::testing::Test {
 protected:
  void TearDown() override { SyncPoints::instance().reset(); }
  SpaceAllocator space_{BlockNo(100), BlockNo(1100), BlockCount(0)};

  BlockRun take(uint64_t want, uint64_t hint = 0) {
    auto got = space_.allocate(BlockCount(want), BlockNo(hint), false);
    EXPECT_TRUE(got.isOk());
    return got.isOk() ? *got : BlockRun{};
  }
};

TEST_F(SpaceTest, AllBlocksOfTheRangeAreFreeAtFirst) {
  EXPECT_EQ(space_.counts().total, BlockCount(1000));
  EXPECT_EQ(space_.counts().free, BlockCount(1000));
  EXPECT_EQ(freeRuns(space_), std::vector<BlockRun>{run(100, 1000)});
}

TEST_F(SpaceTest, MarkUsedRefusesWhatIsOutsideOrUsedTwice) {
  EXPECT_FALSE(space_.markUsed(run(99, 2)));
  EXPECT_FALSE(space_.markUsed(run(1099, 2)));
  EXPECT_FALSE(space_.markUsed(run(200, 0)));
  EXPECT_FALSE(space_.markUsed(run(200, UINT64_MAX)));
  EXPECT_TRUE(space_.markUsed(run(200, 10)));
  EXPECT_FALSE(space_.markUsed(run(195, 6)));
  EXPECT_EQ(freeRuns(space_), (std::vector<BlockRun>{run(100, 100), run(210, 890)}));
}

TEST_F(SpaceTest, TheHintIsFollowedWhereARunOfTheWantedSizeIsFree) {
  EXPECT_EQ(take(20, 500), run(500, 20));
  EXPECT_EQ(take(20, 520), run(520, 20));
  EXPECT_EQ(take(20, 500), run(540, 20)) << "taken: the next free run behind it";
}

TEST_F(SpaceTest, AWholeRunIsPreferredToASplitOneAtTheHint) {
  ASSERT_TRUE(space_.markUsed(run(505, 95)));
  EXPECT_EQ(take(20, 500), run(600, 20));
}

TEST_F(SpaceTest, TheLongestRunIsGivenWhereNoneIsLongEnough) {
  for (uint64_t b = 100; b < 1100; b += 10) ASSERT_TRUE(space_.markUsed(run(b, b == 500 ? 3 : 6)));
  EXPECT_EQ(take(100), run(503, 7));
  EXPECT_EQ(take(100).count, BlockCount(4));
}

TEST_F(SpaceTest, SmallAndLargeRequestsComeFromDifferentPlaces) {
  const BlockRun small = take(1), large = take(200), next = take(1);
  EXPECT_EQ(next.start, small.start + small.count);
  EXPECT_GT(large.start, next.start);
}

TEST_F(SpaceTest, APromiseCanAlwaysBeKept) {
  ASSERT_TRUE(space_.reserve(BlockCount(990)).isOk());
  EXPECT_EQ(space_.reserve(BlockCount(11)).errnum(), ENOSPC);
  EXPECT_EQ(take(50).count, BlockCount(10)) << "only what nobody was promised";
  EXPECT_EQ(space_.allocate(BlockCount(1), BlockNo(0), false, SpaceUse::Metadata).errnum(), ENOSPC);
  uint64_t got = 0;
  while (got < 990) {
    auto r = space_.allocate(BlockCount(990 - got), BlockNo(0), true);
    ASSERT_TRUE(r.isOk());
    got += r->count.v;
  }
  EXPECT_EQ(space_.counts().reserved, BlockCount(0));
  EXPECT_EQ(space_.counts().free, BlockCount(0));
}

TEST_F(SpaceTest, DataLeavesTheMetadataReserveAlone) {
  SpaceAllocator space(BlockNo(0), BlockNo(100), BlockCount(10));
  EXPECT_EQ(space.counts().available(), BlockCount(90));
  EXPECT_EQ(space.reserve(BlockCount(91)).errnum(), ENOSPC);
  EXPECT_EQ(space.allocate(BlockCount(100), BlockNo(0), false)->count, BlockCount(90));
  EXPECT_EQ(space.allocate(BlockCount(1), BlockNo(0), false).errnum(), ENOSPC);
  EXPECT_EQ(space.allocate(BlockCount(100), BlockNo(0), false, SpaceUse::Metadata)->count,
            BlockCount(10));
  ScopedMutant mutant("space.data_takes_reserve");
  SpaceAllocator other(BlockNo(0), BlockNo(100), BlockCount(10));
  EXPECT_EQ(other.allocate(BlockCount(100), BlockNo(0), false)->count, BlockCount(100));
  test::reportCaught("space.data_takes_reserve", 1, "data leaves the index its reserve");
}

TEST_F(SpaceTest, FreedBlocksAreBusyUntilTheirTransactionIsDurable) {
  ASSERT_EQ(take(1000).count, BlockCount(1000));
  space_.freeAt(run(300, 5), Lsn(200));
  space_.freeAt(run(400, 5), Lsn(100));
  EXPECT_EQ(space_.counts().busy, BlockCount(10));
  EXPECT_EQ(space_.allocate(BlockCount(1), BlockNo(0), false).errnum(), ENOSPC);
  space_.onDurable(Lsn(199));
  EXPECT_EQ(freeRuns(space_), std::vector<BlockRun>{run(400, 5)});
  space_.onDurable(Lsn(200));
  EXPECT_EQ(space_.counts().free, BlockCount(10));
  space_.freeAt(run(500, 1), Lsn(150));
  EXPECT_EQ(space_.counts().busy, BlockCount(0)) << "durable already";
}

TEST_F(SpaceTest, ReusingFreedBlocksEarlyIsNoticed) {
  ASSERT_EQ(take(1000).count, BlockCount(1000));
  ScopedMutant mutant("space.reuse_freed_early");
  space_.freeAt(run(300, 5), Lsn(200));
  EXPECT_TRUE(space_.allocate(BlockCount(1), BlockNo(0), false).isOk())
      << "the rule is switched off";
}

TEST_F(SpaceTest, AFullVolumeFlushesOnceBeforeItSaysSo) {
  ASSERT_EQ(take(1000).count, BlockCount(1000));
  uint64_t flushes = 0;
  space_.setWhenFull([&](SpaceUse) { space_.onDurable(Lsn(100 * ++flushes)); });
  EXPECT_EQ(space_.reserve(BlockCount(1)).errnum(), ENOSPC);
  EXPECT_EQ(flushes, 1u);
  space_.freeAt(run(300, 5), Lsn(150));
  EXPECT_TRUE(space_.reserve(BlockCount(5)).isOk());
  EXPECT_EQ(flushes, 2u);
  space_.freeAt(run(400, 5), Lsn(350));
  EXPECT_EQ(space_.allocate(BlockCount(1), BlockNo(0), false).errnum(), ENOSPC);
  EXPECT_EQ(flushes, 3u);
  space_.freeAt(run(500, 5), Lsn(400));
  ScopedMutant mutant("space.full_without_flush");
  EXPECT_EQ(space_.reserve(BlockCount(9)).errnum(), ENOSPC) << "10 would be free";
  EXPECT_EQ(flushes, 3u);
  test::reportCaught("space.full_without_flush", 1, "ENOSPC only after a flush freed busy blocks");
}

TEST_F(SpaceTest, WhoeverIsAskedForSpaceLearnsForWhom) {
  ASSERT_EQ(take(1000).count, BlockCount(1000));
  std::vector<SpaceUse> asked;
  space_.setWhenFull([&](SpaceUse use) {
    asked.push_back(use);
    space_.freeUnstored(run(300 + 10 * asked.size(), 1));  // as the index gives from its pool
  });
  EXPECT_TRUE(space_.allocate(BlockCount(1), BlockNo(0), false).isOk());
  EXPECT_TRUE(space_.allocate(BlockCount(1), BlockNo(0), false, SpaceUse::Metadata).isOk());
  EXPECT_TRUE(space_.reserve(BlockCount(1)).isOk());
  EXPECT_EQ(asked, (std::vector{SpaceUse::Data, SpaceUse::Metadata, SpaceUse::Data}));
}

TEST_F(SpaceTest, BlocksFreedTwiceAreNeverGivenOutTwice) {
  ASSERT_EQ(take(1000).count, BlockCount(1000));
  space_.freeUnstored(run(300, 5));
  space_.freeUnstored(run(304, 5));
  EXPECT_EQ(space_.counts().free, BlockCount(5));
  EXPECT_EQ(freeRuns(space_), std::vector<BlockRun>{run(300, 5)});
}

// ---- against a model ----

class Model {
 public:
  Model(uint64_t first, uint64_t end, uint64_t seed)
      : first_(first), space_(BlockNo(first), BlockNo(end), BlockCount(0)), rnd_(seed) {
    for (uint64_t b = first; b < end; ++b) free_.insert(b);
  }

  void allocate(uint64_t want) {
    const uint64_t hint = rnd_.oneIn(2) ? 0 : first_ + rnd_.below(free_.size() + 50);
    auto got = space_.allocate(BlockCount(want), BlockNo(hint), false);
    if (free_.empty()) {
      ASSERT_EQ(got.errnum(), ENOSPC);
      return;
    }
    ASSERT_TRUE(got.isOk());
    ASSERT_GE(got->count.v, 1u);
    ASSERT_LE(got->count.v, want);
    for (uint64_t i = 0; i < got->count.v; ++i) {
      ASSERT_EQ(free_.erase(got->start.v + i), 1u)
          << "block " << got->start.v + i << " was not free";
    }
    used_.push_back(*got);
  }

  void release() {
    if (used_.empty()) return;
    std::swap(used_[rnd_.below(used_.size())], used_.back());
    BlockRun freed = used_.back();
    used_.pop_back();
    if (freed.count.v > 1 && rnd_.oneIn(2)) {  // only a part of it
      const uint64_t keep = rnd_.between(1, freed.count.v - 1);
      used_.push_back({freed.start, BlockCount(keep)});
      freed = {freed.start + BlockCount(keep), BlockCount(freed.count.v - keep)};
    }
    if (rnd_.oneIn(3)) {
      space_.freeUnstored(freed);
      nowFree(freed);
    } else {
      space_.freeAt(freed, Lsn(++lsn_));
      busy_[lsn_] = freed;
    }
  }

  void durable() {
    const uint64_t upTo = rnd_.between(durable_, lsn_);
    durable_ = upTo;
    space_.onDurable(Lsn(upTo));
    while (!busy_.empty() && busy_.begin()->first <= upTo) {
      nowFree(busy_.begin()->second);
      busy_.erase(busy_.begin());
    }
  }

  void check() {
    ASSERT_EQ(space_.counts().free.v, free_.size());
    std::set<uint64_t> seen;
    space_.forEachFree([&](BlockRun r) {
      for (uint64_t i = 0; i < r.count.v; ++i) seen.insert(r.start.v + i);
    });
    ASSERT_EQ(seen, free_);
  }

  void step(uint64_t mostWanted) {
    switch (rnd_.below(8)) {
      case 0:
        return durable();
      case 1:
      case 2:
      case 3:
        return release();
      default:
        return allocate(rnd_.between(1, mostWanted));
    }
  }

 private:
  void nowFree(const BlockRun& r) {
    for (uint64_t i = 0; i < r.count.v; ++i) free_.insert(r.start.v + i);
  }
  const uint64_t first_;
  SpaceAllocator space_;
  test::Random rnd_;
  std::set<uint64_t> free_;
  std::vector<BlockRun> used_;
  std::map<uint64_t, BlockRun> busy_;
  uint64_t lsn_ = 0, durable_ = 0;
};

TEST(SpaceModelTest, RandomUseAgreesWithTheModel) {
  const uint64_t seed = test::randomSeed("space model");
  for (const auto& [first, end, wanted] :
       {std::tuple(3u, 300u, 40u), std::tuple(70u, 5000u, 1u), std::tuple(70000u, 105000u, 20000u),
        std::tuple(0u, 64u, 64u)}) {
    Model model(first, end, seed);
    for (int i = 0; i < 6000; ++i) {
      model.step(wanted);
      if (i % 1000 == 0) model.check();
      if (::testing::Test::HasFatalFailure()) return;
    }
    model.check();
  }
}

TEST(SpaceModelTest, AVolumeFragmentedToSingleBlocksCanBeFilledToTheLastOne) {
  SpaceAllocator space(BlockNo(10), BlockNo(100010), BlockCount(0));
  for (uint64_t b = 10; b < 100010; b += 2) ASSERT_TRUE(space.markUsed(run(b, 1)));
  std::set<uint64_t> got;
  for (auto r = space.allocate(BlockCount(1000), BlockNo(0), false); r.isOk();
       r = space.allocate(BlockCount(1000), BlockNo(0), false)) {
    ASSERT_EQ(r->count.v, 1u);
    ASSERT_EQ(r->start.v % 2, 1u);
    got.insert(r->start.v);
  }
  EXPECT_EQ(got.size(), 50000u);
  EXPECT_EQ(space.counts().free, BlockCount(0));
}

// No figure is judged here; a search that started over each time would take minutes.
TEST(SpaceModelTest, SingleBlocksOfAHugeFragmentedVolumeAreFoundOneAfterTheOther) {
  const uint64_t kBlocks = test::rounds(25ull * 1024 * 1024);  // 100 GiB of 4 KiB
  const int kRounds = test::rounds(test::rounds(1'000'000));
  SpaceAllocator space(BlockNo(0), BlockNo(kBlocks), BlockCount(0));
  for (uint64_t b = 0; b < kBlocks; b += 8) ASSERT_TRUE(space.markUsed(run(b, 5)));
  uint64_t got = 0;
  for (int i = 0; i < kRounds; ++i) {
    auto r =
        space.allocate(BlockCount(i % 2 == 0 ? 1 : 64), BlockNo(i % 3 == 0 ? 12345 : 0), false);
    ASSERT_TRUE(r.isOk());
    got += r->count.v;
  }
  EXPECT_GE(got, static_cast<uint64_t>(kRounds));
  EXPECT_EQ(space.counts().free.v + got, kBlocks / 8 * 3);
}

}  // namespace
}  // namespace ourfs
