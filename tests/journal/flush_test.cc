#include <algorithm>
#include <latch>
#include <thread>

#include "journal_fixture.h"

namespace ourfs {
namespace {

class FlushTest : public JournalTest {
 protected:
  void writeData(BlockDevice& device) {
    std::vector<std::byte> data(4096, std::byte{0xda});
    ASSERT_TRUE(device.write(DeviceOffset(8 * MiB), data, IoClass::Data).isOk());
  }
  // Device flushes and journal writes that `f` costs.
  std::pair<uint64_t, uint64_t> cost(RecordDevice& device, const std::function<void()>& f) {
    device.clear();
    f();
    const auto log = device.log();
    return {countIo(log, IoOp::Flush), countIo(log, IoOp::Write)};
  }
};
using Cost = std::pair<uint64_t, uint64_t>;

TEST_F(FlushTest, CostsNoMoreThanItNeeds) {
  auto device = RecordDevice::wrap(*memory_);
  start(*device);
  auto flushed = [&](FlushScope s) { return [this, s] { ASSERT_TRUE(flush(s).isOk()); }; };
  const auto log = flushed(FlushScope::Log), both = flushed(FlushScope::LogAndData);

  EXPECT_EQ(cost(*device, log), Cost(0, 0)) << "nothing to do";
  append("metadata");
  EXPECT_EQ(cost(*device, log), Cost(0, 1)) << "FUA is enough";
  EXPECT_EQ(cost(*device, log), Cost(0, 0)) << "already durable";
  append("metadata"), append("names data", true), append("metadata");
  EXPECT_EQ(cost(*device, log), Cost(1, 1)) << "preflush, then FUA";
  append("metadata");
  EXPECT_EQ(cost(*device, log), Cost(0, 1)) << "the preflush is for its group only";
  append("metadata");
  EXPECT_EQ(cost(*device, both), Cost(1, 1));
  EXPECT_EQ(cost(*device, both), Cost(1, 0)) << "data without a record";
  append("names data", true);
  EXPECT_EQ(cost(*device, both), Cost(1, 1)) << "one preflush serves both";
}

TEST_F(FlushTest, CountersTellWhatWasDone) {
  start(*memory_);
  append("abc"), append("de", true);
  ASSERT_TRUE(flush().isOk());
  append("f");
  ASSERT_TRUE(flush(FlushScope::LogAndData).isOk());
  const JournalCounters c = journal_->counters();
  EXPECT_EQ(c.appends, 3u);
  EXPECT_EQ(c.payloadBytes, 6u);
  EXPECT_EQ(c.writes, 2u);
  EXPECT_EQ(c.writtenBytes, 8192u);
  EXPECT_EQ(c.dataFlushes, 2u);
  EXPECT_EQ(c.reserveWaits, 0u);
}

TEST_F(FlushTest, AWriteAroundTheRingEndIsDurableAsOne) {
  auto device = RecordDevice::wrap(*memory_);
  start(*device);
  while (journal_->head().end.v < geometry_.size.v - 6000)
    append(std::string(4000, 'f')), persistAll();
  const LogPosition tail = journal_->head();
  append(std::string(20000, 'w'));
  EXPECT_EQ(cost(*device, [&] { ASSERT_TRUE(flush().isOk()); }), Cost(1, 2));
  EXPECT_EQ(device->log().back().op, IoOp::Flush);
  EXPECT_EQ(device->log().at(1).offset, geometry_.start);
  EXPECT_EQ(replay(tail).payloads, std::vector<std::string>{std::string(20000, 'w')});
  persistAll();
  while (journal_->head().end.v < 2 * geometry_.size.v - 6000)
    append(std::string(4000, 'f')), persistAll();
  append(std::string(20000, 'd'), true);
  EXPECT_EQ(cost(*device, [&] { ASSERT_TRUE(flush().isOk()); }), Cost(2, 2)) << "it names data";
  EXPECT_EQ(device->log().front().op, IoOp::Flush);
  EXPECT_EQ(device->log().back().op, IoOp::Flush);
}

TEST_F(FlushTest, DataIsFlushedBeforeTheRecordIsWritten) {
  auto device = RecordDevice::wrap(*memory_);
  start(*device);
  writeData(*device);
  append("names the data", true);
  ASSERT_TRUE(flush().isOk());
  const auto log = device->log();
  ASSERT_EQ(log.size(), 3u);
  EXPECT_EQ(log[0].cls, IoClass::Data);
  EXPECT_EQ(log[1].op, IoOp::Flush);
  EXPECT_EQ(log[2].cls, IoClass::Journal);
  EXPECT_TRUE(log[2].fua);
  EXPECT_LT(log[0].completed, log[1].submitted);
  EXPECT_LT(log[1].completed, log[2].submitted);
}

TEST_F(FlushTest, CallersThatArriveDuringAWriteShareTheNext) {
  auto device = RecordDevice::wrap(*memory_);
  start(*device);
  append("first");
  SyncPoints::instance().park("journal.before_flush");
  std::thread leader([&] { EXPECT_TRUE(journal_->flush(Lsn(1)).isOk()); });
  ASSERT_TRUE(SyncPoints::instance().awaitParked("journal.before_flush"));

  std::latch appended(8);
  std::vector<std::thread> followers;
  for (int i = 0; i < 8; ++i) {
    followers.emplace_back([&, i] {
      const LogPosition at = append("follower " + std::to_string(i), i % 2 == 0);
      appended.count_down();
      EXPECT_TRUE(journal_->flush(at.end).isOk());
      EXPECT_GE(journal_->durable(), at.end);
    });
  }
  appended.wait();
  SyncPoints::instance().release("journal.before_flush");
  leader.join();
  for (std::thread& t : followers) t.join();

  EXPECT_EQ(journal_->counters().writes, 2u);
  EXPECT_EQ(journal_->counters().dataFlushes, 1u);
  EXPECT_EQ(countIo(device->log(), IoOp::Flush), 1u);
  EXPECT_EQ(replay().payloads.size(), 9u);
}

TEST_F(FlushTest, EightThreadsNeedFewerWritesThanAppends) {
  onWantSpace_ = [this] { persistAll(); };
  std::atomic<uint64_t> last{0}, disorder{0};
  onDurable_ = [&](Lsn lsn) {
    if (lsn.v <= last.exchange(lsn.v)) ++disorder;
  };
  start(*memory_);
  // Hold the first group until everyone has something to flush.
  SyncPoints::instance().park("journal.before_flush");
  std::latch ready(8);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        const LogPosition at = append("record", i % 5 == 0);
        if (i == 0) ready.count_down();
        ASSERT_TRUE(journal_->flush(at.end).isOk());
        ASSERT_GE(last.load(), at.end.v) << "onDurable comes before the answer";
      }
    });
  }
  ready.wait();
  SyncPoints::instance().release("journal.before_flush");
  for (std::thread& t : threads) t.join();
  const JournalCounters c = journal_->counters();
  EXPECT_EQ(c.appends, 2400u);
  EXPECT_LT(c.writes, c.appends);
  EXPECT_EQ(disorder.load(), 0u);
  EXPECT_EQ(last.load(), journal_->durable().v);
}

TEST_F(FlushTest, ADataFlushNeverJoinsOneThatWasSubmittedBefore) {
  auto device = RecordDevice::wrap(*memory_);
  start(*device);
  append("first", true);
  SyncPoints::instance().park("journal.before_flush", 1);
  std::thread leader([&] { EXPECT_TRUE(journal_->flush(Lsn(1)).isOk()); });
  ASSERT_TRUE(SyncPoints::instance().awaitParked("journal.before_flush"));
  uint64_t written = 0;
  std::thread data([&] {
    writeData(*device);
    written = device->mark();
    EXPECT_TRUE(journal_->flush(Lsn(0), FlushScope::LogAndData).isOk());
    const auto log = device->log();
    const uint64_t flushes =
        static_cast<uint64_t>(std::count_if(log.begin(), log.end(), [&](const RecordedIo& io) {
          return io.op == IoOp::Flush && io.submitted > written && io.completed != 0;
        }));
    EXPECT_GE(flushes, 1u);
  });
  SyncPoints::instance().release("journal.before_flush");
  leader.join(), data.join();
}

TEST_F(FlushTest, ALoneCallerCarriesItsOwnWrite) {
  std::thread::id carrier;
  onDurable_ = [&](Lsn) { carrier = std::this_thread::get_id(); };
  start(*memory_);
  append("mine");
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(carrier, std::this_thread::get_id());
}

TEST_F(FlushTest, ReplayedRecordsBecomeDurableWithTheFirstFlush) {
  start(*memory_);
  const LogPosition replayed = append("left by a daemon that was killed");
  ASSERT_TRUE(flush().isOk());
  auto device = RecordDevice::wrap(*memory_);
  journal_ = open(*device, 2, replayed, Lsn(0));
  EXPECT_EQ(journal_->durable(), Lsn(0));
  EXPECT_EQ(cost(*device, [&] { ASSERT_TRUE(flush().isOk()); }), Cost(1, 0));
  EXPECT_EQ(journal_->durable(), replayed.end);
}

// A daemon dies between the writes of a group and the flush behind them; its successor builds on
// records that are in the device's cache only; then the power fails.
TEST_F(FlushTest, WhatReplayFoundIsDurableBeforeAnythingBuildsOnIt) {
  start(*memory_);
  while (journal_->head().end.v < geometry_.size.v - 6000) {
    append(std::string(4000, 'f'));
    persistAll();
  }
  const LogPosition tail = journal_->head();
  auto base = memory_->clone();
  auto device = RecordDevice::wrap(*memory_);
  auto faulty = FaultDevice::wrap(*device);
  FaultRule rule;
  rule.op = IoOp::Flush;
  faulty->addRule(rule);
  journal_ = open(*faulty, 2, tail, tail.end);
  const std::string unflushed(20000, 'u');  // around the end of the ring: two writes and a flush
  append(unflushed);
  ASSERT_EQ(flush().errnum(), EIO);

  const Replayed r = replay(tail);
  ASSERT_EQ(r.payloads, std::vector<std::string>{unflushed});
  journal_ = open(*device, 3, r.summary.end, tail.end);
  append("acknowledged");
  ASSERT_TRUE(flush().isOk());
  auto image =
      crashImage(*base, device->log(), device->mark(), [](size_t, size_t) { return false; });
  const std::vector<std::string> both = {unflushed, "acknowledged"};
  EXPECT_EQ(replayAll(*image, geometry_, tail).payloads, both);
  journal_.reset();
}

struct FaultCase {
  const char* name;
  IoOp op;
  bool afterData;
};

TEST_F(FlushTest, AnyWriteOrFlushErrorStopsTheJournal) {
  const FaultCase cases[] = {{"write", IoOp::Write, false}, {"preflush", IoOp::Flush, true}};
  for (const FaultCase& c : cases) {
    memory_ = MemoryDevice::create(ByteCount(16 * MiB));
    auto faulty = FaultDevice::wrap(*memory_);
    start(*faulty);
    const LogPosition good = append("good");
    ASSERT_TRUE(flush().isOk());
    FaultRule rule;
    rule.op = c.op;
    rule.cls = IoClass::Journal;
    faulty->addRule(rule);
    append("bad", c.afterData);
    EXPECT_EQ(flush().errnum(), EIO) << c.name;
    EXPECT_EQ(flush().errnum(), EIO) << "the device is well again, the journal is not";
    EXPECT_EQ(journal_->flush(good.end).errnum(), EIO);
    EXPECT_EQ(journal_->failure().errnum(), EIO);
    EXPECT_EQ(journal_->durable(), good.end);
    EXPECT_EQ(journal_->reserve(ByteCount(1)).errnum(), EIO);
    EXPECT_EQ(replay().payloads, std::vector<std::string>{"good"});
    journal_.reset();
  }
}

TEST_F(FlushTest, EveryWaitingCallerLearnsOfTheFailure) {
  start(*memory_);
  append("first");
  SyncPoints::instance().park("journal.before_flush");
  SyncPoints::instance().forceError("journal.before_flush", ENOSPC);
  std::latch appended(4);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const LogPosition at = append("x");
      appended.count_down();
      EXPECT_EQ(journal_->flush(at.end).errnum(), ENOSPC);
    });
  }
  appended.wait();
  ASSERT_TRUE(SyncPoints::instance().awaitParked("journal.before_flush"));
  SyncPoints::instance().release("journal.before_flush");
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(journal_->failure().errnum(), ENOSPC);
}

TEST_F(FlushTest, AFailureFromOutsideStopsIt) {
  start(*memory_);
  const LogPosition at = append("never written");
  journal_->fail(Status::error(EROFS, "index failed"));
  journal_->fail(Status::error(EIO, "later"));
  EXPECT_EQ(journal_->flush(at.end).errnum(), EROFS);
  EXPECT_EQ(appendText(*journal_, "x").errnum(), EROFS);
  EXPECT_TRUE(replay().payloads.empty());
}

}  // namespace
}  // namespace ourfs
