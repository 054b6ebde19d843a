// The keys of an index that does not open, read without RocksDB.
#include "index/salvage.h"

#include <lz4.h>

#include <algorithm>

#include "../../index/src/raw_table.h"
#include "rounds.h"
#include "salvage_fixture.h"

namespace ourfs::test {
namespace {

TEST_F(SalvageTest, EveryKeyOfASoundIndexIsFound) {
  Random random;
  SCOPED_TRACE(random.trace());
  // From 4 GiB on the tables' own indexes have two levels.
  for (uint64_t size : {64 * MiB, 5 * GiB}) {
    for (uint32_t blockSize : {1024u, 4096u, 65536u}) {
      if (size > GiB && blockSize != 4096) continue;
      Volume volume(geometryOf(size, blockSize));
      fill(volume, random, size > GiB ? 1000 : 500);
      const Keys expected = keysOf(volume);
      const auto salvaged = salvage(volume);
      ASSERT_NE(salvaged, nullptr);
      EXPECT_GT(expected.size(), 5000u);
      EXPECT_TRUE(keysOf(*salvaged) == expected) << size << " " << blockSize;
      EXPECT_TRUE(salvaged->complete());
      EXPECT_TRUE(notes_.empty()) << notes_.front();
      EXPECT_EQ(salvaged->persisted()->end.v % 8, 0u);
      EXPECT_EQ(salvaged->get(expected.begin()->first), expected.begin()->second);
      EXPECT_FALSE(salvaged->get("nothing"));
    }
  }
}

TEST_F(SalvageTest, ADamagedBlockCostsWhatItHeld) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 400);
  const Keys expected = keysOf(volume);
  size_t damaged = 0;
  const auto sound = volume.device->clone();
  for (const TableFile& file : filesOf(volume)) {
    if (!file.name.ends_with(".sst") || file.runs.empty()) continue;
    volume.device = sound->clone();
    spoil(volume, file.runs.front().start.v * 4096 + 1024);
    const auto salvaged = salvage(volume);
    ASSERT_NE(salvaged, nullptr);
    if (salvaged->complete()) continue;  // the table was not in use any more
    ++damaged;
    EXPECT_FALSE(notes_.empty());
    const Keys found = keysOf(*salvaged);
    // Some keys are missing; and where a deletion was lost, an older value is back.
    EXPECT_LT(found.size(), expected.size() + expected.size() / 10);
    EXPECT_GT(found.size(), expected.size() - expected.size() / 10);
  }
  EXPECT_GT(damaged, 0u);
}

TEST_F(SalvageTest, TheFilesThatAreMissingAreNamed) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 400);
  const Keys expected = keysOf(volume);
  const auto sound = volume.device->clone();
  for (const TableFile& file : filesOf(volume)) {
    volume.device = sound->clone();
    change(volume, [&](FileTable& table) { return table.remove(file.id); });
    const auto salvaged = salvage(volume);
    ASSERT_NE(salvaged, nullptr);
    const bool isTable = file.name.ends_with(".sst");
    const bool isManifest = file.name == "CURRENT" || file.name.starts_with("MANIFEST-");
    EXPECT_EQ(salvaged->complete(), !isTable && !isManifest) << file.name;
    // Without the MANIFEST all tables count, and here all are in use.
    EXPECT_EQ(keysOf(*salvaged) == expected, !isTable) << file.name;
    const std::string named = isTable      ? " is missing"
                              : isManifest ? "what had been removed last may be back"
                                           : "";
    const bool said = std::any_of(notes_.begin(), notes_.end(), [&](const std::string& line) {
      return line.find(named) != std::string::npos;
    });
    EXPECT_TRUE(named.empty() || said) << file.name;
  }
}

TEST_F(SalvageTest, EitherSlotOfTheFileTableServes) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 300);
  const Keys expected = keysOf(volume);
  const auto sound = volume.device->clone();
  int served = 0, refused = 0;
  for (uint64_t slot : {0, 1}) {
    volume.device = sound->clone();
    spoil(volume, volume.geometry.tableStart.v + slot * volume.geometry.tableSlotSize.v);
    auto read = IndexSalvage::read(
        *volume.device, volume.geometry, [](const std::string&) {}, [](ByteCount, ByteCount) {});
    if (read.isOk() && keysOf(**read) == expected) ++served;
    refused += read.isOk() ? 0 : 1;
    EXPECT_TRUE(read.isOk() || read.errnum() == EUCLEAN) << read.status().message();
  }
  EXPECT_GE(served, 1);
  EXPECT_LE(refused, 1);
}

TEST_F(SalvageTest, TheFileTableKnowsTheGeometry) {
  for (uint32_t blockSize : {1024u, 4096u, 65536u}) {
    Volume volume(geometryOf(64 * MiB, blockSize));
    ASSERT_OK(volume.format());
    IndexGeometry guess = volume.geometry;
    guess.blockSize = 4096;
    auto found = IndexSalvage::findGeometry(*volume.device, guess);
    ASSERT_TRUE(found.isOk()) << found.status().message();
    EXPECT_EQ(found->blockSize, blockSize);
    EXPECT_EQ(found->volumeSize, volume.geometry.volumeSize);
    for (uint64_t slot : {0, 1})
      spoil(volume, volume.geometry.tableStart.v + slot * volume.geometry.tableSlotSize.v);
    EXPECT_EQ(IndexSalvage::findGeometry(*volume.device, guess).errnum(), EUCLEAN);
  }
}

TEST_F(SalvageTest, LaterChangesWin) {
  Volume volume(geometryOf(64 * MiB));
  Random random;
  SCOPED_TRACE(random.trace());
  fill(volume, random, 200);
  const Keys before = keysOf(volume);
  const auto salvaged = salvage(volume);
  ASSERT_NE(salvaged, nullptr);
  const std::string changed = before.begin()->first, gone = before.rbegin()->first;
  IndexBatch batch;
  batch.put(changed, "first");
  batch.put(changed, "second");
  batch.put("new", "1");
  batch.erase(gone);
  salvaged->apply(batch);
  IndexBatch later;
  later.put("new", "2");
  salvaged->apply(later);
  salvaged->settle();
  EXPECT_EQ(salvaged->get(changed), "second");
  EXPECT_EQ(salvaged->get("new"), "2");
  EXPECT_FALSE(salvaged->get(gone));
}

TEST(RawTableTest, Lz4IsDecodedAndDoubted) {
  const std::string text =
      std::string(300, 'a') + "abcabcabcabc!" + std::string(40, 'z') + "the end";
  std::string packed(LZ4_compressBound(static_cast<int>(text.size())), '\0');
  const int length = LZ4_compress_default(text.data(), packed.data(), static_cast<int>(text.size()),
                                          static_cast<int>(packed.size()));
  ASSERT_GT(length, 0);
  packed.resize(static_cast<size_t>(length));
  ASSERT_LT(packed.size(), text.size());
  EXPECT_EQ(lz4Decode(packed, text.size()).value(), text);
  for (size_t n = 0; n < packed.size(); ++n)
    EXPECT_EQ(lz4Decode(packed.substr(0, n), text.size()).errnum(), EUCLEAN) << n;
  EXPECT_EQ(lz4Decode(packed, text.size() - 1).errnum(), EUCLEAN);
  EXPECT_EQ(lz4Decode(packed, text.size() + 1).errnum(), EUCLEAN);
  // Four bytes back from the third: before the start.
  EXPECT_EQ(lz4Decode(std::string("\x35"
                                  "abc\x04\x00\xc0"
                                  "0123456789ab",
                                  19),
                      24)
                .errnum(),
            EUCLEAN);
  EXPECT_EQ(lz4Decode("\xff\xff\xff", 13).errnum(), EUCLEAN);
  EXPECT_EQ(lz4Decode("x", size_t{1} << 40).errnum(), EUCLEAN);
}

// Whatever the bytes of a table or a MANIFEST say: an answer, and no byte outside of them.
class RawBytesTest : public SalvageTest {};

TEST_F(RawBytesTest, AnyBytesGetAnAnswer) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 150);
  uint64_t entries = 0, blocks = 0, refused = 0;
  for (const TableFile& file : filesOf(volume)) {
    if (file.isInline) continue;
    // The payloads of its units, one behind the other.
    std::string whole;
    uint64_t left = file.size();
    for (const BlockRun& run : file.runs) {
      for (uint64_t b = 0; b < run.count.v && left > 0; ++b) {
        std::vector<std::byte> unit(4096);
        ASSERT_OK(volume.device->read(DeviceOffset((run.start.v + b) * 4096), unit));
        const uint64_t n = std::min<uint64_t>(left, 4080);
        whole.append(reinterpret_cast<const char*>(unit.data()) + 16, n);
        left -= n;
      }
    }
    for (int round = 0; round < rounds(120); ++round) {
      std::string bytes = whole;
      for (uint64_t n = random.below(6); n > 0 && !bytes.empty(); --n)
        bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
      if (random.below(8) == 0) bytes.resize(random.below(bytes.size() + 1));
      if (!tablesOfManifest(bytes)) ++refused;
      const ReadBytes read = [&](uint64_t offset, uint64_t length) -> Result<std::string> {
        if (offset > bytes.size() || length > bytes.size() - offset)
          return Status::corrupt("outside");
        return bytes.substr(offset, length);
      };
      const Status done = readRawTable(bytes.size(), random.below(2) == 0, read,
                                       {[&](const RawEntry& e) { entries += e.key.size() < 64; },
                                        [&](const Status& why) {
                                          EXPECT_EQ(why.errnum(), EUCLEAN);
                                          ++blocks;
                                        }});
      EXPECT_TRUE(done.isOk() || done.errnum() == EUCLEAN) << done.message();
    }
  }
  EXPECT_GT(entries, rounds(1000u));
  EXPECT_GT(blocks, rounds(100u));
  EXPECT_GT(refused, rounds(100u));
}

}  // namespace
}  // namespace ourfs::test
