#include "common/sync_point.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace ourfs {
namespace {

Status mayFail() {
  SYNC_POINT_TRY("test.may_fail");
  return Status::ok();
}

class SyncPointTest : public testing::Test {
 protected:
  ~SyncPointTest() override { points_.reset(); }
  SyncPoints& points_ = SyncPoints::instance();
};

TEST_F(SyncPointTest, NothingHappensUnlessArmed) {
  EXPECT_FALSE(SyncPoints::anyArmed());
  SYNC_POINT("test.idle");
  EXPECT_TRUE(mayFail().isOk());
  EXPECT_EQ(points_.hits("test.idle"), 0u);
}

TEST_F(SyncPointTest, AParkedThreadGoesOnlyWhenReleased) {
  points_.park("test.park");
  std::atomic<bool> passed{false};
  std::thread t([&] {
    SYNC_POINT("test.park");
    passed = true;
  });
  ASSERT_TRUE(points_.awaitParked("test.park"));
  EXPECT_FALSE(passed);
  points_.release("test.park");
  t.join();
  EXPECT_TRUE(passed);
  SYNC_POINT("test.park");  // disarmed: would hang otherwise
}

TEST_F(SyncPointTest, AsManyThreadsParkAsAskedForAndNoMore) {
  points_.park("test.two", 2);
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) threads.emplace_back([] { SYNC_POINT("test.two"); });
  ASSERT_TRUE(points_.awaitParked("test.two", 2));
  SYNC_POINT("test.two");  // the third passes
  EXPECT_EQ(points_.hits("test.two"), 3u);
  points_.release("test.two");
  for (std::thread& t : threads) t.join();
}

TEST_F(SyncPointTest, AwaitParkedGivesUpAtItsLimit) {
  points_.park("test.nobody");
  EXPECT_FALSE(points_.awaitParked("test.nobody", 1, std::chrono::milliseconds(1)));
}

TEST_F(SyncPointTest, AForcedErrorComesAsOftenAsAskedFor) {
  points_.forceError("test.may_fail", ENOSPC, 2);
  EXPECT_EQ(mayFail().errnum(), ENOSPC);
  EXPECT_EQ(mayFail().errnum(), ENOSPC);
  EXPECT_TRUE(mayFail().isOk());
}

TEST_F(SyncPointTest, ACallRunsInTheArrivingThread) {
  std::thread::id ran;
  points_.call("test.call", [&] { ran = std::this_thread::get_id(); });
  SYNC_POINT("test.call");
  EXPECT_EQ(ran, std::this_thread::get_id());
}

TEST_F(SyncPointTest, ACallMayArmAnotherPoint) {
  points_.call("test.call", [&] { points_.forceError("test.may_fail", EIO); });
  SYNC_POINT("test.call");
  EXPECT_EQ(mayFail().errnum(), EIO);
}

TEST_F(SyncPointTest, ADelayIsAtLeastAsLongAsAskedFor) {
  points_.delay("test.delay", std::chrono::milliseconds(2));
  const auto before = std::chrono::steady_clock::now();
  SYNC_POINT("test.delay");
  EXPECT_GE(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(2));
}

TEST_F(SyncPointTest, HitsAreCountedFromArmingOn) {
  SYNC_POINT("test.count");
  points_.count("test.count");
  for (int i = 0; i < 3; ++i) SYNC_POINT("test.count");
  EXPECT_EQ(points_.hits("test.count"), 3u);
}

TEST_F(SyncPointTest, ResetReleasesEveryoneAndDisarmsEverything) {
  points_.park("test.park");
  points_.forceError("test.may_fail", EIO);
  points_.setMutant("test.mutant", true);
  std::thread t([] { SYNC_POINT("test.park"); });
  ASSERT_TRUE(points_.awaitParked("test.park"));
  points_.reset();
  t.join();
  EXPECT_FALSE(SyncPoints::anyArmed());
  EXPECT_TRUE(mayFail().isOk());
  EXPECT_FALSE(mutantEnabled("test.mutant"));
}

TEST_F(SyncPointTest, AMutantIsOnForItsScopeOnly) {
  EXPECT_FALSE(mutantEnabled("test.mutant"));
  {
    ScopedMutant mutant("test.mutant");
    EXPECT_TRUE(mutantEnabled("test.mutant"));
    EXPECT_FALSE(mutantEnabled("test.other"));
  }
  EXPECT_FALSE(mutantEnabled("test.mutant"));
  EXPECT_FALSE(SyncPoints::anyArmed());
}

}  // namespace
}  // namespace ourfs
