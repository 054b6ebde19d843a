#include "../../index/src/file_table.h"

#include <thread>

#include "../../index/src/unit.h"
#include "block/fault_device.h"
#include "common/checksum.h"
#include "common/codec.h"
#include "crash_points.h"
#include "index_fixture.h"
#include "mutant.h"
#include "rounds.h"

namespace ourfs {
namespace {

using namespace test;

constexpr uint64_t kSlot = 32 * KiB;

IndexGeometry smallGeometry() { return geometryOf(32 * MiB, 4096, kSlot); }

// All that a table says, as text.
std::string describe(const FileTable& table) {
  std::string s;
  for (const BlockRun& r : table.pool()) {
    s += "pool " + std::to_string(r.start.v) + "+" + std::to_string(r.count.v) + "\n";
  }
  for (const TableFile& f : table.files()) {
    s += std::to_string(f.id) + " " + f.name + " " + f.bytes;
    for (uint64_t n : f.segments) s += " " + std::to_string(n);
    for (const BlockRun& r : f.runs) {
      s += " " + std::to_string(r.start.v) + "+" + std::to_string(r.count.v);
    }
    s += "\n";
  }
  return s;
}

std::unique_ptr<FileTable> loadTable(BlockDevice& device, bool readOnly = false) {
  auto table = FileTable::load(device, smallGeometry(), readOnly);
  EXPECT_TRUE(table.isOk()) << table.status().message();
  return table.isOk() ? std::move(table).value() : nullptr;
}

// Makes random changes of the kinds RocksDB causes.
class Editor {
 public:
  Editor(FileTable& table, Random& random) : table_(table), random_(random) {
    for (const TableFile& f : table.files()) (f.isInline ? inlines_ : files_).push_back(f.id);
    for (const BlockRun& r : table.pool()) end_ = std::max(end_, (r.start + r.count).v);
    refreshUsed();
  }
  void step() {
    const std::string name = "f" + std::to_string(table_.newId());
    switch (random_.below(7)) {
      case 0:
        files_.push_back(table_.newId());
        return expectOk(table_.create(files_.back(), name));
      case 1:
        inlines_.push_back(table_.newId());
        return expectOk(
            table_.setInline(inlines_.back(), name, std::string(random_.below(300), 'i')));
      case 2:
        return removeOne(random_.oneIn(2) ? files_ : inlines_);
      case 3:
        return renameOne(name);
      case 4:
        return grow();
      case 5:
        return shrink();
      default:
        return append();
    }
  }

 private:
  void removeOne(std::vector<uint64_t>& ids) {
    if (ids.empty()) return;
    const size_t i = random_.below(ids.size());
    expectOk(table_.remove(ids[i]));
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(i));
    refreshUsed();
  }
  void renameOne(const std::string& name) {
    if (files_.size() < 2) return;
    if (random_.oneIn(2)) return expectOk(table_.rename(files_.back(), name));
    // Over another file, which is gone then.
    const std::vector<TableFile> all = table_.files();
    const auto target = std::ranges::find(all, files_.front(), &TableFile::id);
    expectOk(table_.rename(files_.back(), target->name));
    files_.erase(files_.begin());
    refreshUsed();
  }
  void refreshUsed() {
    used_.clear();
    for (const BlockRun& r : table_.usedRuns()) {
      for (uint64_t b = 0; b < r.count.v; ++b) used_.insert(r.start.v + b);
    }
  }
  void grow() {
    if (end_ > 4000) return;
    const BlockRun run{BlockNo(end_ + random_.below(3)), BlockCount(1 + random_.below(20))};
    const Status added = table_.addPool(run);
    if (added.errnum() == ENOSPC) return;  // in too many pieces for its slot
    expectOk(added);
    end_ = (run.start + run.count).v;
  }
  void shrink() {
    const std::vector<BlockRun> pool = table_.pool();
    const BlockRun& run = pool[random_.below(pool.size())];
    std::vector<BlockRun> unused;
    for (uint64_t b = run.start.v; b < (run.start + run.count).v && unused.size() < 3; ++b)
      if (!used_.contains(b) && random_.oneIn(4)) unused.push_back({BlockNo(b), BlockCount(1)});
    if (unused.empty()) return;
    const Status removed = table_.removePool(unused);
    if (removed.errnum() != ENOSPC) expectOk(removed);
  }
  void append() {
    if (files_.empty()) return;
    std::vector<BlockRun> runs;
    const uint64_t want = 1 + random_.below(4);
    for (const BlockRun& p : table_.pool()) {
      for (uint64_t b = p.start.v; b < (p.start + p.count).v && runs.size() < want; ++b) {
        if (!random_.oneIn(3) || !used_.insert(b).second) continue;
        runs.push_back({BlockNo(b), BlockCount(1)});
      }
    }
    if (runs.empty()) return;
    const uint64_t bytes = (runs.size() - 1) * 4080 + 1 + random_.below(4080);
    expectOk(table_.append(files_[random_.below(files_.size())], bytes, runs));
  }

  FileTable& table_;
  Random& random_;
  std::vector<uint64_t> files_, inlines_;
  std::set<uint64_t> used_;
  uint64_t end_ = 0;
};

class FileTableTest : public IndexTest {
 protected:
  FileTableTest() : device_(MemoryDevice::create(ByteCount(32 * MiB))) {
    pool_ = {runOf(smallGeometry(), firstFree(smallGeometry()), 4 * MiB)};
    expectOk(FileTable::format(*device_, smallGeometry(), pool_));
  }
  std::unique_ptr<MemoryDevice> device_;
  std::vector<BlockRun> pool_;
  Random random_;
};

TEST_F(FileTableTest, ReloadsAsItWasSynced) {
  SCOPED_TRACE(random_.trace());
  for (int mount = 0; mount < 10; ++mount) {
    auto table = loadTable(*device_);
    Editor editor(*table, random_);
    for (int i = 0; i < 60; ++i) {
      editor.step();
      if (random_.oneIn(3)) expectOk(table->sync());
    }
    expectOk(table->sync());
    EXPECT_EQ(describe(*loadTable(*device_)), describe(*table));
    editor.step();  // not synced
  }
}

TEST_F(FileTableTest, AfterAnyCrashItIsAStateOfASync) {
  SCOPED_TRACE(random_.trace());
  const std::unique_ptr<MemoryDevice> base = device_->clone();
  auto recorder = RecordDevice::wrap(*device_);
  struct Sync {
    uint64_t begun, done;
    std::string state;
  };
  std::vector<Sync> syncs;
  auto table = loadTable(*recorder);
  syncs.push_back({0, recorder->clock(), describe(*table)});
  Editor editor(*table, random_);
  for (int i = 0; i < 120; ++i) {
    for (uint64_t n = 1 + random_.below(5); n > 0; --n) editor.step();
    const uint64_t begun = recorder->mark();
    expectOk(table->sync());
    syncs.push_back({begun, recorder->mark(), describe(*table)});
  }
  const std::vector<RecordedIo> log = recorder->log();
  ASSERT_GT(std::ranges::count(log, DeviceOffset(kTableAt), &RecordedIo::offset), 1) << "no switch";
  for (int i = 0; i < 300; ++i) {
    const uint64_t point = random_.below(recorder->clock() + 1);
    auto image = randomCrash(*base, log, point, random_);
    const std::string state = describe(*loadTable(*image));
    const bool found = std::ranges::any_of(syncs, [&](const Sync& s) {
      const bool superseded = &s != &syncs.back() && (&s)[1].done <= point;
      return s.begun <= point && !superseded && s.state == state;
    });
    ASSERT_TRUE(found) << "at " << point;
  }
}

TEST_F(FileTableTest, MutatedBytesAreAnOldStateOrAnErrorButNeverACrash) {
  SCOPED_TRACE(random_.trace());
  auto table = loadTable(*device_);
  Editor editor(*table, random_);
  std::vector<std::string> states;
  for (int i = 0; i < 25; ++i) {
    for (int n = 0; n < 3; ++n) editor.step();
    expectOk(table->sync());
    // Steps that found nothing to do write nothing.
    const std::string state = describe(*table);
    if (states.empty() || state != states.back()) states.push_back(state);
  }
  int refused = 0;
  for (int i = 0; i < test::rounds(10000); ++i) {
    std::vector<std::byte> sector(4096);
    const uint64_t place = random_.below(2 * kSlot / 4096) * 4096;
    expectOk(device_->read(DeviceOffset(kTableAt + place), sector));
    const std::vector<std::byte> before = sector;
    const uint64_t within = random_.oneIn(2) ? 128 : 4096;
    for (uint64_t n = 1 + random_.below(3); n > 0; --n) {
      sector[random_.below(within)] = static_cast<std::byte>(random_.below(256));
    }
    expectOk(device_->write(DeviceOffset(kTableAt + place), sector));
    auto loaded = FileTable::load(*device_, smallGeometry(), true);
    if (loaded.isOk()) {
      // Only the last change can go unnoticed: it looks as if it had been torn.
      const std::string state = describe(**loaded);
      EXPECT_TRUE(state == states.back() || state == states[states.size() - 2]);
    } else {
      EXPECT_EQ(loaded.errnum(), EUCLEAN);
      ++refused;
    }
    expectOk(device_->write(DeviceOffset(kTableAt + place), before));
  }
  EXPECT_GT(refused, test::rounds(100));
}

TEST_F(FileTableTest, WrongFieldsUnderARightChecksumAreRefused) {
  SCOPED_TRACE(random_.trace());
  auto table = loadTable(*device_);
  Editor editor(*table, random_);
  std::vector<std::byte> slot(kSlot);
  SlotHeader header{};
  // Fills the table until a snapshot of many files has been written to the first slot.
  while (header.sequence < 4) {
    editor.step();
    expectOk(table->sync());
    expectOk(device_->read(DeviceOffset(kTableAt), slot));
    std::memcpy(&header, slot.data(), sizeof header);
  }
  const std::vector<std::byte> good = slot;
  const uint64_t length = sizeof header + header.bodyLength;
  for (int i = 0; i < test::rounds(10000); ++i) {
    slot = good;
    for (uint64_t n = 1 + random_.below(3); n > 0; --n) {
      slot[8 + random_.below(length - 8)] = static_cast<std::byte>(random_.below(256));
    }
    uint64_t body = 0;
    std::memcpy(&body, slot.data() + offsetof(SlotHeader, bodyLength), sizeof body);
    if (body > kSlot - sizeof header) continue;
    const uint32_t crc = crc32c(std::span(slot).subspan(8, sizeof header - 8 + body));
    std::memcpy(slot.data() + 4, &crc, sizeof crc);
    expectOk(device_->write(DeviceOffset(kTableAt), slot));
    auto loaded = FileTable::load(*device_, smallGeometry(), true);
    if (!loaded.isOk()) {
      EXPECT_EQ(loaded.errnum(), EUCLEAN);
      continue;
    }
    for (const TableFile& f : (*loaded)->files()) EXPECT_LE(f.size(), 32 * MiB);
    for (const BlockRun& r : (*loaded)->pool()) EXPECT_LE((r.start + r.count).v, 8192u);
  }
}

TEST_F(FileTableTest, ALostChangeIsNoticedWhenALaterOneIsThere) {
  auto table = loadTable(*device_);
  for (const char* name : {"a", "b", "c"}) {
    expectOk(table->create(table->newId(), name));
    expectOk(table->sync());
  }
  const std::vector<std::byte> zeros(4096);
  // Snapshot, "a", "b", "c": a sector each.
  for (uint64_t lost : {0, 1, 2}) {
    auto image = device_->clone();
    expectOk(image->write(DeviceOffset(kTableAt + lost * 4096), zeros));
    EXPECT_EQ(FileTable::load(*image, smallGeometry(), false).errnum(), EUCLEAN) << lost;
  }
  auto image = device_->clone();
  expectOk(image->write(DeviceOffset(kTableAt + 3 * 4096), zeros));
  EXPECT_EQ(loadTable(*image)->files().size(), 2u);
}

TEST_F(FileTableTest, ASlotThatWasTakenOverIsNotGoneBackTo) {
  auto table = loadTable(*device_);
  const DeviceOffset other(kTableAt + kSlot);
  std::vector<std::byte> sector(4096);
  SlotHeader header{};
  while (header.sequence != 3) {
    const uint64_t id = table->newId();
    expectOk(table->create(id, "f" + std::to_string(id)));
    expectOk(table->sync());
    expectOk(device_->read(other, sector));
    std::memcpy(&header, sector.data(), sizeof header);
  }
  EXPECT_EQ(describe(*loadTable(*device_)), describe(*table));
  sector[100] ^= std::byte{1};
  expectOk(device_->write(other, sector));
  EXPECT_EQ(FileTable::load(*device_, smallGeometry(), false).errnum(), EUCLEAN);
}

// A write is parked with its bytes captured; changes come, and the table grows; the write goes on.
// What a crash right after it leaves is the state that was captured.
TEST_F(FileTableTest, ASyncedStateIsThereWhateverCameMeanwhile) {
  SyncPoints& points = SyncPoints::instance();
  for (const std::string mutant : {"", "filetable.shared_buffer", "filetable.grow_in_place"}) {
    points.reset();
    if (!mutant.empty()) points.setMutant(mutant, true);
    expectOk(FileTable::format(*device_, smallGeometry(), pool_));
    const std::unique_ptr<MemoryDevice> base = device_->clone();
    auto recorder = RecordDevice::wrap(*device_);
    auto table = loadTable(*recorder);
    expectOk(table->create(table->newId(), "captured"));
    const std::string captured = describe(*table);
    points.park("filetable.captured");
    std::thread writer([&] { expectOk(table->sync()); });
    ASSERT_TRUE(points.awaitParked("filetable.captured"));
    for (uint64_t i = 0; i < 50; ++i) {  // more than the captured buffer holds
      expectOk(
          table->setInline(table->newId(), "later" + std::to_string(i), std::string(200, 'l')));
    }
    points.release("filetable.captured");
    writer.join();
    auto image =
        crashImage(*base, recorder->log(), recorder->mark(), [](auto, auto) { return false; });
    auto loaded = FileTable::load(*image, smallGeometry(), false);
    const bool same = loaded.isOk() && describe(**loaded) == captured;
    EXPECT_EQ(same, mutant.empty()) << mutant;
    if (!same) reportCaught(mutant, 1, "one owner per buffer: a synced table is there");
  }
}

TEST_F(FileTableTest, AFlippedByteOfASlotOrADeltaIsNoticed) {
  auto table = loadTable(*device_);
  // Until a snapshot with names in it was written to the second slot, and a delta behind it.
  const uint64_t other = kTableAt + kSlot;
  std::vector<std::byte> slot(kSlot);
  SlotHeader header{};
  while (header.sequence != 3) {
    expectOk(table->create(table->newId(), "some-name-" + std::to_string(table->newId())));
    expectOk(table->sync());
    expectOk(device_->read(DeviceOffset(other), slot));
    std::memcpy(&header, slot.data(), sizeof header);
  }
  const uint64_t delta = roundUp(sizeof header + header.bodyLength, kTableSector);
  expectOk(table->create(table->newId(), "some-name-of-a-delta"));
  expectOk(table->sync());
  expectOk(table->create(table->newId(), "some-name-at-the-end"));
  expectOk(table->sync());
  expectOk(device_->read(DeviceOffset(other), slot));
  const std::string right = describe(*table);
  for (const auto& [from, mutant] : {std::pair(uint64_t{0}, "filetable.skip_slot_checksum"),
                                     std::pair(delta, "filetable.skip_delta_checksum")}) {
    const std::string_view bytes = asChars(slot);
    const size_t name = bytes.find("some-name-", from);
    ASSERT_NE(name, std::string_view::npos);
    std::vector<std::byte> flipped = slot;
    flipped[name] ^= std::byte{1};
    auto image = device_->clone();
    expectOk(image->write(DeviceOffset(other), flipped));
    EXPECT_EQ(FileTable::load(*image, smallGeometry(), false).errnum(), EUCLEAN) << mutant;
    ScopedMutant rule(mutant);
    auto loaded = FileTable::load(*image, smallGeometry(), false);
    ASSERT_TRUE(loaded.isOk()) << loaded.status().message();
    EXPECT_NE(describe(**loaded), right) << "a wrong name, and nobody says so";
    reportCaught(mutant, 1, "every part of the file table is checked");
  }
}

TEST_F(FileTableTest, WhatIsWrittenIsWhatWasCaptured) {
  const std::unique_ptr<MemoryDevice> base = device_->clone();
  auto recorder = RecordDevice::wrap(*device_);
  auto table = loadTable(*recorder);
  expectOk(table->create(table->newId(), "first"));
  const std::string captured = describe(*table);
  SyncPoints::instance().park("filetable.captured");
  std::thread writer([&] { expectOk(table->sync()); });
  ASSERT_TRUE(SyncPoints::instance().awaitParked("filetable.captured"));
  // Growth and changes while the write is on its way: they belong to the next one.
  for (uint64_t i = 0; i < 50; ++i) {
    expectOk(table->addPool({BlockNo(4000 + 2 * i), BlockCount(1)}));
    expectOk(table->setInline(table->newId(), "later" + std::to_string(i), "bytes"));
  }
  SyncPoints::instance().release("filetable.captured");
  writer.join();
  auto image =
      crashImage(*base, recorder->log(), recorder->mark(), [](size_t, size_t) { return false; });
  EXPECT_EQ(describe(*loadTable(*image)), captured);
  expectOk(table->sync());
  EXPECT_EQ(describe(*loadTable(*device_)), describe(*table));
}

TEST_F(FileTableTest, DroppedBlocksAreReleasedOnceTheTableWithoutThemIsDurable) {
  auto table = loadTable(*device_);
  std::vector<BlockRun> released;
  table->setRelease(
      [&](const auto& runs) { released.insert(released.end(), runs.begin(), runs.end()); });
  const BlockRun run{pool_[0].start, BlockCount(3)};
  const uint64_t id = table->newId();
  expectOk(table->create(id, "file"));
  expectOk(table->append(id, 3 * 4080, {run}));
  expectOk(table->sync());
  expectOk(table->remove(id));
  EXPECT_TRUE(released.empty());
  EXPECT_EQ(table->droppedBlocks().v, 3u);
  expectOk(table->sync());
  EXPECT_EQ(released, std::vector<BlockRun>{run});
  EXPECT_EQ(table->droppedBlocks().v, 0u);
}

TEST_F(FileTableTest, AFailedWriteIsFinal) {
  auto faults = FaultDevice::wrap(*device_);
  auto table = loadTable(*faults);
  FaultRule rule;
  rule.op = IoOp::Write;
  rule.cls = IoClass::FileTable;
  faults->addRule(rule);
  expectOk(table->create(table->newId(), "a"));
  EXPECT_EQ(table->sync().errnum(), EIO);
  expectOk(table->create(table->newId(), "b"));
  EXPECT_EQ(table->sync().errnum(), EIO);
  EXPECT_TRUE(loadTable(*device_)->files().empty());
}

TEST_F(FileTableTest, RefusesImpossibleChangesAndStaysAsItWas) {
  auto table = loadTable(*device_);
  const std::string before = describe(*table);
  const BlockRun outside{BlockNo(8000), BlockCount(1)};
  EXPECT_FALSE(table->addPool({BlockNo(8190), BlockCount(3)}).isOk());   // beyond the volume
  EXPECT_FALSE(table->addPool({BlockNo(17), BlockCount(1)}).isOk());     // the table itself
  EXPECT_FALSE(table->addPool({pool_[0].start, BlockCount(1)}).isOk());  // twice
  EXPECT_FALSE(table->append(77, 100, {outside}).isOk());
  EXPECT_FALSE(table->remove(77).isOk());
  EXPECT_FALSE(table->setInline(table->newId(), "big", std::string(5000, 'x')).isOk());
  EXPECT_FALSE(table->create(table->newId(), "with/slash").isOk());
  EXPECT_EQ(describe(*table), before);
}

TEST_F(FileTableTest, RefusesMoreExtentsThanItsSlotCouldHold) {
  auto table = loadTable(*device_);
  Status status;
  uint64_t block = pool_[0].start.v + pool_[0].count.v + 1;
  for (; status && block < 8190; block += 2)
    status = table->addPool({BlockNo(block), BlockCount(1)});
  EXPECT_LT(block, 8190u);
  EXPECT_EQ(status.errnum(), ENOSPC);
  expectOk(table->sync());
  EXPECT_EQ(describe(*loadTable(*device_)), describe(*table));
}

TEST_F(FileTableTest, APlaceThatCannotBeRightIsRefused) {
  for (int i = 0; i < 5; ++i) {
    IndexGeometry g = smallGeometry();
    if (i == 0) g.blockSize = 3000;
    if (i == 1) g.tableSlotSize = ByteCount(kSlot + 512);
    if (i == 2) g.tableStart = DeviceOffset(32 * MiB - kSlot);
    if (i == 3) g.volumeSize = ByteCount(64 * MiB);
    if (i == 4) g.volumeSize = ByteCount(16 * MiB);
    EXPECT_EQ(FileTable::load(*device_, g, false).errnum(), EUCLEAN) << i;
  }
  auto empty = MemoryDevice::create(ByteCount(32 * MiB));
  EXPECT_EQ(FileTable::load(*empty, smallGeometry(), false).errnum(), EUCLEAN);
}

}  // namespace
}  // namespace ourfs
