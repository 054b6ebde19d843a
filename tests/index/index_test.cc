#include "index/index.h"

#include <map>

#include "index_fixture.h"

namespace ourfs {
namespace {

using namespace test;

class IndexOnBlockSizes : public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Sizes, IndexOnBlockSizes, ::testing::Values(1024, 4096, 65536));

TEST_P(IndexOnBlockSizes, KeepsWhatWasAppliedAcrossReopens) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB, GetParam()));
  ASSERT_OK(volume.format());
  std::map<std::string, std::string> model;
  uint64_t position = 0;
  for (int mount = 0; mount < 4; ++mount) {
    auto index = volume.open();
    ASSERT_NE(index, nullptr);
    EXPECT_EQ(index->applied().end.v, position);
    ASSERT_OK(index->startBackground());
    for (int i = 0; i < 3000; ++i) {
      IndexBatch batch;
      for (int k = 0; k < 4; ++k) {
        const std::string key = numberKey(random.below(2000));
        if (random.oneIn(4)) {
          batch.erase(key);
          model.erase(key);
        } else {
          model[key] = random.bytes(random.below(120));
          batch.put(key, model[key]);
        }
      }
      ASSERT_OK(commit(*index, batch, ++position));
    }
    for (uint64_t n = 0; n < 2000; ++n) {
      const auto it = model.find(numberKey(n));
      ASSERT_EQ(valueOf(*index, numberKey(n)), it == model.end() ? "(none)" : it->second);
    }
    auto expected = model.begin();
    ASSERT_OK(index->scan("I", "J", [&](std::string_view key, std::string_view value) {
      EXPECT_NE(expected, model.end());
      EXPECT_EQ(key, expected->first);
      EXPECT_EQ(value, expected->second);
      ++expected;
      return true;
    }));
    EXPECT_EQ(expected, model.end());
    ASSERT_OK(index->verify([](const std::string& problem) { ADD_FAILURE() << problem; }));
    ASSERT_OK(index->close());
  }
}

class IndexBasics : public IndexTest {};

TEST_F(IndexBasics, ANewIndexIsEmptyAndHasAppliedNothing) {
  Volume volume(geometryOf(32 * MiB));
  ASSERT_OK(volume.format());
  auto index = volume.open();
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(index->applied(), AppliedPosition{});
  EXPECT_EQ(*index->persisted(), AppliedPosition{});
  EXPECT_EQ(valueOf(*index, "I"), "(none)");
  EXPECT_TRUE(index->poolSufficient());
  EXPECT_EQ(index->ownedBlocks(), volume.pool);
}

TEST_F(IndexBasics, OnlyAFlushPersists) {
  Volume volume(geometryOf(32 * MiB));
  ASSERT_OK(volume.format());
  {
    auto index = volume.open();
    IndexBatch batch;
    batch.put("Ikey", "value");
    ASSERT_OK(commit(*index, batch, 100));
    EXPECT_EQ(index->applied().end.v, 100u);
    EXPECT_EQ(index->persisted()->end.v, 0u);
    ASSERT_OK(index->flush());
    EXPECT_EQ(index->persisted()->end.v, 100u);
    EXPECT_EQ(index->persisted()->crc, 700u);
    batch.put("Ilater", "value");
    ASSERT_OK(commit(*index, batch, 200));
    EXPECT_EQ(index->persisted()->end.v, 100u);
  }  // dropped without close, as in a crash
  auto index = volume.open();
  EXPECT_EQ(index->applied().end.v, 100u);
  EXPECT_EQ(valueOf(*index, "Ikey"), "value");
  EXPECT_EQ(valueOf(*index, "Ilater"), "(none)");
}

TEST_F(IndexBasics, TheLogPositionCannotBeWrittenFromOutside) {
  Volume volume(geometryOf(32 * MiB));
  ASSERT_OK(volume.format());
  auto index = volume.open();
  IndexBatch batch;
  batch.put(std::string(kLogPositionKey), "x");
  EXPECT_EQ(index->apply(batch, {Lsn(1), 1}).errnum(), EINVAL);
  ASSERT_OK(index->flush());
  EXPECT_EQ(index->applied(), AppliedPosition{});
}

TEST_F(IndexBasics, AScanStopsWhenItIsTold) {
  Volume volume(geometryOf(32 * MiB));
  ASSERT_OK(volume.format());
  auto index = volume.open();
  IndexBatch batch;
  for (uint64_t n = 0; n < 10; ++n) batch.put(numberKey(n), "v");
  ASSERT_OK(commit(*index, batch, 1));
  std::vector<std::string> seen;
  const auto take = [&](std::string_view key, std::string_view) {
    seen.emplace_back(key);
    return seen.size() < 3;
  };
  ASSERT_OK(index->scan(numberKey(2), numberKey(9), take));
  EXPECT_EQ(seen, (std::vector<std::string>{numberKey(2), numberKey(3), numberKey(4)}));
  seen.clear();
  ASSERT_OK(index->scan(numberKey(8), numberKey(9), take));
  EXPECT_EQ(seen, std::vector<std::string>{numberKey(8)});
  ASSERT_OK(index->scan(numberKey(9), numberKey(8), take));
  EXPECT_EQ(seen.size(), 1u);
}

TEST_F(IndexBasics, GeometryScalesWithTheVolume) {
  struct Row {
    uint64_t volume, buffer, most;
  };
  for (const Row& row : {Row{32 * MiB, 128 * KiB, 6 * MiB}, Row{256 * MiB, 256 * KiB, 10 * MiB},
                         Row{4 * GiB, 4 * MiB, 144 * MiB}, Row{100 * GiB, 16 * MiB, 540 * MiB},
                         Row{1024 * GiB, 16 * MiB, 540 * MiB}}) {
    const IndexGeometry g = geometryOf(row.volume);
    EXPECT_EQ(g.writeBuffer().v, row.buffer);
    EXPECT_LE(g.poolReserve().v, row.most);
    EXPECT_GE(g.poolReserve().v, 25 * row.buffer);
    std::printf("  %7llu MiB: write buffer %6llu KiB, pool reserve %7llu KiB\n",
                static_cast<unsigned long long>(row.volume / MiB),
                static_cast<unsigned long long>(g.writeBuffer().v / KiB),
                static_cast<unsigned long long>(g.poolReserve().v / KiB));
  }
}

}  // namespace
}  // namespace ourfs
