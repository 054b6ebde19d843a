// CrashStates against crashImage, which is simpler and slower.
#include "crash/crash_states.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "crash/crash_model.h"

namespace ourfs::crash {
namespace {

constexpr uint64_t kDeviceSectors = 256;

RecordedIo randomIo(std::mt19937_64& random, uint64_t& clock) {
  RecordedIo io;
  const uint64_t dice = random() % 8;
  io.op = dice == 0 ? IoOp::Flush : dice == 1 ? IoOp::Discard : IoOp::Write;
  io.cls = static_cast<IoClass>(random() % 6);
  io.fua = io.op == IoOp::Write && random() % 4 == 0;
  io.ok = random() % 16 != 0;
  io.submitted = ++clock;
  if (io.op == IoOp::Flush) return io;
  const uint64_t first = random() % kDeviceSectors;
  io.offset = DeviceOffset(first * kSector);
  io.length = ByteCount((1 + random() % std::min<uint64_t>(8, kDeviceSectors - first)) * kSector);
  if (io.op == IoOp::Write) {
    io.bytes.resize(io.length.v);
    for (std::byte& b : io.bytes) b = static_cast<std::byte>(random());
  }
  return io;
}

// Requests overlap in time and in space, and some never complete.
std::vector<RecordedIo> randomLog(std::mt19937_64& random, uint64_t& clock) {
  std::vector<RecordedIo> log;
  std::vector<size_t> open;
  for (int i = 0; i < 60; ++i) {
    open.push_back(log.size());
    log.push_back(randomIo(random, clock));
    while (!open.empty() && random() % 3 != 0) {
      const size_t which = random() % open.size();
      log[open[which]].completed = ++clock;
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }
  return log;
}

std::vector<std::byte> contentOf(MemoryDevice& device) {
  std::vector<std::byte> bytes(device.size().v);
  EXPECT_TRUE(device.read(DeviceOffset(0), bytes).isOk());
  return bytes;
}

TEST(CrashStatesTest, ImagesAreThoseOfTheSimpleRules) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 40; ++round) {
    auto base = MemoryDevice::create(ByteCount(kDeviceSectors * kSector), kSector);
    base->setFill(kPoison);
    uint64_t clock = 0;
    const std::vector<RecordedIo> log = randomLog(random, clock);
    CrashStates states(*base, log);
    for (uint64_t point = 0; point <= clock; point += 1 + random() % 4) {
      states.seek(point);
      for (const bool all : {false, true}) {
        const auto image = states.image(all ? choice::kEverything : choice::kNothing);
        const auto simple = crashImage(*base, log, point, [&](size_t, size_t) { return all; });
        ASSERT_EQ(contentOf(*image), contentOf(*simple)) << "round " << round << " at " << point;
      }
      EXPECT_EQ(states.volatileWrites(), volatileWrites(log, point).size());
    }
  }
}

TEST(CrashStatesTest, AMaskTakesExactlyItsSectors) {
  std::mt19937_64 random(6);
  auto base = MemoryDevice::create(ByteCount(kDeviceSectors * kSector), kSector);
  RecordedIo io;
  io.cls = IoClass::Data;
  io.length = ByteCount(4 * kSector);
  io.bytes.assign(4 * kSector, std::byte{7});
  io.submitted = 1;
  const std::vector<RecordedIo> log{io};
  CrashStates states(*base, log);
  states.seek(1);
  ASSERT_EQ(states.volatileSectors(), 4u);
  for (uint64_t mask = 0; mask < 16; ++mask) {
    const auto bytes = contentOf(*states.image(choice::ofMask(choice::kSectorMask, mask)));
    for (uint64_t s = 0; s < 4; ++s)
      EXPECT_EQ(bytes[s * kSector] == std::byte{7}, (mask >> s & 1) != 0) << mask << " " << s;
  }
}

TEST(CrashStatesTest, StatesWithTheSameSignatureAreTheSameImage) {
  std::mt19937_64 random(7);
  uint64_t clock = 0;
  auto base = MemoryDevice::create(ByteCount(kDeviceSectors * kSector), kSector);
  const std::vector<RecordedIo> log = randomLog(random, clock);
  CrashStates states(*base, log);
  std::map<uint64_t, std::vector<std::byte>> seen;
  size_t again = 0;
  for (uint64_t point = 0; point <= clock; ++point) {
    states.seek(point);
    for (uint64_t chosen = 0; chosen < 8; ++chosen) {
      const auto bytes = contentOf(*states.image(chosen));
      const auto [at, fresh] = seen.try_emplace(states.signatureOf(chosen).image, bytes);
      again += fresh ? 0 : 1;
      ASSERT_EQ(at->second, bytes) << point << " " << chosen;
    }
  }
  EXPECT_GT(again, 10u);
}

// Of sectors that are written again and again.
TEST(CrashStatesTest, StatesThatAgreeInTheirBytesHoldTheSameOnes) {
  std::mt19937_64 random(8);
  uint64_t clock = 0;
  auto base = MemoryDevice::create(ByteCount(kDeviceSectors * kSector), kSector);
  std::vector<RecordedIo> log = randomLog(random, clock);
  for (RecordedIo& io : log) {
    if (io.op != IoOp::Discard) io.cls = IoClass::Data;
    // Two contents only, so that a later write often changes nothing.
    std::ranges::fill(io.bytes, std::byte(io.submitted % 2));
  }
  CrashStates states(*base, log);
  const auto sectors = states.contested(DeviceOffset(0), base->size());
  ASSERT_GT(sectors.size(), 50u);
  std::map<uint64_t, std::vector<std::byte>> seen;
  std::set<std::vector<std::byte>> different;
  size_t again = 0;
  for (uint64_t point = clock / 2; point <= clock; ++point) {
    states.seek(point);
    for (uint64_t chosen = 0; chosen < 40; ++chosen) {
      const auto whole = contentOf(*states.image(chosen));
      std::vector<std::byte> bytes;
      for (const uint32_t s : sectors) bytes.push_back(whole[s * kSector]);
      const auto [at, fresh] = seen.try_emplace(states.bytesOf(chosen, sectors), bytes);
      again += fresh ? 0 : 1;
      ASSERT_EQ(at->second, bytes) << point << " " << chosen;
      different.insert(bytes);
    }
  }
  EXPECT_GT(again, 10u);
  EXPECT_GT(different.size(), 100u);
}

}  // namespace
}  // namespace ourfs::crash
