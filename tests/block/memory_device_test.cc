#include "block/memory_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

namespace ourfs {
namespace {

class MemoryDeviceTest : public testing::TestWithParam<uint32_t> {
 protected:
  std::vector<std::byte> filled(int value) {
    return std::vector<std::byte>(GetParam(), static_cast<std::byte>(value));
  }
  void write(BlockDevice& device, uint64_t sector, int value) {
    ASSERT_TRUE(device.write(DeviceOffset(sector * GetParam()), filled(value)).isOk());
  }
  int first(BlockDevice& device, uint64_t sector) {
    std::vector<std::byte> b(GetParam());
    EXPECT_TRUE(device.read(DeviceOffset(sector * GetParam()), b).isOk());
    EXPECT_TRUE(std::all_of(b.begin(), b.end(), [&](std::byte x) { return x == b[0]; }));
    return static_cast<int>(b[0]);
  }
  std::unique_ptr<MemoryDevice> device_ = MemoryDevice::create(ByteCount(4 * MiB), GetParam());
};

TEST_P(MemoryDeviceTest, FillShowsWhereverNothingWasWritten) {
  write(*device_, 1, 7);
  device_->setFill(std::byte{0xEE});
  EXPECT_EQ(first(*device_, 0), 0xEE);
  EXPECT_EQ(first(*device_, 1), 7);
  EXPECT_EQ(first(*device_, 2), 0xEE);
  ASSERT_TRUE(device_->discard(DeviceOffset(GetParam()), ByteCount(GetParam())).isOk());
  EXPECT_EQ(first(*device_, 1), 0xEE);
}

TEST_P(MemoryDeviceTest, ACloneAndItsOriginalDoNotSeeEachOthersWrites) {
  device_->setFill(std::byte{0xEE});
  write(*device_, 0, 1);
  auto copy = device_->clone();
  write(*device_, 0, 2);
  write(*copy, 1, 3);
  EXPECT_EQ(first(*device_, 0), 2);
  EXPECT_EQ(first(*copy, 0), 1);
  EXPECT_EQ(first(*device_, 1), 0xEE);
  EXPECT_EQ(first(*copy, 1), 3);
  auto second = copy->clone();
  copy.reset();
  write(*second, 1, 4);
  EXPECT_EQ(first(*second, 0), 1);
  EXPECT_EQ(first(*second, 1), 4);
}

TEST_P(MemoryDeviceTest, ManyClonesMayBeChangedAtOnce) {
  write(*device_, 0, 1);
  std::vector<std::unique_ptr<MemoryDevice>> clones;
  for (int i = 0; i < 4; ++i) clones.push_back(device_->clone());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (uint64_t s = 1; s < 50; ++s) write(*clones[static_cast<size_t>(i)], s, 10 + i);
    });
  }
  for (uint64_t s = 1; s < 50; ++s) write(*device_, s, 9);
  for (std::thread& t : threads) t.join();
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(first(*clones[static_cast<size_t>(i)], 0), 1);
    EXPECT_EQ(first(*clones[static_cast<size_t>(i)], 49), 10 + i);
  }
  EXPECT_EQ(first(*device_, 49), 9);
}

INSTANTIATE_TEST_SUITE_P(Sectors, MemoryDeviceTest, testing::Values(512, 4096, 65536));

}  // namespace
}  // namespace ourfs
