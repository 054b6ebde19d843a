// Reclaimer: unlinked inodes in batches, and what interrupts one.
#include "../../fs/src/reclaimer.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "common/sync_point.h"

namespace ourfs::test {
namespace {

using namespace std::chrono_literals;

class ReclaimerTest : public ::testing::Test {
 protected:
  ReclaimerTest() {
    reclaimer_.start([] {});
    EXPECT_TRUE(reclaimer_.drain(10s));
  }
  ~ReclaimerTest() override { SyncPoints::instance().reset(); }

  Status contents(Inode& inode) {
    if (onContents_) onContents_(inode.ino.v);
    std::lock_guard lock(mutex_);
    emptied_.push_back(inode.ino.v);
    return std::exchange(nextContents_, Status::ok());
  }
  Status records(std::span<const InodePtr> inodes) {
    if (onRecords_) onRecords_();
    std::lock_guard lock(mutex_);
    Status answer = std::exchange(nextRecords_, Status::ok());
    if (!answer) return answer;
    batches_.emplace_back();
    for (const InodePtr& inode : inodes) batches_.back().push_back(inode->ino.v);
    return answer;
  }
  // All of them in one batch.
  void queueTogether(std::initializer_list<uint64_t> inos) {
    SyncPoints::instance().park("reclaimer.before_reclaim");
    reclaimer_.queue(InodeNo(500));
    ASSERT_TRUE(SyncPoints::instance().awaitParked("reclaimer.before_reclaim"));
    for (uint64_t ino : inos) reclaimer_.queue(InodeNo(ino));
    SyncPoints::instance().release("reclaimer.before_reclaim");
  }
  using Numbers = std::vector<uint64_t>;

  std::function<void(uint64_t)> onContents_;
  std::function<void()> onRecords_;
  std::mutex mutex_;
  Numbers emptied_;
  std::vector<Numbers> batches_;
  Status nextContents_, nextRecords_;
  std::atomic<uint64_t> blocks_{0};
  InodeTable table_{[this](InodeNo ino) -> Result<InodeRecord> {
                      InodeRecord r;
                      r.mode = S_IFREG | 0600;
                      r.nlink = ino.v >= 900 ? 1 : 0;
                      r.blocks = blocks_;
                      return r;
                    },
                    [](InodePtr) {}};
  Reclaimer reclaimer_{table_, [this](Inode& inode) { return contents(inode); },
                       [this](std::span<const InodePtr> inodes) { return records(inodes); }};
};

TEST_F(ReclaimerTest, ManyGoInOneTransaction) {
  queueTogether({1, 2, 3});
  ASSERT_TRUE(reclaimer_.drain(10s));
  EXPECT_EQ(batches_, (std::vector<Numbers>{{500}, {1, 2, 3}}));
  EXPECT_EQ(reclaimer_.reclaimed(), 4u);
  EXPECT_EQ(reclaimer_.waiting(), 0u);
  EXPECT_EQ(table_.size(), 0u);
}

TEST_F(ReclaimerTest, OneThatIsQueuedTwiceGoesOnce) {
  queueTogether({1, 2, 1});
  ASSERT_TRUE(reclaimer_.drain(10s));
  EXPECT_EQ(batches_, (std::vector<Numbers>{{500}, {1, 2}}));
  EXPECT_EQ(reclaimer_.reclaimed(), 3u);
}

TEST_F(ReclaimerTest, OneThatHasANameStays) {
  queueTogether({1, 900, 2});
  ASSERT_TRUE(reclaimer_.drain(10s));
  EXPECT_EQ(batches_, (std::vector<Numbers>{{500}, {1, 2}}));
  EXPECT_NE(table_.find(InodeNo(900)), nullptr);
  EXPECT_EQ(reclaimer_.waiting(), 0u);
}

TEST_F(ReclaimerTest, WithoutSpaceForTheRecordsAllAreTriedAgain) {
  nextRecords_ = Status::error(ENOSPC);
  reclaimer_.queue(InodeNo(1));
  ASSERT_TRUE(reclaimer_.drain(10s));
  EXPECT_EQ(emptied_, (Numbers{1, 1}));
  EXPECT_EQ(batches_, (std::vector<Numbers>{{1}}));
  EXPECT_EQ(reclaimer_.reclaimed(), 1u);
}

TEST_F(ReclaimerTest, WithoutSpaceForContentsTheRestOfTheBatchWaitsToo) {
  SyncPoints::instance().park("reclaimer.before_reclaim");
  reclaimer_.queue(InodeNo(500));
  ASSERT_TRUE(SyncPoints::instance().awaitParked("reclaimer.before_reclaim"));
  for (uint64_t ino : {1, 2}) reclaimer_.queue(InodeNo(ino));
  nextContents_ = Status::error(ENOSPC);  // of 500
  SyncPoints::instance().release("reclaimer.before_reclaim");
  ASSERT_TRUE(reclaimer_.drain(10s));
  EXPECT_EQ(emptied_.front(), 500u);
  EXPECT_EQ(emptied_.size(), 4u);
  EXPECT_EQ(reclaimer_.reclaimed(), 3u);
}

TEST_F(ReclaimerTest, WhatCannotBeRemovedStaysForTheNextMount) {
  nextRecords_ = Status::error(EIO);
  reclaimer_.queue(InodeNo(1));
  ASSERT_TRUE(reclaimer_.drain(10s));
  EXPECT_EQ(reclaimer_.reclaimed(), 0u);
  EXPECT_EQ(reclaimer_.waiting(), 0u);
  EXPECT_NE(table_.find(InodeNo(1)), nullptr);
}

TEST_F(ReclaimerTest, SpaceCountsBeforeTheRecordIsGoneAndOnce) {
  uint64_t atRecords = 0;
  onRecords_ = [&] { atRecords = reclaimer_.freed(); };
  blocks_ = 8;
  reclaimer_.queue(InodeNo(1));
  ASSERT_TRUE(reclaimer_.drain(10s));
  EXPECT_EQ(atRecords, 1u);
  EXPECT_EQ(reclaimer_.freed(), 1u);
  blocks_ = 0;  // there is nothing but the record
  reclaimer_.queue(InodeNo(2));
  ASSERT_TRUE(reclaimer_.drain(10s));
  EXPECT_EQ(atRecords, 1u);
  EXPECT_EQ(reclaimer_.freed(), 2u);
}

TEST_F(ReclaimerTest, StopEndsABatchBetweenTwoInodes) {
  std::thread stopper;
  onContents_ = [&](uint64_t ino) {
    if (ino != 1) return;
    stopper = std::thread([&] { reclaimer_.stop(); });
    while (!reclaimer_.stopping()) std::this_thread::yield();
  };
  queueTogether({1, 2, 3});
  while (reclaimer_.waiting() > 2) std::this_thread::yield();
  stopper.join();
  EXPECT_EQ(batches_, (std::vector<Numbers>{{500}, {1}}));
  EXPECT_EQ(reclaimer_.waiting(), 2u);
}

}  // namespace
}  // namespace ourfs::test
