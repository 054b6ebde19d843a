// A recovery that fails is found, not fallen over: only a filesystem with a fault gets here.
#include "crash/crash_trial.h"

#include <gtest/gtest.h>

#include "crash/crash_actor.h"
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

  const ExplorerOptions options_{};
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

TEST_F(CrashTrialTest, AnOrphanThatIsLeftIsWrong) {
  const History history = recordHistory(
      options_, *image_, [&](Filesystem& filesystem, RecordDevice& device, History& h) -> Status {
        CrashActor actor(filesystem, device, h.model);
        TRY(actor.createFile("a"));
        TRY(actor.unlinkFile("a", false));  // still open
        const auto verdict = judgeMounted(filesystem, {}, h.model, device.mark());
        EXPECT_EQ("orphans are left after a mount", verdict.wrong);
        return Status::ok();
      });
  EXPECT_TRUE(history.status.isOk()) << history.status.message();
}

TEST_F(CrashTrialTest, StatfsIsComparedWithFsck) {
  CheckReport report;
  report.inodes = 10;
  report.freeBlocks = BlockCount(500);
  StatfsReply reply;
  reply.files = 1000;
  reply.filesFree = 990;
  reply.free = 500;
  EXPECT_EQ("", compareSpace(reply, report));
  auto with = [&](int64_t inodes, int64_t blocks) {
    StatfsReply changed = reply;
    changed.filesFree -= static_cast<uint64_t>(inodes);
    changed.free += static_cast<uint64_t>(blocks);
    return compareSpace(changed, report);
  };
  for (const int64_t by : {-1, 1}) {
    EXPECT_NE(with(by, 0).find(" inodes, fsck 10"), std::string::npos) << with(by, 0);
    EXPECT_NE(with(0, by).find(" free blocks, fsck 500"), std::string::npos) << with(0, by);
  }
  // Two of the inodes were unlinked, and the mount has freed them and their blocks.
  report.orphans = 2;
  EXPECT_EQ("", with(-2, 7));
  EXPECT_NE("", with(-2, -1));
  EXPECT_NE("", with(-1, 7));
}

}  // namespace
}  // namespace ourfs::crash
