// A recovery that fails is found, not fallen over: only a filesystem with a fault gets here.
#include "crash/crash_trial.h"

#include <gtest/gtest.h>

#include "crash/crash_history.h"

namespace ourfs::crash {
namespace {

class CrashTrialTest : public testing::Test {
 protected:
  void SetUp() override {
    auto base = makeBase(options_);
    ASSERT_TRUE(base) << base.status().message();
    image_ = std::move(*base);
  }
  void wipe() { image_ = MemoryDevice::create(options_.volumeSize, 512, 4096); }

  const ExplorerOptions options_;
  std::unique_ptr<MemoryDevice> image_;
  std::mt19937_64 random_{1};
};

TEST_F(CrashTrialTest, AnImageThatCannotBeMountedIsWrong) {
  wipe();
  EXPECT_NE("", judgeImage(*image_, options_, CrashModel(), 0, true).wrong);
}

TEST_F(CrashTrialTest, ACrashDuringARecoveryThatFailsIsAnError) {
  wipe();
  EXPECT_FALSE(crashInRecovery(std::move(image_), options_, random_));
}

TEST_F(CrashTrialTest, ACrashDuringARecoveryLeavesAnImageThatRecovers) {
  auto crashed = crashInRecovery(std::move(image_), options_, random_);
  ASSERT_TRUE(crashed) << crashed.status().message();
  EXPECT_EQ("", judgeImage(**crashed, options_, CrashModel(), 0, true).wrong);
}

}  // namespace
}  // namespace ourfs::crash
