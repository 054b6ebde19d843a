// InodeTable: what stays in core, for how long, and how it leaves.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "common/sync_point.h"
#include "fs/inode.h"
#include "random_seed.h"

namespace ourfs::test {
namespace {

using Retired = InodeTable::Retired;

class InodeTableTest : public ::testing::Test {
 protected:
  void TearDown() override { SyncPoints::instance().reset(); }
  InodeTable table_{[this](InodeNo ino) -> Result<InodeRecord> {
                      ++loads_;
                      SYNC_POINT("test.load");
                      if (ino.v >= 1000) return Status::error(ENOENT);
                      InodeRecord r;
                      r.mode = S_IFREG | 0644;
                      r.nlink = ino.v >= 900 ? 0 : 1;
                      r.size = ino.v;
                      return r;
                    },
                    [this](InodePtr inode) {
                      ++inactivated_;
                      last_ = inode->ino;
                    }};
  InodePtr get(uint64_t ino) {
    auto inode = table_.get(InodeNo(ino));
    EXPECT_TRUE(inode.isOk());
    return inode.isOk() ? *inode : nullptr;
  }
  std::atomic<int> loads_{0}, inactivated_{0};
  std::atomic<InodeNo> last_{InodeNo(0)};
};

TEST_F(InodeTableTest, AnInodeIsLoadedOnceAndFoundAfterwards) {
  EXPECT_EQ(table_.find(InodeNo(5)), nullptr);
  InodePtr inode = get(5);
  EXPECT_EQ(get(5), inode);
  EXPECT_EQ(table_.find(InodeNo(5)), inode);
  EXPECT_EQ(loads_, 1);
  EXPECT_EQ(table_.size(), 1u);
}

TEST_F(InodeTableTest, AnUnknownInodeIsAnErrorAndLeavesNothing) {
  EXPECT_EQ(table_.get(InodeNo(1000)).errnum(), ENOENT);
  EXPECT_EQ(table_.size(), 0u);
}

TEST_F(InodeTableTest, TwoThreadsThatAskAtOnceGetOneInode) {
  SyncPoints::instance().park("test.load");
  InodePtr first, second;
  std::thread a([&] { first = get(7); });
  ASSERT_TRUE(SyncPoints::instance().awaitParked("test.load"));
  std::thread b([&] { second = get(7); });
  SyncPoints::instance().release("test.load");
  a.join();
  b.join();
  EXPECT_EQ(first, second);
  EXPECT_EQ(loads_, 1);
}

TEST_F(InodeTableTest, TheLastUseOfAnUnlinkedInodeInactivatesIt) {
  InodePtr linked = get(1), unlinked = get(901);
  for (const InodePtr& inode : {linked, unlinked}) {
    table_.addLookup(inode, 3);
    table_.addOpen(inode);
    table_.forget(inode->ino, 2);
    table_.forget(inode->ino, 1);
    EXPECT_TRUE(table_.inUse(inode->ino));
    EXPECT_TRUE(table_.isOpen(inode->ino));
    EXPECT_EQ(inactivated_, 0);
    table_.dropOpen(inode);
    EXPECT_FALSE(table_.inUse(inode->ino));
  }
  EXPECT_EQ(inactivated_, 1);
  EXPECT_EQ(last_.load(), InodeNo(901));
}

TEST_F(InodeTableTest, ForgettingMoreThanWasLookedUpIsHarmless) {
  InodePtr inode = get(901);
  table_.forget(inode->ino, 5);
  EXPECT_EQ(inactivated_, 0);
  table_.addLookup(inode);
  table_.forget(inode->ino, 5);
  table_.forget(InodeNo(77), 1);
  EXPECT_EQ(inactivated_, 1);
}

TEST_F(InodeTableTest, ShrinkDropsTheLongestUnusedAndNothingThatIsUsedHeldOrBusy) {
  for (uint64_t i = 1; i <= 200; ++i) get(i);
  InodePtr held = get(3), used = get(4), opened = get(6);
  table_.addLookup(used);
  table_.addOpen(opened);
  used.reset();
  opened.reset();
  table_.shrink(10, [](Inode& inode) { return inode.ino == InodeNo(8); });
  for (uint64_t kept : {3, 4, 6, 8}) EXPECT_NE(table_.find(InodeNo(kept)), nullptr) << kept;
  EXPECT_EQ(table_.find(InodeNo(1)), nullptr);
  EXPECT_LE(table_.unused(), 12u);
  EXPECT_GE(table_.unused(), 10u);
}

TEST_F(InodeTableTest, RetireSaysWhyAnInodeStays) {
  InodePtr inode = get(5);
  auto gone = [](Inode&) { return true; };
  EXPECT_EQ(table_.retire(InodeNo(5), gone), Retired::Held);
  table_.addOpen(inode);
  EXPECT_EQ(table_.retire(InodeNo(5), gone), Retired::InUse);
  table_.dropOpen(inode);
  inode.reset();
  EXPECT_EQ(table_.retire(InodeNo(5), [](Inode&) { return false; }), Retired::Kept);
  EXPECT_NE(table_.find(InodeNo(5)), nullptr);
  EXPECT_EQ(table_.retire(InodeNo(5), gone), Retired::Gone);
  EXPECT_EQ(table_.retire(InodeNo(5), gone), Retired::Absent);
}

TEST_F(InodeTableTest, WhoAsksForALeavingInodeWaitsAndGetsANewOne) {
  get(5);
  std::thread asker;
  InodePtr found;
  auto retired = table_.retire(InodeNo(5), [&](Inode& inode) {
    EXPECT_EQ(table_.find(InodeNo(5)).get(), &inode);  // an ioend still finds it
    EXPECT_TRUE(table_.all().empty());
    asker = std::thread([&] { found = get(5); });
    return true;
  });
  asker.join();
  EXPECT_EQ(retired, Retired::Gone);
  EXPECT_EQ(loads_, 2);
  EXPECT_EQ(table_.find(InodeNo(5)), found);
}

TEST_F(InodeTableTest, ReleaseAllEndsEveryUse) {
  for (uint64_t i : {1, 2, 901}) {
    InodePtr inode = get(i);
    table_.addLookup(inode);
    table_.addOpen(inode);
  }
  table_.releaseAll();
  EXPECT_FALSE(table_.inUse(InodeNo(1)));
  EXPECT_EQ(inactivated_, 1);
  EXPECT_EQ(table_.unused(), 3u);
}

TEST_F(InodeTableTest, ThreadsMayLoadUseAndDropAtWill) {
  const uint64_t seed = randomSeed("inode table");
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Random random(seed + t);
      for (int i = 0; i < 3000; ++i) {
        InodePtr inode = get(1 + random.below(20));
        EXPECT_EQ(inode->currentSize(), inode->ino.v);
        table_.addLookup(inode);
        InodeNo ino = inode->ino;
        inode.reset();
        if (random.oneIn(8)) table_.shrink(2, [](Inode&) { return false; });
        EXPECT_TRUE(table_.inUse(ino));
        table_.forget(ino, 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(table_.unused(), table_.size());
}

}  // namespace
}  // namespace ourfs::test
