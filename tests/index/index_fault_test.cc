// The index when the device errs or lies.
#include "../../index/src/file_table.h"
#include "block/fault_device.h"
#include "index_fixture.h"
#include "mutant.h"
#include "rounds.h"

namespace ourfs {
namespace {

using namespace test;

class IndexFaultTest : public IndexTest {
 protected:
  IndexFaultTest() : volume_(geometryOf(32 * MiB)) { expectOk(volume_.format()); }
  IndexBatch batch(uint64_t n) {
    IndexBatch b;
    for (uint64_t i = 0; i < 4; ++i) b.put(numberKey((n * 4 + i) % 5000), random_.bytes(100));
    return b;
  }
  std::vector<std::byte> bytesOf(MemoryDevice& device) {
    std::vector<std::byte> bytes(device.size().v);
    expectOk(device.read(DeviceOffset(0), bytes));
    return bytes;
  }
  Volume volume_;
  Random random_;
};

TEST_F(IndexFaultTest, AnyWriteErrorIsFailStopAndLosesNothingThatWasPersisted) {
  SCOPED_TRACE(random_.trace());
  for (int round = 0; round < std::max(3, test::rounds(6)); ++round) {
    auto faults = FaultDevice::wrap(*volume_.device);
    IndexOptions o = volume_.options();
    std::atomic<int> failures = 0;
    o.onFailure = [&](const Status&) { ++failures; };
    auto index = Volume::openOn(*faults, std::move(o));
    ASSERT_NE(index, nullptr);
    ASSERT_OK(index->startBackground());
    uint64_t position = index->applied().end.v;
    ++position;
    ASSERT_OK(index->apply(batch(position), {Lsn(position), 1}));
    ASSERT_OK(index->flush());
    const uint64_t persisted = position;
    FaultRule rule;
    rule.op = round % 3 == 2 ? IoOp::Flush : IoOp::Write;
    rule.cls = round % 3 == 0 ? IoClass::Index : IoClass::FileTable;
    rule.skip = random_.below(12);
    rule.errnum = random_.oneIn(2) ? EIO : ENOSPC;
    faults->addRule(rule);
    Status status;
    while (status && position < persisted + 100'000) {
      status = commit(*index, batch(position), position + 1);
      if (status) ++position;
    }
    EXPECT_FALSE(status.isOk());
    EXPECT_FALSE(index->flush().isOk());
    EXPECT_FALSE(index->apply(batch(0), {Lsn(position + 1), 1}).isOk());
    EXPECT_NE(valueOf(*index, numberKey(persisted * 4 % 5000)), "");
    EXPECT_FALSE(index->close().isOk());
    index.reset();
    EXPECT_EQ(failures, 1);  // who failed tells it a moment after others can see it
    index = volume_.open();
    ASSERT_NE(index, nullptr);
    EXPECT_GE(index->applied().end.v, persisted);
    EXPECT_LE(index->applied().end.v, position);
    ASSERT_OK(index->verify([](const std::string& problem) { ADD_FAILURE() << problem; }));
  }
}

TEST_F(IndexFaultTest, AFailingHookKeepsTheManifestFromTheDevice) {
  IndexOptions o = volume_.options();
  std::atomic<bool> fails = false;
  o.beforePersist = [&] { return fails ? Status::error(EIO) : Status::ok(); };
  std::atomic<int> failures = 0;
  o.onFailure = [&](const Status&) { ++failures; };
  auto index = Volume::openOn(*volume_.device, std::move(o));
  ASSERT_OK(index->apply(batch(0), {Lsn(1), 1}));
  fails = true;
  EXPECT_FALSE(index->flush().isOk());
  index.reset();
  EXPECT_EQ(failures, 1);
  index = volume_.open();
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(index->applied(), AppliedPosition{});
}

TEST_F(IndexFaultTest, AForcedErrorBeforeAManifestSyncIsFailStop) {
  auto index = volume_.open();
  ASSERT_OK(index->apply(batch(0), {Lsn(1), 1}));
  SyncPoints::instance().forceError("index.before_manifest_sync", EIO);
  EXPECT_FALSE(index->flush().isOk());
  EXPECT_FALSE(index->apply(batch(1), {Lsn(2), 1}).isOk());
  EXPECT_FALSE(index->awaitMemtableRoom().isOk());
}

TEST_F(IndexFaultTest, ApplyNeverWaitsForAFlushThatHangs) {
  auto index = volume_.open();
  ASSERT_OK(index->startBackground());
  ASSERT_OK(index->apply(batch(0), {Lsn(1), 1}));
  SyncPoints::instance().park("index.before_manifest_sync");
  uint64_t position = 1;
  // Fills memtables until reservations would wait, and a few more.
  while (index->memtableRoom() && position < 100'000) {
    ++position;
    ASSERT_OK(index->apply(batch(position), {Lsn(position), 1}));
  }
  EXPECT_FALSE(index->memtableRoom());
  for (int i = 0; i < 500; ++i) {
    ++position;
    ASSERT_OK(index->apply(batch(position), {Lsn(position), 1}));
  }
  ASSERT_TRUE(SyncPoints::instance().awaitParked("index.before_manifest_sync"));
  EXPECT_EQ(index->persisted()->end.v, 0u);
  SyncPoints::instance().release("index.before_manifest_sync");
  ASSERT_OK(index->awaitMemtableRoom());
  ASSERT_OK(index->flush());
  EXPECT_EQ(index->persisted()->end.v, position);
}

TEST_F(IndexFaultTest, ReadingOnlyLeavesEveryByteAsItWas) {
  {
    auto index = volume_.open();
    ASSERT_OK(index->startBackground());
    for (uint64_t n = 1; n < 2000; ++n) ASSERT_OK(commit(*index, batch(n), n));
    ASSERT_OK(index->close());
  }
  const std::vector<std::byte> before = bytesOf(*volume_.device);
  IndexOptions o = volume_.options();
  o.readOnly = true;
  int hooks = 0;
  o.beforePersist = [&] {
    ++hooks;
    return Status::ok();
  };
  auto index = Volume::openOn(*volume_.device, std::move(o));
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(index->applied().end.v, 1999u);
  // More than the memtables hold: what they flush stays in memory.
  for (uint64_t n = 2000; n < 9000; ++n) ASSERT_OK(commit(*index, batch(n), n));
  IndexBatch last;
  last.put("Ilast", "value");
  ASSERT_OK(commit(*index, last, 9000));
  EXPECT_GT(index->counters().flushes, 0u);
  EXPECT_EQ(valueOf(*index, "Ilast"), "value");
  EXPECT_EQ(index->applied().end.v, 9000u);
  EXPECT_EQ(index->persisted()->end.v, 1999u);
  ASSERT_OK(index->startBackground());
  ASSERT_OK(index->flush());
  ASSERT_OK(index->close());
  index.reset();
  EXPECT_EQ(hooks, 0);
  EXPECT_TRUE(bytesOf(*volume_.device) == before);
}

// The blocks of the newest file whose name starts like this.
TableFile fileNamed(Volume& volume, const std::string& start) {
  auto table = std::move(FileTable::load(*volume.device, volume.geometry, true)).value();
  TableFile found;
  for (const TableFile& f : table->files()) {
    if (f.name.starts_with(start) || f.name.ends_with(start)) found = f;
  }
  return found;
}

TEST_F(IndexFaultTest, AManifestThatLostItsTailIsNoticed) {
  IndexBatch b;
  {
    auto index = volume_.open();
    b.put("Ikey", "first");
    ASSERT_OK(index->apply(b, {Lsn(1), 1}));
    ASSERT_OK(index->flush());
    b.put("Ikey", "second");
    ASSERT_OK(index->apply(b, {Lsn(2), 1}));
    ASSERT_OK(index->flush());
  }
  // The last unit becomes zeros, as if its write had been lost.
  const TableFile manifest = fileNamed(volume_, "MANIFEST-");
  const BlockRun& last = manifest.runs.back();
  const std::vector<std::byte> zeros(4096);
  ASSERT_OK(volume_.device->write(DeviceOffset((last.start.v + last.count.v - 1) * 4096), zeros));
  Result<std::unique_ptr<Index>> opened = Index::open(*volume_.device, volume_.options());
  EXPECT_EQ(opened.errnum(), EUCLEAN);
  EXPECT_NE(opened.status().message().find("unit"), std::string::npos) << opened.status().message();
  ScopedMutant mutant("index.skip_block_checksum");
  opened = Index::open(*volume_.device, volume_.options());
  // Nothing else would have told: it opens at an older state.
  ASSERT_TRUE(opened.isOk()) << opened.status().message();
  EXPECT_EQ((*opened)->applied().end.v, 1u);
  reportCaught("index.skip_block_checksum", 1, "every unit of an index file is checked");
}

TEST_F(IndexFaultTest, AFlippedBitInATableIsCorruptionNotData) {
  Volume volume(geometryOf(4 * GiB));  // write buffers that make a table larger than open reads
  ASSERT_OK(volume.format());
  constexpr uint64_t kCount = 20'000;
  {
    auto index = volume.open();
    for (uint64_t n = 0; n < kCount; n += 100) {
      IndexBatch b;
      for (uint64_t i = n; i < n + 100; ++i) b.put(numberKey(i), random_.bytes(100));
      ASSERT_OK(commit(*index, b, n + 1));
    }
    ASSERT_OK(index->close());
  }
  const TableFile table = fileNamed(volume, ".sst");
  ASSERT_GT(table.size(), 1 * MiB);
  const DeviceOffset at(table.runs[0].start.v * 4096);
  std::vector<std::byte> block(4096);
  ASSERT_OK(volume.device->read(at, block));
  block[1000] ^= std::byte{0x10};
  ASSERT_OK(volume.device->write(at, block));
  auto index = volume.open();
  ASSERT_NE(index, nullptr);
  std::string problems;
  ASSERT_OK(index->verify([&](const std::string& p) { problems += p; }));
  EXPECT_NE(problems.find("wrong checksum"), std::string::npos) << problems;
  EXPECT_EQ(index->get(numberKey(0)).errnum(), EUCLEAN);
  EXPECT_EQ(valueOf(*index, numberKey(kCount - 1)).size(), 100u);
}

}  // namespace
}  // namespace ourfs
