// An index that loses its file table, and verbs for its units on the device.
#pragma once

#include <algorithm>
#include <cstring>
#include <set>

#include "../../index/src/unit.h"
#include "common/codec.h"
#include "salvage_fixture.h"

namespace ourfs::test {

class LostTableTest : public SalvageTest {
 protected:
  // What the tests need to know of the files; afterwards no slot has a byte left.
  void loseTable(Volume& volume) {
    files_ = filesOf(volume);
    const std::vector<std::byte> garbage(2 * volume.geometry.tableSlotSize.v, std::byte{0x5a});
    ASSERT_OK(volume.device->write(volume.geometry.tableStart, garbage));
  }
  Status trySalvage(Volume& volume) {
    return IndexSalvage::read(
               *volume.device, volume.geometry, [](const std::string&) {},
               [](ByteCount, ByteCount) {})
        .status();
  }
  const TableFile* find(const std::string& prefix) const {
    const auto it = std::ranges::find_if(
        files_, [&](const TableFile& file) { return file.name.starts_with(prefix); });
    return it == files_.end() ? nullptr : &*it;
  }
  const TableFile& manifest() const {
    const std::string& current = find("CURRENT")->bytes;
    return *find(current.substr(0, current.find('\n')));
  }
  bool noted(const std::string& part) const {
    return std::ranges::any_of(
        notes_, [&](const std::string& line) { return line.find(part) != std::string::npos; });
  }
  // Places of all units of a file on the device.
  static std::vector<uint64_t> unitsOf(const Volume& volume, const TableFile& file) {
    const uint32_t blockSize = volume.geometry.blockSize;
    std::vector<uint64_t> places;
    for (const BlockRun& run : file.runs) {
      const uint64_t at = run.start.v * blockSize, length = run.count.v * blockSize;
      for (uint64_t i = 0; i < length; i += unitSizeFor(blockSize)) places.push_back(at + i);
    }
    return places;
  }
  using Bytes = std::vector<std::byte>;
  static std::vector<Bytes> bytesOf(Volume& volume, const TableFile& file) {
    std::vector<Bytes> units;
    for (uint64_t place : unitsOf(volume, file)) {
      units.emplace_back(unitSizeFor(volume.geometry.blockSize));
      EXPECT_TRUE(volume.device->read(DeviceOffset(place), units.back()).isOk());
    }
    return units;
  }
  // False if it is not there in one piece.
  static bool changeText(Volume& volume, const TableFile& file, const std::string& from,
                         const std::string& to) {
    for (uint64_t place : unitsOf(volume, file)) {
      Bytes unit(unitSizeFor(volume.geometry.blockSize));
      EXPECT_TRUE(volume.device->read(DeviceOffset(place), unit).isOk());
      const size_t at = asChars(unit).find(from);
      const auto claim = claimOf(unit);
      if (at == std::string::npos || !claim) continue;
      std::memcpy(unit.data() + at, to.data(), from.size());
      sealUnit(unit, claim->fileId, claim->number, claim->length, claim->seed);
      return volume.device->write(DeviceOffset(place), unit).isOk();
    }
    return false;
  }
  // Batch i is at position 8 * (i + 1). What a crash has taken leaves the history.
  static void mountOnce(Volume& volume, Random& random, std::vector<IndexBatch>& history) {
    const auto index = volume.open();
    ASSERT_NE(index, nullptr);
    ASSERT_OK(index->startBackground());
    history.resize(index->applied().end.v / 8);
    for (uint64_t batches = random.below(120); batches > 0; --batches) {
      IndexBatch batch;
      for (int k = 0; k < 40; ++k) {
        const std::string key = numberKey(random.below(5000));
        if (random.oneIn(4))
          batch.erase(key);
        else
          batch.put(key, random.bytes(random.below(60)));
      }
      ASSERT_OK(commit(*index, batch, 8 * (history.size() + 1)));
      history.push_back(batch);
      if (random.oneIn(25)) ASSERT_OK(index->flush());
    }
    if (random.oneIn(2)) ASSERT_OK(index->close());
  }
  static uint64_t positionOf(const IndexSalvage& salvaged) {
    const auto position = salvaged.persisted();
    return position ? position->end.v : 0;
  }
  // The keys at the position that was found, which is a key itself.
  static Keys stateAt(const std::vector<IndexBatch>& history, const IndexSalvage& salvaged) {
    Keys keys;
    for (uint64_t i = 0; i < std::min(history.size(), positionOf(salvaged) / 8); ++i) {
      for (const IndexBatch::Change& change : history[i].changes()) {
        if (change.isPut)
          keys[std::string(change.key)] = change.value;
        else
          keys.erase(std::string(change.key));
      }
    }
    if (const auto value = salvaged.get(kLogPositionKey)) keys.emplace(kLogPositionKey, *value);
    return keys;
  }
  // At the end of the device, where nothing of the index was.
  static void writeBehind(Volume& volume, const std::vector<Bytes>& units) {
    uint64_t at = volume.geometry.volumeSize.v;
    for (const Bytes& unit : units) {
      at -= unit.size();
      ASSERT_OK(volume.device->write(DeviceOffset(at), unit));
    }
  }
  void wipeWhatIsNotInUse(Volume& volume) {
    std::set<uint64_t> inUse;
    for (const TableFile& file : files_) {
      for (uint64_t place : unitsOf(volume, file)) inUse.insert(place);
    }
    const Bytes zeros(4096);
    const uint64_t from = firstFree(volume.geometry).v * 4096;
    for (uint64_t at = from; at < volume.geometry.volumeSize.v; at += 4096) {
      if (!inUse.contains(at)) ASSERT_OK(volume.device->write(DeviceOffset(at), zeros));
    }
  }
  static void copy(Volume& from, Volume& to, uint64_t at) {
    std::vector<std::byte> bytes(MiB);
    for (uint64_t i = 0; i < from.device->size().v; i += MiB) {
      ASSERT_OK(from.device->read(DeviceOffset(i), bytes));
      ASSERT_OK(to.device->write(DeviceOffset(at + i), bytes));
    }
  }
  static size_t missingOf(const Keys& expected, const Keys& found) {
    size_t missing = 0;
    for (const auto& [key, value] : expected) {
      const auto it = found.find(key);
      missing += it == found.end() || it->second != value ? 1 : 0;
    }
    return missing;
  }

  // Without the rule other keys are found.
  void expectCaught(const std::string& mutant, Volume& volume, const Keys& expected) {
    const ScopedMutant off(mutant);
    const auto salvaged = salvage(volume);
    EXPECT_TRUE(salvaged == nullptr || missingOf(expected, keysOf(*salvaged)) > expected.size() / 4)
        << mutant;
  }
  // What had been removed may be back, and of what was changed last an older value.
  static void expectNearly(const Keys& expected, const Keys& found) {
    EXPECT_LE(missingOf(expected, found), expected.size() / 4);
    for (const auto& [key, value] : expected) EXPECT_TRUE(found.contains(key));
  }

  std::vector<TableFile> files_;
};

}  // namespace ourfs::test
