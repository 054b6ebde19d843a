// The journal's rules, one by one: what a crash leaves with the rule, and with the rule switched
// off. Each mutant is caught in every run.
#include <thread>

#include "journal_fixture.h"
#include "mutant.h"

namespace ourfs {
namespace {

using test::reportCaught;
using Payloads = std::vector<std::string>;

class RulesTest : public JournalTest {
 protected:
  // Looks at every crash state of what was recorded, from clock `from` on, with the sectors that
  // `keep` chooses. The number of states up to the first that is wrong; 0 if none is.
  uint64_t firstWrong(uint64_t from, const std::function<bool(const RecordedIo&)>& keep,
                      const std::function<bool(MemoryDevice&)>& wrong) {
    const auto log = record_->log();
    uint64_t states = 0;
    for (uint64_t point = from; point <= record_->clock(); ++point) {
      auto image =
          crashImage(*base_, log, point, [&](size_t write, size_t) { return keep(log[write]); });
      ++states;
      if (wrong(*image)) return states;
    }
    return 0;
  }
  static bool nothing(const RecordedIo&) { return false; }
  Payloads payloadsOn(MemoryDevice& image) { return replayAll(image, geometry_, {}).payloads; }

  // A group of one record is captured and parked; a record that its buffer has no room for is
  // appended; the group goes on. What a crash right after that write leaves.
  Payloads captured(const std::string& mutant) {
    startAnew(mutant);
    append("captured");
    SyncPoints::instance().park("journal.mid_copy");
    std::thread flusher([&] { EXPECT_TRUE(journal_->flush(Lsn(1)).isOk()); });
    EXPECT_TRUE(SyncPoints::instance().awaitParked("journal.mid_copy"));
    append(std::string(20000, 'g'));
    SyncPoints::instance().release("journal.mid_copy");
    flusher.join();
    return payloadsOn(*crash(record_->mark()));
  }
};

TEST_F(RulesTest, ARecordNeverOutrunsItsData) {
  const DeviceOffset place(8 * MiB);
  // The record is there, the data that it names is not.
  const auto outran = [&](MemoryDevice& image) {
    std::vector<std::byte> data(512);
    EXPECT_TRUE(image.read(place, data).isOk());
    return !payloadsOn(image).empty() && data[0] != std::byte{0xda};
  };
  for (const std::string mutant : {"", "journal.one_flush", "journal.flush_after_commit"}) {
    startAnew(mutant);
    const std::vector<std::byte> data(4096, std::byte{0xda});
    ASSERT_TRUE(record_->write(place, data, IoClass::Data).isOk());
    append("names the data", true);
    ASSERT_TRUE(flush().isOk());
    const uint64_t states = firstWrong(
        0, [](const RecordedIo& io) { return io.cls == IoClass::Journal; }, outran);
    EXPECT_EQ(states != 0, !mutant.empty()) << mutant;
    if (states != 0) reportCaught(mutant, states, "data before metadata");
  }
}

TEST_F(RulesTest, AnAcknowledgedFlushSurvivesACrash) {
  for (const std::string mutant : {"", "journal.acknowledge_early"}) {
    startAnew(mutant);
    append("promised");
    if (!mutant.empty()) SyncPoints::instance().park("journal.before_flush");
    ASSERT_TRUE(flush().isOk());
    const bool lost = payloadsOn(*crash(record_->mark())).empty();
    EXPECT_EQ(lost, !mutant.empty());
    if (lost) reportCaught(mutant, 1, "acknowledge late");
  }
}

TEST_F(RulesTest, WhatGoesOutIsWhatWasCaptured) {
  for (const std::string mutant : {"", "journal.shared_buffer", "journal.grow_in_place"}) {
    const bool same = captured(mutant) == Payloads{"captured"};
    EXPECT_EQ(same, mutant.empty()) << mutant;
    if (!same) reportCaught(mutant, 1, "one owner per buffer: the bytes are the captured ones");
  }
}

// A torn write may leave anything in the physical sectors that it touches.
TEST_F(RulesTest, ATornWriteHarmsNoDurableRecord) {
  for (const std::string mutant : {"", "journal.rewrite_sector"}) {
    startAnew(mutant);
    append("durable");
    ASSERT_TRUE(flush().isOk());
    const uint64_t acknowledged = record_->mark();
    append("torn");
    ASSERT_TRUE(flush().isOk());
    const auto log = record_->log();
    uint64_t point = acknowledged;
    const uint64_t states = firstWrong(acknowledged, nothing, [&](MemoryDevice& image) {
      for (size_t write : volatileWrites(log, point++)) {
        const std::vector<std::byte> garbage(log[write].bytes.size(), std::byte{0xff});
        EXPECT_TRUE(image.write(log[write].offset, garbage).isOk());
      }
      const Payloads found = payloadsOn(image);
      return found.empty() || found[0] != "durable";
    });
    EXPECT_EQ(states != 0, !mutant.empty());
    if (states != 0)
      reportCaught(mutant, states, "a sector with durable records is never rewritten");
  }
}

TEST_F(RulesTest, AFailedFlushIsNotFollowedByOneThatPretends) {
  for (const std::string mutant : {"", "journal.forget_failure"}) {
    startAnew(mutant);
    auto faulty = FaultDevice::wrap(*record_);
    FaultRule rule;
    rule.op = IoOp::Write;
    rule.cls = IoClass::Journal;
    faulty->addRule(rule);
    start(*faulty);
    append("lost");
    const bool pretends = flush().isOk() || flush().isOk();
    EXPECT_EQ(pretends, !mutant.empty());
    EXPECT_TRUE(payloadsOn(*crash(record_->mark())).empty());
    if (pretends) reportCaught(mutant, 1, "a failed journal write is fail-stop");
    journal_.reset();
  }
}

TEST_F(RulesTest, ARecordBeyondItsReservationCannotOverrunTheRing) {
  for (const std::string mutant : {"", "journal.overrun_reservation"}) {
    startAnew(mutant);
    std::vector<Journal::Reservation> small;
    for (uint64_t charged = 0; charged < geometry_.size.v / 2; charged += 2 * geometry_.sector) {
      auto room = journal_->reserve(ByteCount(8));
      ASSERT_TRUE(room.isOk());
      small.push_back(std::move(room).value());
    }
    uint64_t accepted = 0;
    for (Journal::Reservation& room : small) {
      const std::string large(20000, 'x');
      auto done = journal_->append(std::move(room), asBytes(large), false, nullptr);
      EXPECT_EQ(done.errnum(), mutant.empty() ? EINVAL : 0);
      if (!done.isOk()) continue;
      ++accepted;
      ASSERT_TRUE(flush().isOk());
    }
    const Replayed found = replay();
    const bool whole = found.status.isOk() && found.summary.records == accepted;
    EXPECT_EQ(whole, mutant.empty()) << found.status.message();
    if (!whole) reportCaught(mutant, 1, "no commit beyond its reservation");
  }
}

// ---- replay ----

class ReplayRulesTest : public RulesTest {
 protected:
  // Six records, each flushed alone; one byte of the third is spoilt.
  void spoiltThird(const std::string& mutant) {
    startAnew(mutant);
    LogPosition second;
    for (int i = 0; i < 6; ++i) {
      const LogPosition at = append(std::to_string(i) + std::string(300, 'r'));
      if (i == 1) second = at;
      ASSERT_TRUE(flush().isOk());
    }
    const uint64_t inThird = roundUp(second.end.v, geometry_.sector) + 60;
    poke(inThird, ~peek(inThird));
  }
};

TEST_F(ReplayRulesTest, NothingBehindABrokenChainIsReplayed) {
  for (const std::string mutant : {"", "journal.ignore_chain", "journal.skip_checksum"}) {
    spoiltThird(mutant);
    const Replayed found = replay();
    EXPECT_EQ(found.payloads.size() == 2, mutant.empty()) << mutant;
    if (found.payloads.size() != 2) reportCaught(mutant, 1, "replay follows a chain");
  }
}

TEST_F(ReplayRulesTest, ALaterRecordProvesALoss) {
  for (const std::string mutant : {"", "journal.ignore_loss"}) {
    spoiltThird(mutant);
    const Replayed found = replay();
    EXPECT_EQ(found.payloads.size(), 2u);
    EXPECT_EQ(found.summary.lost.empty(), !mutant.empty());
    if (found.summary.lost.empty()) reportCaught(mutant, 1, "a proven loss is refused");
  }
}

TEST_F(ReplayRulesTest, ARecordOfALaterLapAtTheTailIsRefused) {
  for (const std::string mutant : {"", "journal.ignore_later_lap"}) {
    startAnew(mutant);
    while (journal_->head().end.v < 2 * geometry_.size.v) {
      append(std::string(3000, 'l'));
      persistAll();
    }
    const Replayed old = replay();  // with the tail that an index gone back in time would name
    EXPECT_EQ(old.status.errnum(), mutant.empty() ? EUCLEAN : 0);
    if (old.status.isOk()) {
      EXPECT_TRUE(old.payloads.empty() && old.summary.lost.empty()) << "nothing else would tell";
      reportCaught(mutant, 1, "an index older than the journal is refused");
    }
  }
}

}  // namespace
}  // namespace ourfs
