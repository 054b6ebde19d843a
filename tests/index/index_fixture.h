// A volume in memory with an index on it, and the verbs that tests speak of it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "block/memory_device.h"
#include "common/sync_point.h"
#include "index/index.h"
#include "random.h"

namespace ourfs::test {

inline constexpr uint64_t kTableAt = 64 * KiB;

inline IndexGeometry geometryOf(uint64_t volume, uint32_t blockSize = 4096,
                                uint64_t slot = 256 * KiB) {
  IndexGeometry g;
  g.blockSize = blockSize;
  g.tableStart = DeviceOffset(kTableAt);
  g.tableSlotSize = ByteCount(slot);
  g.volumeSize = ByteCount(volume);
  return g;
}

// The first block behind the table.
inline BlockNo firstFree(const IndexGeometry& g) {
  return BlockNo(roundUp(g.tableStart.v + 2 * g.tableSlotSize.v, g.blockSize) / g.blockSize);
}

inline BlockRun runOf(const IndexGeometry& g, BlockNo start, uint64_t bytes) {
  return {start, BlockCount(roundUp(bytes, g.blockSize) / g.blockSize)};
}

// A volume: a device, and the space behind the first pool, given out in order.
class Volume {
 public:
  explicit Volume(IndexGeometry g, uint64_t poolBytes = 0)
      : geometry(g), device(MemoryDevice::create(g.volumeSize)) {
    if (poolBytes == 0) poolBytes = g.poolReserve().v + g.poolReserve().v / 2;
    pool = {runOf(g, firstFree(g), poolBytes)};
    nextFree = pool[0].start.v + pool[0].count.v;
  }
  Status format() { return Index::format(*device, geometry, pool); }

  IndexOptions options() {
    IndexOptions o;
    o.geometry = geometry;
    o.blockCache = ByteCount(4 * MiB);
    o.takeSpace = [this](ByteCount wanted) { return takeSpace(wanted); };
    o.beforePersist = [] { return Status::ok(); };
    return o;
  }
  // What shrinkPool() returned goes out again first.
  void giveBack(const BlockRun& run) {
    givenBack.push_back(run);
    taken -= run.count.v;
  }
  Result<std::vector<BlockRun>> takeSpace(ByteCount wanted) {
    if (!givenBack.empty()) {
      const BlockRun run = givenBack.back();
      givenBack.pop_back();
      taken += run.count.v;
      return std::vector<BlockRun>{run};
    }
    const uint64_t end = geometry.volumeSize.v / geometry.blockSize - keepBlocks;
    const uint64_t blocks = std::min(roundUp(wanted.v, geometry.blockSize) / geometry.blockSize,
                                     end > nextFree ? end - nextFree : 0);
    if (blocks == 0) return Status::error(ENOSPC);
    const BlockRun run{BlockNo(nextFree), BlockCount(blocks)};
    nextFree += blocks;
    taken += blocks;
    return std::vector<BlockRun>{run};
  }
  std::unique_ptr<Index> open() { return openOn(*device, options()); }
  static std::unique_ptr<Index> openOn(BlockDevice& d, IndexOptions o) {
    Result<std::unique_ptr<Index>> index = Index::open(d, std::move(o));
    EXPECT_TRUE(index.isOk()) << index.status().message();
    return index.isOk() ? std::move(index).value() : nullptr;
  }

  IndexGeometry geometry;
  std::unique_ptr<MemoryDevice> device;
  std::vector<BlockRun> pool, givenBack;
  uint64_t nextFree = 0, taken = 0, keepBlocks = 0;
};

inline std::string numberKey(uint64_t n) { return inodeKey(InodeNo(n + 1)); }

// What a transaction does: room first, then the commit. One that frees space goes on without
// growth.
inline Status commit(Index& index, const IndexBatch& batch, uint64_t position, bool frees = false) {
  if (!index.poolSufficient()) {
    const Status grown = index.growPool();
    if (!grown.isOk() && !(frees && grown.errnum() == ENOSPC)) return grown;
  }
  TRY(index.awaitMemtableRoom());
  return index.apply(batch, {Lsn(position), static_cast<uint32_t>(position * 7)});
}

inline std::string valueOf(Index& index, std::string_view key) {
  auto value = index.get(key);
  EXPECT_TRUE(value.isOk()) << value.status().message();
  return value.isOk() && value->has_value() ? **value : "(none)";
}

inline void expectOk(const Status& status) { EXPECT_TRUE(status.isOk()) << status.message(); }

#define ASSERT_OK(expr)                               \
  do {                                                \
    const ::ourfs::Status status_ = statusOf((expr)); \
    ASSERT_TRUE(status_.isOk()) << status_.message(); \
  } while (0)

// Disarms everything a test has armed.
class IndexTest : public ::testing::Test {
 protected:
  void TearDown() override { SyncPoints::instance().reset(); }
};

}  // namespace ourfs::test
