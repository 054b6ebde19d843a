// The keys of an index whose file table is lost: its files are found on the device.
#include "lost_table_fixture.h"
#include "rounds.h"

namespace ourfs::test {
namespace {

TEST_F(LostTableTest, EveryKeyIsFoundWithoutTheTable) {
  Random random;
  SCOPED_TRACE(random.trace());
  for (uint64_t size : {64 * MiB, 5 * GiB}) {
    for (uint32_t blockSize : {1024u, 4096u, 65536u}) {
      if (size > GiB && blockSize != 4096) continue;
      Volume volume(geometryOf(size, blockSize));
      fill(volume, random, size > GiB ? 1000 : 500);
      const Keys expected = keysOf(volume);
      loseTable(volume);
      const auto salvaged = salvage(volume);
      ASSERT_NE(salvaged, nullptr) << size << " " << blockSize;
      EXPECT_GT(expected.size(), 5000u);
      EXPECT_TRUE(keysOf(*salvaged) == expected) << size << " " << blockSize;
      EXPECT_TRUE(salvaged->persisted().has_value());
      EXPECT_FALSE(salvaged->complete());
      EXPECT_TRUE(noted("the file table is lost"));
      EXPECT_FALSE(noted("may be back")) << notes_.back();
      EXPECT_TRUE(salvaged->ownedBlocks().empty());
      EXPECT_EQ(salvaged->foundAt()->v, volume.pool[0].start.v * blockSize);
    }
  }
}

// The properties of a table are at its end, as its index is: only there much is lost.
TEST_F(LostTableTest, ADamagedUnitCostsWhatItHeld) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 400);
  const Keys expected = keysOf(volume);
  loseTable(volume);
  const auto sound = volume.device->clone();
  size_t damaged = 0;
  for (const TableFile& file : files_) {
    if (!file.name.ends_with(".sst")) continue;
    const auto places = unitsOf(volume, file);
    if (places.size() < 8) continue;
    for (const size_t unit : {size_t{0}, places.size() / 2}) {
      volume.device = sound->clone();
      spoil(volume, places[unit] + 1024);
      const auto salvaged = salvage(volume);
      ASSERT_NE(salvaged, nullptr);
      const Keys found = keysOf(*salvaged);
      EXPECT_FALSE(noted("may be back"));
      if (found != expected) ++damaged;
      // A deletion that was lost brings back an older value.
      EXPECT_LT(missingOf(expected, found), expected.size() / 10);
      EXPECT_LT(missingOf(found, expected), expected.size() / 10);
    }
  }
  EXPECT_GT(damaged, 0u);
}

TEST_F(LostTableTest, ATableWithoutItsEndIsLostAndSaidToBe) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 400);
  const Keys expected = keysOf(volume);
  loseTable(volume);
  spoil(volume, unitsOf(volume, *find("0")).back());
  const auto salvaged = salvage(volume);
  ASSERT_NE(salvaged, nullptr);
  EXPECT_TRUE(noted("table " + std::to_string(std::stoull(find("0")->name)) + " is missing"));
  const Keys found = keysOf(*salvaged);
  EXPECT_FALSE(found == expected);
  EXPECT_FALSE(found.empty());
}

TEST_F(LostTableTest, WithoutTheManifestNothingIsMissing) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 400);
  const Keys expected = keysOf(volume);
  loseTable(volume);
  for (uint64_t place : unitsOf(volume, manifest())) spoil(volume, place);
  const auto salvaged = salvage(volume);
  ASSERT_NE(salvaged, nullptr);
  expectNearly(expected, keysOf(*salvaged));
  EXPECT_TRUE(noted("may be back"));
}

// A compaction into the last level writes sequence number 0. The tables that it was made from may
// still be there, and have higher ones.
TEST_F(LostTableTest, WhatWasCompactedIsNotOlderThanWhatItWasMadeFrom) {
  Volume volume(geometryOf(64 * MiB));
  ASSERT_OK(volume.format());
  const auto index = volume.open();
  ASSERT_NE(index, nullptr);
  ASSERT_OK(index->startBackground());
  std::vector<Bytes> older;
  Keys expected;
  for (uint64_t round = 0; index->counters().compactions == 0; ++round) {
    ASSERT_LT(round, 100u);
    IndexBatch batch;
    for (uint64_t k = 0; k < 500; ++k) {
      const std::string key = numberKey(round < 2 ? k : round * 1000 + k);
      batch.put(key, round == 0 ? "old" : "new");
      expected[key] = "new";
    }
    ASSERT_OK(commit(*index, batch, 8 + round * 8));
    ASSERT_OK(index->flush());
    if (round != 0) continue;
    files_ = filesOf(volume);
    older = bytesOf(volume, *find("0"));
  }
  ASSERT_OK(index->close());
  loseTable(volume);
  wipeWhatIsNotInUse(volume);
  for (uint64_t place : unitsOf(volume, manifest())) spoil(volume, place);
  writeBehind(volume, older);
  auto salvaged = salvage(volume);
  ASSERT_NE(salvaged, nullptr);
  EXPECT_EQ(missingOf(expected, keysOf(*salvaged)), 0u);
  const ScopedMutant off("salvage.zeros_are_oldest");
  salvaged = salvage(volume);
  ASSERT_NE(salvaged, nullptr);
  EXPECT_EQ(missingOf(expected, keysOf(*salvaged)), 500u);
}

// An older MANIFEST may still be there whole. It must not hide what came after it.
TEST_F(LostTableTest, AnOlderManifestHidesNothing) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 40);
  files_ = filesOf(volume);
  const uint64_t olderId = manifest().id;
  auto older = bytesOf(volume, manifest());
  {
    const auto index = volume.open();
    ASSERT_NE(index, nullptr);
    for (uint64_t i = 1; i <= 300; ++i) {
      IndexBatch batch;
      for (int k = 0; k < 40; ++k) batch.put(numberKey(random.below(20000)), "newer");
      ASSERT_OK(commit(*index, batch, 8000 + i * 8));
    }
    ASSERT_OK(index->close());
  }
  const Keys expected = keysOf(volume);
  loseTable(volume);
  ASSERT_NE(manifest().id, olderId);
  for (uint64_t place : unitsOf(volume, manifest())) spoil(volume, place);
  writeBehind(volume, older);
  const auto salvaged = salvage(volume);
  ASSERT_NE(salvaged, nullptr);
  expectNearly(expected, keysOf(*salvaged));
  EXPECT_TRUE(noted("there are tables that no MANIFEST names"));
  expectCaught("salvage.manifest_is_last", volume, expected);

  // Tables whose files are older than the MANIFEST's are what a crashed mount has left.
  for (Bytes& unit : older) {
    const auto claim = claimOf(unit);
    ASSERT_TRUE(claim);
    sealUnit(unit, manifest().id + 4096, claim->number, claim->length, claim->seed);
  }
  writeBehind(volume, older);
  ASSERT_NE(salvage(volume), nullptr);
  EXPECT_FALSE(noted("there are tables that no MANIFEST names"));
  const ScopedMutant off("salvage.orphans_count");
  ASSERT_NE(salvage(volume), nullptr);
  EXPECT_TRUE(noted("there are tables that no MANIFEST names"));
}

TEST_F(LostTableTest, AnImageOfAnotherVolumeIsLeftAlone) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume inner(geometryOf(64 * MiB));
  fill(inner, random, 300);
  Volume outer(geometryOf(256 * MiB));
  fill(outer, random, 200);
  const Keys expected = keysOf(outer);
  loseTable(outer);
  copy(inner, outer, 128 * MiB);
  const auto salvaged = salvage(outer);
  ASSERT_NE(salvaged, nullptr);
  EXPECT_TRUE(keysOf(*salvaged) == expected);
  EXPECT_TRUE(noted("parts of 2 volumes"));
  expectCaught("salvage.any_volume", outer, expected);
}

TEST_F(LostTableTest, AnOlderIndexBeneathIsLeftAlone) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume older(geometryOf(64 * MiB));
  fill(older, random, 500);
  Volume volume(geometryOf(64 * MiB));
  copy(older, volume, 0);
  fill(volume, random, 100);
  const Keys expected = keysOf(volume);
  loseTable(volume);
  const auto salvaged = salvage(volume);
  ASSERT_NE(salvaged, nullptr);
  EXPECT_TRUE(keysOf(*salvaged) == expected);
  EXPECT_TRUE(noted("parts of 2 volumes"));
  expectCaught("salvage.any_volume", volume, expected);
}

TEST_F(LostTableTest, AUnitThatIsThereTwiceCountsIfBothAreTheSame) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 300);
  const Keys expected = keysOf(volume);
  loseTable(volume);
  const TableFile& file = *find("0");
  std::vector<std::byte> unit(4096);
  ASSERT_OK(volume.device->read(DeviceOffset(unitsOf(volume, file)[0]), unit));
  const DeviceOffset behind(volume.geometry.volumeSize.v - 4096);
  ASSERT_OK(volume.device->write(behind, unit));
  auto salvaged = salvage(volume);
  ASSERT_NE(salvaged, nullptr);
  EXPECT_TRUE(keysOf(*salvaged) == expected);

  const auto claim = claimOf(unit);
  ASSERT_TRUE(claim);
  unit[100] ^= std::byte{1};
  sealUnit(unit, claim->fileId, claim->number, claim->length, claim->seed);
  ASSERT_OK(volume.device->write(behind, unit));
  salvaged = salvage(volume);
  ASSERT_NE(salvaged, nullptr);
  EXPECT_TRUE(noted("2 of its units are there twice"));
  EXPECT_FALSE(keysOf(*salvaged) == expected);
  const ScopedMutant off("salvage.rivals_count");
  salvaged = salvage(volume);
  ASSERT_NE(salvaged, nullptr);
  EXPECT_FALSE(noted("2 of its units are there twice"));
  EXPECT_TRUE(keysOf(*salvaged) == expected);  // by luck: the right one lies in front
}

TEST_F(LostTableTest, WhereNoIndexIsThatIsSaid) {
  Volume volume(geometryOf(32 * MiB));
  EXPECT_EQ(trySalvage(volume).errnum(), EUCLEAN);
  Random random;
  SCOPED_TRACE(random.trace());
  // The same block twice agrees with itself, and is no index all the same.
  std::vector<std::byte> block(4096);
  sealUnit(block, 7, 0, 100, 12345);
  for (uint64_t at = 2 * MiB; at < 3 * MiB; at += 4096)
    ASSERT_OK(volume.device->write(DeviceOffset(at), block));
  const Status none = trySalvage(volume);
  EXPECT_EQ(none.errnum(), EUCLEAN);
  EXPECT_NE(none.message().find("no part of the index was found"), std::string::npos);
}

TEST(UnitClaimTest, TheSeedOfAUnitLeadsToATableId) {
  Random random;
  SCOPED_TRACE(random.trace());
  for (int round = 0; round < 200; ++round) {
    const uint32_t seed = seedOf(random.below(UINT64_MAX));
    EXPECT_EQ(seedOf(tableIdOf(seed)), seed);
    std::vector<std::byte> unit(round % 2 == 0 ? 1024 : 4096);
    const uint64_t id = 1 + random.below((uint64_t{1} << 48) - 1);
    const auto number = static_cast<uint32_t>(random.below(UINT32_MAX));
    const uint64_t length = 1 + random.below(unit.size() - kUnitHeader);
    const std::string payload = random.bytes(length);
    std::memcpy(unit.data() + kUnitHeader, payload.data(), length);
    sealUnit(unit, id, number, length, seed);
    const auto claim = claimOf(unit);
    ASSERT_TRUE(claim);
    EXPECT_EQ(claim->seed, seed);
    EXPECT_EQ(claim->fileId, id);
    EXPECT_EQ(claim->number, number);
    EXPECT_EQ(claim->length, length);
    if (length < unit.size() - kUnitHeader) {
      unit.back() = std::byte{1};
      EXPECT_FALSE(claimOf(unit));
    }
  }
}

TEST_F(LostTableTest, ATableThatHasLostItsNumberIsReadAllTheSame) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 400);
  const Keys expected = keysOf(volume);
  loseTable(volume);
  const auto sound = volume.device->clone();
  size_t changed = 0;
  for (const TableFile& file : files_) {
    if (!file.name.ends_with(".sst")) continue;
    volume.device = sound->clone();
    // The name of the property, without what it has in common with the one before.
    if (!changeText(volume, file, "nal.file.number", "nal.file.nothing")) continue;
    ++changed;
    const auto salvaged = salvage(volume);
    ASSERT_NE(salvaged, nullptr);
    EXPECT_TRUE(keysOf(*salvaged) == expected) << file.name;
    EXPECT_TRUE(noted("table " + std::to_string(std::stoull(file.name)) + " is missing"));
  }
  EXPECT_GT(changed, 0u);
}

// Mounts that end well or badly. What is found is the state of one moment, at or behind what the
// file table would have said: a table that was written before the crash may be newer than that.
TEST_F(LostTableTest, AfterCrashesTheStateOfOneMomentIsFound) {
  Random random;
  SCOPED_TRACE(random.trace());
  for (int volumes = 0; volumes < rounds(4); ++volumes) {
    Volume volume(geometryOf(64 * MiB, random.oneIn(2) ? 4096 : 1024));
    ASSERT_OK(volume.format());
    std::vector<IndexBatch> history;
    for (int mounts = 0; mounts < 6; ++mounts) {
      mountOnce(volume, random, history);
      if (HasFatalFailure()) return;
      const auto before = volume.device->clone();
      const auto known = salvage(volume);
      ASSERT_NE(known, nullptr);
      EXPECT_TRUE(keysOf(*known) == stateAt(history, *known));
      loseTable(volume);
      const auto lost = salvage(volume);
      ASSERT_NE(lost, nullptr);
      EXPECT_GE(positionOf(*lost), positionOf(*known));
      const Keys expected = stateAt(history, *lost), found = keysOf(*lost);
      EXPECT_TRUE(found == expected || noted("may be back"));
      expectNearly(expected, found);
      volume.device = before->clone();
    }
  }
}

// Units whose checksums are right, and that say anything.
TEST_F(LostTableTest, WhateverUnitsSayThereIsAnAnswer) {
  Random random;
  SCOPED_TRACE(random.trace());
  Volume volume(geometryOf(64 * MiB));
  fill(volume, random, 100);
  loseTable(volume);
  const auto sound = volume.device->clone();
  std::vector<uint64_t> places;
  for (const TableFile& file : files_) {
    const auto more = unitsOf(volume, file);
    places.insert(places.end(), more.begin(), more.end());
  }
  ASSERT_FALSE(places.empty());
  size_t answers = 0;
  for (int round = 0; round < rounds(60); ++round) {
    volume.device = sound->clone();
    for (uint64_t n = 1 + random.below(20); n > 0; --n) {
      const DeviceOffset at(places[random.below(places.size())]);
      std::vector<std::byte> unit(4096);
      ASSERT_OK(volume.device->read(at, unit));
      const auto claim = claimOf(unit);
      if (!claim) continue;
      UnitClaim lie = *claim;
      if (random.oneIn(2)) lie.fileId = 1 + random.below(random.oneIn(2) ? 40 : (1ull << 48) - 1);
      if (random.oneIn(2))
        lie.number = static_cast<uint32_t>(random.below(random.oneIn(2) ? 40 : UINT32_MAX));
      if (random.oneIn(3)) lie.length = static_cast<uint16_t>(1 + random.below(4080));
      if (random.oneIn(4)) unit[kUnitHeader + random.below(4080)] = std::byte{0xff};
      sealUnit(unit, lie.fileId, lie.number, lie.length, lie.seed);
      ASSERT_OK(volume.device->write(at, unit));
    }
    const Status done = trySalvage(volume);
    EXPECT_TRUE(done.isOk() || done.errnum() == EUCLEAN) << done.message();
    answers += done.isOk() ? 1 : 0;
  }
  EXPECT_GT(answers, 0u);
}

}  // namespace
}  // namespace ourfs::test
