// What every BlockDevice promises. Runs over each kind of device.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "block/backends.h"
#include "block/io_batch.h"
#include "common/aligned_buffer.h"

namespace ourfs {
namespace {

constexpr ByteCount kSize(8 * MiB);

class BlockDeviceConformance : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    auto made = GetParam().make(kSize);
    if (!made.isOk()) GTEST_SKIP() << made.status().message();
    backend_ = std::move(made).value();
  }
  BlockDevice& device() { return backend_->device(); }
  uint64_t sector() { return device().logicalSector(); }
  DeviceOffset at(uint64_t sectorNumber) { return DeviceOffset(sectorNumber * sector()); }

  AlignedBuffer memory(uint64_t sectors) {
    return AlignedBuffer(sectors * sector(), device().logicalSector());
  }
  AlignedBuffer pattern(uint64_t sectors, uint64_t seed) {
    AlignedBuffer b = memory(sectors);
    std::mt19937_64 random(seed);
    for (size_t i = 0; i < b.size(); i += sizeof(uint64_t)) {
      const uint64_t word = random();
      std::memcpy(b.data() + i, &word, sizeof(word));
    }
    return b;
  }
  AlignedBuffer readBack(DeviceOffset from, uint64_t sectors) {
    AlignedBuffer b = memory(sectors);
    EXPECT_TRUE(device().read(from, b.span()).isOk());
    return b;
  }
  static bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }
  void expectContents(DeviceOffset from, const AlignedBuffer& expected) {
    EXPECT_TRUE(same(readBack(from, expected.size() / sector()).span(), expected.span()));
  }
  IoRequest request(IoOp op, DeviceOffset offset, std::span<std::byte> memory) {
    IoRequest r;
    r.op = op;
    r.offset = offset;
    r.length = ByteCount(memory.size());
    r.pieces.push_back({memory.data(), memory.size()});
    return r;
  }
  int submitAndAwait(IoRequest r) {
    IoBatch batch(device());
    batch.submit(std::move(r));
    return batch.await().errnum();
  }

  std::unique_ptr<Backend> backend_;
};

TEST_P(BlockDeviceConformance, GeometryIsSane) {
  EXPECT_EQ(device().size(), kSize);
  EXPECT_TRUE(isPowerOfTwo(sector()));
  EXPECT_GE(sector(), 512u);
  EXPECT_GE(device().physicalSector(), sector());
  EXPECT_FALSE(device().readOnly());
  EXPECT_FALSE(device().name().empty());
}

TEST_P(BlockDeviceConformance, WhatIsWrittenIsReadBack) {
  const uint64_t last = kSize.v / sector() - 1;
  const struct { uint64_t at, sectors; } ranges[] = {{0, 1}, {1, 1}, {7, 3}, {100, 256}, {last, 1}};
  for (const auto& r : ranges) {
    const AlignedBuffer data = pattern(r.sectors, r.at + 1);
    ASSERT_TRUE(device().write(at(r.at), data.span()).isOk()) << r.at;
    expectContents(at(r.at), data);
  }
}

TEST_P(BlockDeviceConformance, WhatWasNeverWrittenReadsAsZero) {
  const AlignedBuffer data = readBack(at(64), 64);
  EXPECT_TRUE(std::all_of(data.span().begin(), data.span().end(),
                          [](std::byte b) { return b == std::byte{0}; }));
}

TEST_P(BlockDeviceConformance, AWriteLeavesItsNeighboursAlone) {
  const AlignedBuffer before = pattern(48, 1);
  const AlignedBuffer middle = pattern(16, 2);
  ASSERT_TRUE(device().write(at(0), before.span()).isOk());
  ASSERT_TRUE(device().write(at(16), middle.span()).isOk());
  const AlignedBuffer after = readBack(at(0), 48);
  const size_t third = 16 * sector();
  EXPECT_TRUE(same(after.span().first(third), before.span().first(third)));
  EXPECT_TRUE(same(after.span().subspan(third, third), middle.span()));
  EXPECT_TRUE(same(after.span().last(third), before.span().last(third)));
}

// More pieces than one system call takes.
TEST_P(BlockDeviceConformance, ManyPiecesMakeOneRange) {
  const uint64_t pieces = 1500;
  AlignedBuffer data = pattern(pieces, 3);
  IoRequest r = request(IoOp::Write, at(8), {});
  r.length = ByteCount(pieces * sector());
  for (uint64_t i = 0; i < pieces; ++i) r.pieces.push_back({data.data() + i * sector(), sector()});
  ASSERT_EQ(submitAndAwait(r), 0);

  AlignedBuffer back = memory(pieces);
  IoRequest q = request(IoOp::Read, r.offset, {});
  q.length = r.length;
  q.pieces.clear();
  uint64_t done = 0;
  for (uint64_t n = 1; done < pieces; done += n, n = n % 7 + 1) {
    n = std::min(n, pieces - done);
    q.pieces.push_back({back.data() + done * sector(), n * sector()});
  }
  ASSERT_EQ(submitAndAwait(q), 0);
  EXPECT_TRUE(same(back.span(), data.span()));
}

TEST_P(BlockDeviceConformance, ManyRequestsInFlightFromSeveralThreadsDoNotMix) {
  constexpr uint64_t kThreads = 4, kRequests = 100, kSectors = 4;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::vector<AlignedBuffer> sent, got;
      auto place = [&](uint64_t i) { return at((t * kRequests + i) * kSectors); };
      for (uint64_t i = 0; i < kRequests; ++i) sent.push_back(pattern(kSectors, t * 1000 + i));
      for (uint64_t i = 0; i < kRequests; ++i) got.push_back(memory(kSectors));
      IoBatch writes(device());
      for (uint64_t i = 0; i < kRequests; ++i) writes.write(place(i), sent[i].span(), i % 10 == 0);
      wrong += writes.await().isOk() ? 0 : 1;
      IoBatch reads(device());
      for (uint64_t i = 0; i < kRequests; ++i) reads.read(place(i), got[i].span());
      wrong += reads.await().isOk() ? 0 : 1;
      for (uint64_t i = 0; i < kRequests; ++i) {
        wrong += same(sent[i].span(), got[i].span()) ? 0 : 1;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST_P(BlockDeviceConformance, OverlappingWritesLeaveEachSectorFromOneOfThem) {
  constexpr uint64_t kSectors = 64, kWriters = 6;
  std::vector<AlignedBuffer> versions;
  for (uint64_t w = 0; w < kWriters; ++w) versions.push_back(pattern(kSectors, 50 + w));
  IoBatch batch(device());
  for (const AlignedBuffer& v : versions) batch.write(at(0), v.span());
  ASSERT_TRUE(batch.await().isOk());
  const AlignedBuffer after = readBack(at(0), kSectors);
  for (uint64_t s = 0; s < kSectors; ++s) {
    const auto got = after.span().subspan(s * sector(), sector());
    EXPECT_TRUE(std::any_of(versions.begin(), versions.end(),
                            [&](const AlignedBuffer& v) {
                              return same(v.span().subspan(s * sector(), sector()), got);
                            }))
        << "sector " << s << " is from none of the writes";
  }
}

TEST_P(BlockDeviceConformance, OutOfRangeIsRefused) {
  AlignedBuffer b = memory(2);
  for (IoOp op : {IoOp::Read, IoOp::Write, IoOp::Discard}) {
    for (uint64_t from : {kSize.v - sector(), kSize.v, kSize.v + sector(), 0 - sector()}) {
      EXPECT_EQ(submitAndAwait(request(op, DeviceOffset(from), b.span())), EINVAL) << from;
    }
  }
}

TEST_P(BlockDeviceConformance, MisalignedIsRefused) {
  AlignedBuffer b = memory(4);
  const auto whole = b.span().first(sector());
  for (IoOp op : {IoOp::Read, IoOp::Write, IoOp::Discard}) {
    EXPECT_EQ(submitAndAwait(request(op, DeviceOffset(1), whole)), EINVAL);
    EXPECT_EQ(submitAndAwait(request(op, DeviceOffset(sector() / 2), whole)), EINVAL);
    EXPECT_EQ(submitAndAwait(request(op, at(0), b.span().first(sector() / 2))), EINVAL);
  }
  EXPECT_EQ(device().read(at(0), b.span().first(sector() + 1)).errnum(), EINVAL);
}

TEST_P(BlockDeviceConformance, PiecesThatDoNotMakeUpTheLengthAreRefused) {
  AlignedBuffer b = memory(4);
  IoRequest r = request(IoOp::Write, at(0), b.span().first(2 * sector()));
  r.length = ByteCount(sector());
  EXPECT_EQ(submitAndAwait(r), EINVAL);
  r.length = ByteCount(2 * sector());
  r.pieces = {{b.data(), sector() / 2}, {b.data(), sector() + sector() / 2}};
  EXPECT_EQ(submitAndAwait(r), EINVAL);
}

TEST_P(BlockDeviceConformance, NothingCanBeTransferredAnywhereUpToTheEnd) {
  EXPECT_TRUE(device().read(at(0), {}).isOk());
  EXPECT_TRUE(device().write(DeviceOffset(kSize.v), {}).isOk());
  EXPECT_EQ(submitAndAwait(request(IoOp::Discard, DeviceOffset(kSize.v), {})), 0);
}

TEST_P(BlockDeviceConformance, MemoryNeedNotBeAligned) {
  const AlignedBuffer data = pattern(4, 9);
  const size_t bytes = 4 * sector();
  std::vector<std::byte> odd(bytes + 1), back(bytes + 1);
  std::copy_n(data.data(), bytes, odd.data() + 1);
  ASSERT_TRUE(device().write(at(3), std::span(odd).subspan(1)).isOk());
  ASSERT_TRUE(device().read(at(3), std::span(back).subspan(1)).isOk());
  EXPECT_TRUE(same(std::span(back).subspan(1), data.span()));
  std::fill(back.begin(), back.end(), std::byte{0});
  ASSERT_EQ(submitAndAwait(request(IoOp::Write, at(20), std::span(odd).subspan(1))), 0);
  ASSERT_EQ(submitAndAwait(request(IoOp::Read, at(20), std::span(back).subspan(1))), 0);
  EXPECT_TRUE(same(std::span(back).subspan(1), data.span()));
}

TEST_P(BlockDeviceConformance, FlushAndFuaKeepWhatWasWritten) {
  const AlignedBuffer a = pattern(8, 10), b = pattern(8, 11);
  ASSERT_TRUE(device().write(at(0), a.span()).isOk());
  ASSERT_TRUE(device().flush().isOk());
  ASSERT_TRUE(device().write(at(8), b.span(), IoClass::Journal, true).isOk());
  IoRequest flush;
  flush.op = IoOp::Flush;
  ASSERT_EQ(submitAndAwait(flush), 0);
  expectContents(at(0), a);
  expectContents(at(8), b);
}

TEST_P(BlockDeviceConformance, ADiscardTouchesNothingElseAndCanBeWrittenOver) {
  const AlignedBuffer old = pattern(96, 12), fresh = pattern(8, 13);
  ASSERT_TRUE(device().write(at(0), old.span()).isOk());
  ASSERT_TRUE(device().discard(at(32), ByteCount(32 * sector())).isOk());
  ASSERT_EQ(submitAndAwait(request(IoOp::Discard, at(32), {})), 0);
  IoRequest async = request(IoOp::Discard, at(40), {});
  async.length = ByteCount(8 * sector());
  ASSERT_EQ(submitAndAwait(async), 0);
  ASSERT_TRUE(device().write(at(40), fresh.span()).isOk());
  const AlignedBuffer after = readBack(at(0), 96);
  const size_t third = 32 * sector();
  EXPECT_TRUE(same(after.span().first(third), old.span().first(third)));
  EXPECT_TRUE(same(after.span().last(third), old.span().last(third)));
  expectContents(at(40), fresh);
}

TEST_P(BlockDeviceConformance, ACompletionMaySubmit) {
  constexpr int kChains = 40, kLinks = 20;
  const AlignedBuffer data = pattern(1, 14);
  std::atomic<int> links{0};
  Mutex mutex;
  CondVar finished;
  int chainsLeft = kChains;
  std::function<void(int, int)> step = [&](int chain, int left) {
    IoRequest r = request(IoOp::Write, at(static_cast<uint64_t>(chain)), {});
    r.length = ByteCount(sector());
    r.pieces = {{const_cast<std::byte*>(data.data()), sector()}};
    r.done = [&, chain, left](const Status& s) {
      if (s.isOk()) ++links;
      if (left > 1) return step(chain, left - 1);
      MutexLock lock(mutex);
      --chainsLeft;
      finished.notifyAll();
    };
    device().submit(std::move(r));
  };
  for (int c = 0; c < kChains; ++c) step(c, kLinks);
  MutexLock lock(mutex);
  while (chainsLeft > 0) finished.wait(mutex);
  EXPECT_EQ(links, kChains * kLinks);
}

TEST_P(BlockDeviceConformance, RandomOperationsAgreeWithAModel) {
  const char* given = std::getenv("OURFS_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device()();
  SCOPED_TRACE("OURFS_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const uint64_t sectors = 256;
  std::vector<std::byte> model(sectors * sector());
  for (int step = 0; step < 300; ++step) {
    const uint64_t from = random() % sectors;
    const uint64_t count = 1 + random() % std::min<uint64_t>(sectors - from, 40);
    const auto range = std::span(model).subspan(from * sector(), count * sector());
    const AlignedBuffer data = pattern(count, random());
    if (random() % 2 == 0) {
      ASSERT_TRUE(device().write(at(from), data.span()).isOk());
      std::copy_n(data.data(), range.size(), range.begin());
    } else {
      ASSERT_TRUE(same(readBack(at(from), count).span(), range)) << step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, BlockDeviceConformance, testing::ValuesIn(allBackends()),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace ourfs
