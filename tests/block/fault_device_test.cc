#include "block/fault_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "block/io_batch.h"
#include "block/memory_device.h"

namespace ourfs {
namespace {

class FaultDeviceTest : public testing::Test {
 protected:
  static std::vector<std::byte> filled(size_t sectors, int value) {
    return std::vector<std::byte>(sectors * kSector, static_cast<std::byte>(value));
  }
  Status write(uint64_t sector, size_t sectors, int value, IoClass cls = IoClass::Other) {
    return device_->write(DeviceOffset(sector * kSector), filled(sectors, value), cls);
  }
  // What the inner device holds in a sector: its byte if all are the same, or -1.
  int inner(uint64_t sector) { return uniform(*memory_, sector); }
  static int uniform(BlockDevice& device, uint64_t sector) {
    std::vector<std::byte> b(kSector);
    EXPECT_TRUE(device.read(DeviceOffset(sector * kSector), b).isOk());
    const bool all = std::all_of(b.begin(), b.end(), [&](std::byte x) { return x == b[0]; });
    return all ? static_cast<int>(b[0]) : -1;
  }
  int add(FaultKind kind, std::optional<IoOp> op = {}, uint64_t skip = 0, uint64_t times = 1) {
    FaultRule rule;
    rule.kind = kind;
    rule.op = op;
    rule.skip = skip;
    rule.times = times;
    return device_->addRule(rule);
  }

  std::unique_ptr<MemoryDevice> memory_ = MemoryDevice::create(ByteCount(MiB));
  std::unique_ptr<FaultDevice> device_ = FaultDevice::wrap(*memory_);
};

TEST_F(FaultDeviceTest, AnErrorHitsTheNthRequestAndDoesNothing) {
  const int rule = add(FaultKind::Error, IoOp::Write, 1, 2);
  EXPECT_TRUE(write(0, 1, 1).isOk());
  EXPECT_EQ(write(1, 1, 1).errnum(), EIO);
  EXPECT_EQ(write(2, 1, 1).errnum(), EIO);
  EXPECT_TRUE(write(3, 1, 1).isOk());
  EXPECT_EQ(device_->hits(rule), 2u);
  EXPECT_EQ(inner(1), 0);
  EXPECT_EQ(inner(3), 1);
}

TEST_F(FaultDeviceTest, ARuleMatchesByOperationClassAndPlace) {
  FaultRule rule;
  rule.op = IoOp::Write;
  rule.cls = IoClass::Journal;
  rule.at = DeviceOffset(5 * kSector + 100);
  rule.errnum = ENOSPC;
  rule.times = UINT64_MAX;
  device_->addRule(rule);
  EXPECT_TRUE(write(5, 1, 1, IoClass::Data).isOk());
  EXPECT_TRUE(write(4, 1, 1, IoClass::Journal).isOk());
  EXPECT_TRUE(write(6, 1, 1, IoClass::Journal).isOk());
  EXPECT_EQ(uniform(*device_, 5), 1) << "reads pass";
  EXPECT_EQ(write(3, 4, 1, IoClass::Journal).errnum(), ENOSPC);
  EXPECT_TRUE(device_->flush(IoClass::Journal).isOk()) << "a flush touches no place";
}

TEST_F(FaultDeviceTest, AShortWriteLeavesItsFirstHalfAndFails) {
  add(FaultKind::Short);
  EXPECT_EQ(write(0, 5, 9).errnum(), EIO);
  for (uint64_t s = 0; s < 5; ++s) EXPECT_EQ(inner(s), s < 2 ? 9 : 0) << s;
}

TEST_F(FaultDeviceTest, ADroppedWriteSaysItSucceeded) {
  add(FaultKind::Drop);
  EXPECT_TRUE(write(0, 1, 9).isOk());
  EXPECT_EQ(inner(0), 0);
}

TEST_F(FaultDeviceTest, AFlushIsDroppedOnlyIfTheRuleSaysFlush) {
  const int any = add(FaultKind::Drop);
  EXPECT_TRUE(device_->flush().isOk());
  EXPECT_EQ(device_->hits(any), 0u);
  const int flushes = add(FaultKind::Drop, IoOp::Flush);
  EXPECT_TRUE(device_->flush().isOk());
  EXPECT_EQ(device_->hits(flushes), 1u);
}

TEST_F(FaultDeviceTest, AMisdirectedWriteLandsElsewhereOnTheDevice) {
  FaultRule rule;
  rule.kind = FaultKind::Misdirect;
  rule.shift = ByteCount(4 * kSector);
  rule.times = 2;
  device_->addRule(rule);
  EXPECT_TRUE(write(0, 1, 9).isOk());
  EXPECT_EQ(inner(0), 0);
  EXPECT_EQ(inner(4), 9);
  const uint64_t last = MiB / kSector - 1;
  EXPECT_TRUE(write(last, 1, 8).isOk());
  EXPECT_EQ(inner(last), 0);
  EXPECT_EQ(inner(last - 4), 8) << "backwards, where it would leave the device";
}

TEST_F(FaultDeviceTest, AFlippedWriteDiffersInOneBitAndLeavesTheCallersMemory) {
  FaultRule rule;
  rule.kind = FaultKind::Flip;
  rule.op = IoOp::Write;
  rule.bit = kSector * 8 + 3;
  device_->addRule(rule);
  const std::vector<std::byte> data = filled(2, 0xF0);
  EXPECT_TRUE(device_->write(DeviceOffset(0), data).isOk());
  EXPECT_EQ(data, filled(2, 0xF0));
  std::vector<std::byte> stored(2 * kSector);
  ASSERT_TRUE(memory_->read(DeviceOffset(0), stored).isOk());
  EXPECT_EQ(stored[kSector], std::byte{0xF8});
  stored[kSector] = std::byte{0xF0};
  EXPECT_EQ(stored, data);
}

TEST_F(FaultDeviceTest, AFlippedReadLeavesTheDevice) {
  FaultRule rule;
  rule.kind = FaultKind::Flip;
  rule.op = IoOp::Read;
  device_->addRule(rule);
  std::vector<std::byte> back(kSector);
  ASSERT_TRUE(device_->read(DeviceOffset(0), back).isOk());
  EXPECT_EQ(back[0], std::byte{1});
  EXPECT_EQ(inner(0), 0);
}

TEST_F(FaultDeviceTest, ADelayedRequestCompletesLater) {
  FaultRule rule;
  rule.kind = FaultKind::Delay;
  rule.delay = std::chrono::milliseconds(3);
  device_->addRule(rule);
  const auto before = std::chrono::steady_clock::now();
  EXPECT_TRUE(write(0, 1, 9).isOk());
  EXPECT_GE(std::chrono::steady_clock::now() - before, rule.delay);
}

TEST_F(FaultDeviceTest, AHeldRequestReachesTheDeviceWhenItsRuleGoes) {
  const int rule = add(FaultKind::Hold, IoOp::Write, 0, UINT64_MAX);
  const std::vector<std::byte> data = filled(1, 9);
  IoBatch batch(*device_);
  batch.write(DeviceOffset(0), data);
  batch.write(DeviceOffset(kSector), data);
  EXPECT_EQ(device_->held(), 2u);
  EXPECT_EQ(batch.completedNow(), 0u);
  EXPECT_EQ(inner(0), 0);
  device_->removeRule(rule);
  EXPECT_TRUE(batch.await().isOk());
  EXPECT_EQ(device_->held(), 0u);
  EXPECT_EQ(inner(1), 9);
  EXPECT_EQ(device_->hits(rule), 2u) << "a removed rule still says how often it hit";
}

TEST_F(FaultDeviceTest, ClearReleasesAndForgetsEveryRule) {
  add(FaultKind::Hold, IoOp::Flush);
  add(FaultKind::Error, IoOp::Write, 0, UINT64_MAX);
  IoBatch batch(*device_);
  IoRequest flush;
  flush.op = IoOp::Flush;
  batch.submit(std::move(flush));
  EXPECT_EQ(device_->held(), 1u);
  device_->clear();
  EXPECT_TRUE(batch.await().isOk());
  EXPECT_TRUE(write(0, 1, 9).isOk());
}

TEST_F(FaultDeviceTest, TheFirstRuleThatHitsDecides) {
  add(FaultKind::Error, IoOp::Write);
  const int second = add(FaultKind::Drop, IoOp::Write);
  EXPECT_EQ(write(0, 1, 9).errnum(), EIO);
  EXPECT_EQ(device_->hits(second), 0u);
  EXPECT_TRUE(write(0, 1, 9).isOk());
  EXPECT_EQ(device_->hits(second), 1u);
  EXPECT_TRUE(write(0, 1, 9).isOk());
  EXPECT_EQ(inner(0), 9);
}

TEST_F(FaultDeviceTest, ARuleTellsWhatItSawAndWhatItHitLast) {
  FaultRule rule;
  rule.kind = FaultKind::Misdirect;
  rule.cls = IoClass::Index;
  rule.shift = ByteCount(4 * kSector);
  rule.skip = 1;
  const int number = device_->addRule(rule);
  EXPECT_TRUE(write(0, 1, 9, IoClass::Index).isOk());
  EXPECT_FALSE(device_->lastHit(number).has_value());
  EXPECT_TRUE(write(6, 2, 9, IoClass::Index).isOk());
  EXPECT_TRUE(write(8, 2, 9, IoClass::Index).isOk());
  EXPECT_TRUE(write(8, 2, 9, IoClass::Data).isOk());
  EXPECT_EQ(device_->matched(number), 3u);
  const std::optional<FaultHit> hit = device_->lastHit(number);
  ASSERT_TRUE(hit.has_value());
  EXPECT_EQ(hit->op, IoOp::Write);
  EXPECT_EQ(hit->cls, IoClass::Index);
  EXPECT_EQ(hit->offset.v, 6 * kSector);
  EXPECT_EQ(hit->length.v, 2 * kSector);
  EXPECT_EQ(hit->landed.v, 10 * kSector);
}

TEST_F(FaultDeviceTest, RulesMayChangeWhileRequestsRun) {
  std::atomic<bool> stop{false};
  std::atomic<int> strange{0};
  std::thread writer([&] {
    while (!stop) {
      const int e = write(0, 1, 9).errnum();
      strange += e == 0 || e == ENOSPC ? 0 : 1;
    }
  });
  for (int i = 0; i < 200; ++i) {
    FaultRule rule;
    rule.errnum = ENOSPC;
    rule.times = UINT64_MAX;
    const int number = device_->addRule(rule);
    device_->removeRule(number);
  }
  stop = true;
  writer.join();
  EXPECT_EQ(strange, 0);
}

}  // namespace
}  // namespace ourfs
