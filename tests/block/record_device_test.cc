#include "block/record_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include "block/fault_device.h"
#include "block/io_batch.h"

namespace ourfs {
namespace {

std::vector<std::byte> filled(size_t sectors, int value) {
  return std::vector<std::byte>(sectors * kSector, static_cast<std::byte>(value));
}
// A sector of the device: its byte if all are the same, or -1.
int uniform(BlockDevice& device, uint64_t sector) {
  std::vector<std::byte> b(kSector);
  EXPECT_TRUE(device.read(DeviceOffset(sector * kSector), b).isOk());
  const bool all = std::all_of(b.begin(), b.end(), [&](std::byte x) { return x == b[0]; });
  return all ? static_cast<int>(b[0]) : -1;
}
bool keepAll(size_t, size_t) { return true; }
bool keepNone(size_t, size_t) { return false; }

// --- The recorder ---

class RecordDeviceTest : public testing::Test {
 protected:
  Status write(uint64_t sector, size_t sectors, int value, bool fua = false) {
    return device_->write(DeviceOffset(sector * kSector), filled(sectors, value), IoClass::Data,
                          fua);
  }
  std::unique_ptr<MemoryDevice> memory_ = MemoryDevice::create(ByteCount(MiB));
  std::unique_ptr<FaultDevice> faults_ = FaultDevice::wrap(*memory_);
  std::unique_ptr<RecordDevice> device_ = RecordDevice::wrap(*faults_);
};

TEST_F(RecordDeviceTest, WritesFlushesAndDiscardsAreWrittenDownInOrder) {
  ASSERT_TRUE(write(3, 2, 7, true).isOk());
  ASSERT_TRUE(device_->flush(IoClass::Journal).isOk());
  ASSERT_TRUE(device_->discard(DeviceOffset(0), ByteCount(kSector)).isOk());
  const auto log = device_->log();
  ASSERT_EQ(log.size(), 3u);
  EXPECT_EQ(log[0].op, IoOp::Write);
  EXPECT_EQ(log[0].cls, IoClass::Data);
  EXPECT_TRUE(log[0].fua);
  EXPECT_EQ(log[0].offset, DeviceOffset(3 * kSector));
  EXPECT_EQ(log[0].bytes, filled(2, 7));
  EXPECT_EQ(log[1].op, IoOp::Flush);
  EXPECT_EQ(log[1].cls, IoClass::Journal);
  EXPECT_EQ(log[2].op, IoOp::Discard);
  EXPECT_EQ(log[2].length, ByteCount(kSector));
}

TEST_F(RecordDeviceTest, EveryEventHasItsOwnTime) {
  ASSERT_TRUE(write(0, 1, 1).isOk());
  const uint64_t marked = device_->mark();
  std::vector<std::byte> back(kSector);
  ASSERT_TRUE(device_->read(DeviceOffset(0), back).isOk());
  EXPECT_GT(device_->clock(), marked) << "reads take time too";
  ASSERT_TRUE(device_->flush().isOk());
  const auto log = device_->log();
  ASSERT_EQ(log.size(), 2u);
  EXPECT_LT(log[0].submitted, log[0].completed);
  EXPECT_LT(log[0].completed, marked);
  EXPECT_LT(marked, log[1].submitted);
  EXPECT_EQ(log[1].completed, device_->clock());
}

TEST_F(RecordDeviceTest, WhatIsInFlightHasNoCompletionTime) {
  FaultRule hold;
  hold.kind = FaultKind::Hold;
  const int rule = faults_->addRule(hold);
  const auto data = filled(1, 1);
  IoBatch batch(*device_);
  batch.write(DeviceOffset(0), data);
  EXPECT_EQ(device_->log().at(0).completed, 0u);
  faults_->removeRule(rule);
  ASSERT_TRUE(batch.await().isOk());
  EXPECT_GT(device_->log().at(0).completed, device_->log().at(0).submitted);
}

TEST_F(RecordDeviceTest, FailuresAreMarkedAndRefusalsAreNotRecorded) {
  faults_->addRule(FaultRule());
  EXPECT_EQ(write(0, 1, 1).errnum(), EIO);
  EXPECT_EQ(device_->write(DeviceOffset(MiB), filled(1, 1)).errnum(), EINVAL);
  ASSERT_EQ(device_->log().size(), 1u);
  EXPECT_FALSE(device_->log()[0].ok);
}

TEST_F(RecordDeviceTest, ClearForgetsTheLogAndKeepsTheClock) {
  ASSERT_TRUE(write(0, 1, 1).isOk());
  const uint64_t before = device_->clock();
  device_->clear();
  EXPECT_TRUE(device_->log().empty());
  EXPECT_EQ(device_->clock(), before);
}

TEST_F(RecordDeviceTest, ManyThreadsShareOneClock) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 100; ++i) {
        EXPECT_TRUE(write(t * 100 + i, 1, static_cast<int>(t)).isOk());
        if (i % 10 == 0) {
          EXPECT_TRUE(device_->flush().isOk());
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  std::set<uint64_t> times;
  uint64_t last = 0;
  for (const RecordedIo& io : device_->log()) {
    EXPECT_GT(io.submitted, last) << "the log is in order of submission";
    EXPECT_GT(io.completed, io.submitted);
    last = io.submitted;
    times.insert({io.submitted, io.completed});
  }
  EXPECT_EQ(times.size(), 2 * (4 * 100 + 4 * 10));
  auto image =
      crashImage(*MemoryDevice::create(ByteCount(MiB)), device_->log(), device_->clock(), keepAll);
  for (uint64_t s = 0; s < 400; ++s) EXPECT_EQ(uniform(*image, s), uniform(*memory_, s));
}

// --- Crash states, from logs written by hand ---

class CrashImageTest : public testing::Test {
 protected:
  RecordedIo& add(IoOp op, uint64_t submitted, uint64_t completed) {
    RecordedIo io;
    io.op = op;
    io.submitted = submitted;
    io.completed = completed;
    return log_.emplace_back(std::move(io));
  }
  RecordedIo& write(uint64_t sector, size_t sectors, int value, uint64_t submitted,
                    uint64_t completed) {
    RecordedIo& io = add(IoOp::Write, submitted, completed);
    io.offset = DeviceOffset(sector * kSector);
    io.bytes = filled(sectors, value);
    io.length = ByteCount(sectors * kSector);
    return io;
  }
  RecordedIo& flush(uint64_t submitted, uint64_t completed) {
    return add(IoOp::Flush, submitted, completed);
  }
  RecordedIo& discard(uint64_t sector, size_t sectors, uint64_t submitted, uint64_t completed) {
    RecordedIo& io = add(IoOp::Discard, submitted, completed);
    io.offset = DeviceOffset(sector * kSector);
    io.length = ByteCount(sectors * kSector);
    return io;
  }
  std::unique_ptr<MemoryDevice> crash(uint64_t point,
                                      const std::function<bool(size_t, size_t)>& keep = keepNone) {
    return crashImage(*base_, log_, point, keep);
  }
  std::unique_ptr<MemoryDevice> base_ = MemoryDevice::create(ByteCount(64 * KiB));
  std::vector<RecordedIo> log_;
};

TEST_F(CrashImageTest, WhatIsDurableFollowsTheTruthTable) {
  constexpr uint64_t kPoint = 100;
  const struct {
    const char* what;
    uint64_t submitted, completed;
    bool fua, ok;
    uint64_t flushSubmitted, flushCompleted;  // 0, 0: no flush
    bool flushOk;
    bool durable, mayBeThere;
  } table[] = {
      {"no flush", 1, 2, false, true, 0, 0, true, false, true},
      {"flush after completion", 1, 2, false, true, 3, 4, true, true, true},
      {"flush submitted before completion", 1, 4, false, true, 3, 5, true, false, true},
      {"flush submitted before the write", 3, 4, false, true, 1, 5, true, false, true},
      {"flush still in flight", 1, 2, false, true, 3, 0, true, false, true},
      {"flush completes after the point", 1, 2, false, true, 3, 101, true, false, true},
      {"flush completes at the point", 1, 2, false, true, 3, 100, true, true, true},
      {"flush failed", 1, 2, false, true, 3, 4, false, false, true},
      {"write in flight", 1, 0, false, true, 3, 4, true, false, true},
      {"write failed", 1, 2, false, false, 3, 4, true, false, true},
      {"fua completed", 1, 2, true, true, 0, 0, true, true, true},
      {"fua completed at the point", 1, 100, true, true, 0, 0, true, true, true},
      {"fua completes after the point", 1, 101, true, true, 0, 0, true, false, true},
      {"fua in flight", 1, 0, true, true, 0, 0, true, false, true},
      {"fua failed", 1, 2, true, false, 0, 0, true, false, true},
      {"submitted after the point", 101, 102, true, true, 103, 104, true, false, false},
  };
  for (const auto& row : table) {
    log_.clear();
    RecordedIo& io = write(0, 1, 7, row.submitted, row.completed);
    io.fua = row.fua;
    io.ok = row.ok;
    if (row.flushSubmitted != 0) flush(row.flushSubmitted, row.flushCompleted).ok = row.flushOk;
    EXPECT_EQ(uniform(*crash(kPoint, keepNone), 0), row.durable ? 7 : 0) << row.what;
    EXPECT_EQ(uniform(*crash(kPoint, keepAll), 0), row.mayBeThere ? 7 : 0) << row.what;
    const bool isVolatile = row.mayBeThere && !row.durable;
    EXPECT_EQ(volatileWrites(log_, kPoint).size(), isVolatile ? 1u : 0u) << row.what;
  }
}

TEST_F(CrashImageTest, AFlushCoversEveryWriteThatWasCompletedAndNoOther) {
  write(0, 1, 1, 1, 2);
  write(1, 1, 2, 3, 6);
  flush(5, 7);
  write(2, 1, 3, 8, 9);
  auto image = crash(20);
  EXPECT_EQ(uniform(*image, 0), 1);
  EXPECT_EQ(uniform(*image, 1), 0);
  EXPECT_EQ(uniform(*image, 2), 0);
  EXPECT_EQ(volatileWrites(log_, 20), (std::vector<size_t>{1, 3}));
}

TEST_F(CrashImageTest, AnEarlierLongFlushDoesNotHideALaterShortOne) {
  write(0, 1, 1, 1, 2);
  flush(3, 10);
  write(1, 1, 2, 4, 5);
  flush(6, 7);
  EXPECT_EQ(uniform(*crash(8), 1), 2);
  EXPECT_EQ(uniform(*crash(8), 0), 1) << "the second flush covers the first write too";
}

TEST_F(CrashImageTest, AWriteIsTornAtAnySector) {
  write(4, 4, 7, 1, 2);
  auto image = crash(10, [](size_t, size_t sector) { return sector == 1 || sector == 3; });
  for (uint64_t s = 0; s < 4; ++s) EXPECT_EQ(uniform(*image, 4 + s), s % 2 == 1 ? 7 : 0) << s;
}

TEST_F(CrashImageTest, KeepIsAskedOnceForEverySectorThatIsNotDurable) {
  write(0, 2, 1, 1, 2);
  flush(3, 4);
  write(2, 3, 2, 5, 6);
  discard(0, 2, 7, 8);
  std::map<std::pair<size_t, size_t>, int> asked;
  crash(10, [&](size_t w, size_t s) {
    ++asked[{w, s}];
    return true;
  });
  const std::map<std::pair<size_t, size_t>, int> expected{
      {{2, 0}, 1}, {{2, 1}, 1}, {{2, 2}, 1}, {{3, 0}, 1}, {{3, 1}, 1}};
  EXPECT_EQ(asked, expected);
}

TEST_F(CrashImageTest, OfTwoKeptWritesToASectorTheLaterWins) {
  write(0, 1, 1, 1, 3);
  write(0, 1, 2, 2, 4);
  EXPECT_EQ(uniform(*crash(10, keepAll), 0), 2);
  EXPECT_EQ(uniform(*crash(10, [](size_t w, size_t) { return w == 0; }), 0), 1);
  EXPECT_EQ(uniform(*crash(10, keepNone), 0), 0);
}

TEST_F(CrashImageTest, ADurableLaterWriteWinsOverAVolatileEarlierOne) {
  write(0, 1, 1, 1, 0);
  write(0, 1, 2, 2, 3).fua = true;
  EXPECT_EQ(uniform(*crash(10, keepAll), 0), 2);
  EXPECT_EQ(uniform(*crash(10, keepNone), 0), 2);
}

TEST_F(CrashImageTest, AVolatileLaterWriteMayReplaceADurableEarlierOne) {
  write(0, 1, 1, 1, 2).fua = true;
  write(0, 1, 2, 3, 4);
  EXPECT_EQ(uniform(*crash(10, keepAll), 0), 2);
  EXPECT_EQ(uniform(*crash(10, keepNone), 0), 1);
}

TEST_F(CrashImageTest, ADiscardThatIsNotDurableLeavesOldOrNothing) {
  base_->setFill(std::byte{0xEE});
  write(0, 2, 7, 1, 2);
  flush(3, 4);
  discard(0, 2, 5, 6);
  auto image = crash(10, [](size_t, size_t sector) { return sector == 0; });
  EXPECT_EQ(uniform(*image, 0), 0xEE) << "what was never written shows the poison";
  EXPECT_EQ(uniform(*image, 1), 7);
  flush(11, 12);
  EXPECT_EQ(uniform(*crash(20), 1), 0xEE);
  EXPECT_TRUE(volatileWrites(log_, 20).empty());
}

TEST_F(CrashImageTest, TheBaseIsLeftAsItWas) {
  ASSERT_TRUE(base_->write(DeviceOffset(0), filled(1, 5)).isOk());
  write(0, 1, 1, 1, 2).fua = true;
  EXPECT_EQ(uniform(*crash(10), 0), 1);
  EXPECT_EQ(uniform(*base_, 0), 5);
}

}  // namespace
}  // namespace ourfs
