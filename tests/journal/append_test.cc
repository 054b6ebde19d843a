#include <algorithm>
#include <thread>

#include "journal_fixture.h"

namespace ourfs {
namespace {

using AppendTest = JournalTest;

TEST_F(AppendTest, FlushedRecordsAreReplayedInOrder) {
  start(*memory_);
  const std::vector<std::string> payloads = {"one", "", "three", std::string(10000, 'x'), "five"};
  std::vector<LogPosition> positions;
  for (const std::string& p : payloads) positions.push_back(append(p));
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(journal_->durable(), positions.back().end);

  const Replayed r = replay();
  ASSERT_TRUE(r.status.isOk());
  EXPECT_EQ(r.payloads, payloads);
  EXPECT_EQ(r.positions, positions);
  EXPECT_EQ(r.summary.end, journal_->head());
  EXPECT_EQ(r.summary.records, 5u);
  EXPECT_EQ(r.summary.payloadBytes, 10012u);
  EXPECT_EQ(r.summary.generation, 1u);
  EXPECT_EQ(r.summary.lost, "");
}

TEST_F(AppendTest, NothingReachesTheDeviceBeforeAFlush) {
  auto recorder = RecordDevice::wrap(*memory_);
  start(*recorder);
  append("quiet");
  EXPECT_TRUE(recorder->log().empty());
  EXPECT_EQ(journal_->durable(), Lsn(0));
  EXPECT_TRUE(replay().payloads.empty());
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(replay().payloads, std::vector<std::string>{"quiet"});
  EXPECT_EQ(recorder->log().size(), 1u);
}

TEST_F(AppendTest, ApplySeesThePositionsInLogOrder) {
  start(*memory_);
  std::vector<Lsn> seen;  // apply runs under the log lock
  auto work = [&] {
    for (int i = 0; i < 200; ++i) {
      auto room = journal_->reserve(ByteCount(16));
      ASSERT_TRUE(room.isOk());
      auto at = journal_->append(std::move(room).value(), asBytes("sixteen bytes..."), false,
                                 [&](const LogPosition& p) {
                                   seen.push_back(p.end);
                                   return Status::ok();
                                 });
      ASSERT_TRUE(at.isOk());
    }
  };
  std::thread a(work), b(work);
  a.join(), b.join();
  ASSERT_TRUE(flush().isOk());
  ASSERT_EQ(seen.size(), 400u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  const Replayed r = replay();
  ASSERT_EQ(r.positions.size(), seen.size());
  for (size_t i = 0; i < seen.size(); ++i) ASSERT_EQ(r.positions[i].end, seen[i]);
}

TEST_F(AppendTest, EachWriteStartsOnAFreshSector) {
  auto recorder = RecordDevice::wrap(*memory_);
  start(*recorder);
  for (int i = 0; i < 20; ++i) {
    append(std::string(static_cast<size_t>(i) * 331, 'a'));
    if (i % 3 == 0) {
      ASSERT_TRUE(flush().isOk());
    }
  }
  ASSERT_TRUE(flush().isOk());
  uint64_t behind = geometry_.start.v;
  for (const RecordedIo& io : recorder->log()) {
    ASSERT_EQ(io.op, IoOp::Write);
    EXPECT_EQ(io.cls, IoClass::Journal);
    EXPECT_TRUE(io.fua);
    EXPECT_EQ(io.offset.v, behind) << "neither a gap nor a sector written twice";
    EXPECT_TRUE(isAligned(io.bytes.size(), geometry_.sector));
    behind = io.offset.v + io.bytes.size();
  }
  EXPECT_EQ(replay().payloads.size(), 20u);
}

TEST_F(AppendTest, ManyLapsAreReplayedFromEveryTail) {
  start(*memory_);
  std::mt19937_64 random(testSeed());
  LogPosition tail;
  for (int round = 0; journal_->head().end.v < 20 * geometry_.size.v; ++round) {
    std::vector<std::string> expected;
    for (uint64_t i = 0, n = random() % 12; i < n; ++i) {
      expected.push_back(std::to_string(round) + std::string(random() % 9000, 'p'));
      append(expected.back());
      if (random() % 3 == 0) {
        ASSERT_TRUE(flush().isOk());
      }
    }
    ASSERT_TRUE(flush().isOk());
    const Replayed r = replay(tail);
    ASSERT_TRUE(r.status.isOk()) << r.status.message();
    ASSERT_EQ(r.payloads, expected) << "round " << round;
    ASSERT_EQ(r.summary.end, journal_->head());
    ASSERT_EQ(r.summary.lost, "");
    tail = journal_->head();
    journal_->advanceTail(tail.end);
    ASSERT_EQ(journal_->used(), ByteCount(0));
  }
}

TEST_F(AppendTest, ARecordLargerThanTheBufferTakesSeveralWritesAndOneFlush) {
  geometry_.size = ByteCount(12 * MiB);
  auto recorder = RecordDevice::wrap(*memory_);
  start(*recorder);
  std::string big(2 * MiB + 12345, '\0');
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 7 + i / 4096);
  append(big);
  ASSERT_TRUE(flush().isOk());
  const auto log = recorder->log();
  EXPECT_EQ(countIo(log, IoOp::Write), 3u);
  EXPECT_EQ(countIo(log, IoOp::Flush), 1u);
  EXPECT_EQ(log.back().op, IoOp::Flush) << "durable together, and only then acknowledged";
  EXPECT_EQ(replay().payloads, std::vector<std::string>{big});
}

TEST_F(AppendTest, TheWriterThreadCarriesWhatPilesUp) {
  std::atomic<uint64_t> durable{0};
  onDurable_ = [&](Lsn lsn) { durable = lsn.v, durable.notify_all(); };
  start(*memory_);
  while (journal_->head().end.v < geometry_.size.v / 4) append(std::string(4000, 'w'));
  while (durable.load() == 0) durable.wait(0);
  journal_.reset();
  EXPECT_EQ(replay().summary.end.end.v, durable.load());
}

TEST_F(AppendTest, TheLargestPayloadFitsAndOneMoreIsRefused) {
  start(*memory_);
  const uint64_t most = journal_->maxPayload().v;
  EXPECT_EQ(most, geometry_.size.v / 4);
  EXPECT_EQ(journal_->reserve(ByteCount(most + 1)).errnum(), EFBIG);
  EXPECT_EQ(journal_->reserve(ByteCount(UINT64_MAX)).errnum(), EFBIG);
  append(std::string(most, 'm'));
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(replay().payloads.at(0).size(), most);
}

TEST_F(AppendTest, ARecordLargerThanItsReservationIsRefused) {
  start(*memory_);
  auto room = journal_->reserve(ByteCount(4));
  ASSERT_TRUE(room.isOk());
  EXPECT_EQ(journal_->append(std::move(room).value(), asBytes("five!"), false, nullptr).errnum(),
            EINVAL);
  EXPECT_EQ(journal_->append({}, asBytes(""), false, nullptr).errnum(), EINVAL);
  EXPECT_TRUE(journal_->failure().isOk());
  append("still alive");
}

TEST_F(AppendTest, AnIndexThatRefusesARecordStopsTheJournal) {
  start(*memory_);
  append("good");
  auto room = journal_->reserve(ByteCount(4));
  ASSERT_TRUE(room.isOk());
  auto bad = journal_->append(std::move(room).value(), asBytes("bad"), false,
                              [](const LogPosition&) { return Status::error(EIO, "index"); });
  EXPECT_EQ(bad.errnum(), EIO);
  EXPECT_EQ(flush().errnum(), EIO);
  EXPECT_EQ(journal_->reserve(ByteCount(1)).errnum(), EIO);
  EXPECT_TRUE(replay().payloads.empty());
}

TEST_F(AppendTest, ABadGeometryIsAnErrorAndNoIo) {
  auto recorder = RecordDevice::wrap(*memory_);
  const JournalGeometry bad[] = {
      {DeviceOffset(0), ByteCount(256 * KiB), 0},
      {DeviceOffset(0), ByteCount(256 * KiB), 3000},
      {DeviceOffset(0), ByteCount(256 * KiB), 256},
      {DeviceOffset(100), ByteCount(256 * KiB), 4096},
      {DeviceOffset(0), ByteCount(100000), 4096},
      {DeviceOffset(0), ByteCount(16 * KiB), 4096},
      {DeviceOffset(0), ByteCount(17 * MiB), 4096},
      {DeviceOffset(0), ByteCount(0), 4096},
      {DeviceOffset(UINT64_MAX - 4095), ByteCount(256 * KiB), 4096},
  };
  for (const JournalGeometry& g : bad) {
    geometry_ = g;
    start(*recorder);
    EXPECT_EQ(journal_->failure().errnum(), EINVAL);
    EXPECT_EQ(journal_->reserve(ByteCount(1)).errnum(), EINVAL);
    EXPECT_EQ(flush().errnum(), EINVAL);
    EXPECT_EQ(replay().status.errnum(), EINVAL);
    EXPECT_EQ(eraseJournal(*recorder, g).errnum(), EINVAL);
  }
  EXPECT_TRUE(recorder->log().empty());
}

}  // namespace
}  // namespace ourfs
