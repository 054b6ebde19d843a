#include <thread>

#include "journal_fixture.h"

namespace ourfs {
namespace {

class ReserveTest : public JournalTest {
 protected:
  // Reserves until no more fits, without waiting: by the same arithmetic that the header states.
  void fillRing(uint64_t payload) {
    const uint64_t charge = roundUp(48 + payload, 8) + geometry_.sector;
    for (uint64_t sum = charge; sum + geometry_.sector <= geometry_.size.v; sum += charge) {
      auto r = journal_->reserve(ByteCount(payload));
      ASSERT_TRUE(r.isOk());
      held_.push_back(std::move(r).value());
    }
  }
  void awaitWaits(uint64_t n) {
    while (journal_->counters().reserveWaits < n) std::this_thread::yield();
  }
  std::vector<Journal::Reservation> held_;
};

TEST_F(ReserveTest, AnUnusedReservationGoesBack) {
  start(*memory_);
  for (int i = 0; i < 1000; ++i) {
    auto r = journal_->reserve(journal_->maxPayload());
    ASSERT_TRUE(r.isOk());
    Journal::Reservation moved = std::move(r).value();
    EXPECT_EQ(moved.payload(), journal_->maxPayload().v);
    Journal::Reservation again(std::move(moved));
    again = Journal::Reservation();
  }
  EXPECT_EQ(journal_->counters().reserveWaits, 0u);
}

TEST_F(ReserveTest, WhatARecordDoesNotUseGoesBack) {
  start(*memory_);
  for (int i = 0; i < 200; ++i) {
    auto r = journal_->reserve(ByteCount(40000));
    ASSERT_TRUE(r.isOk());
    ASSERT_TRUE(journal_->append(std::move(r).value(), asBytes("small"), false, nullptr).isOk());
  }
  EXPECT_EQ(journal_->counters().reserveWaits, 0u);
}

TEST_F(ReserveTest, WaitsForTheTailAndAsksForIt) {
  start(*memory_);
  std::vector<std::string> expected;
  while (journal_->head().end.v < 200 * KiB) append(std::string(4000, 'r'));
  ASSERT_TRUE(flush().isOk());
  const LogPosition head = journal_->head();
  std::thread waiter([&] { append(std::string(60000, 'w')); });
  awaitWaits(1);
  EXPECT_EQ(journal_->head(), head);
  journal_->advanceTail(head.end);
  waiter.join();
  EXPECT_GT(journal_->head().end, head.end);
  EXPECT_GE(spaceAsked_.load(), 2) << "when half full, and when waiting";
  EXPECT_EQ(journal_->tail(), head.end);
}

TEST_F(ReserveTest, AsksOnceWhenHalfFullUntilTheTailMoves) {
  start(*memory_);
  while (journal_->head().end.v < 120 * KiB) append(std::string(4000, 'h'));
  EXPECT_EQ(spaceAsked_.load(), 0);
  while (journal_->head().end.v < 200 * KiB) append(std::string(4000, 'h'));
  EXPECT_EQ(spaceAsked_.load(), 1);
  persistAll();
  while (journal_->used().v < 200 * KiB) append(std::string(4000, 'h'));
  EXPECT_EQ(spaceAsked_.load(), 2);
}

TEST_F(ReserveTest, IsServedInOrderOfArrival) {
  start(*memory_);
  fillRing(1000);
  std::vector<int> order;
  std::mutex m;
  auto waitFor = [&](int who, uint64_t payload) {
    return std::thread([&, who, payload] {
      auto r = journal_->reserve(ByteCount(payload));
      ASSERT_TRUE(r.isOk());
      std::lock_guard<std::mutex> lock(m);
      order.push_back(who);
    });
  };
  std::thread big = waitFor(1, 60000);
  awaitWaits(1);
  std::thread small = waitFor(2, 10);
  awaitWaits(2);
  held_.pop_back();  // enough for the small one, that must not overtake
  held_.pop_back();
  EXPECT_EQ(journal_->counters().reserveWaits, 2u);
  {
    std::lock_guard<std::mutex> lock(m);
    EXPECT_TRUE(order.empty());
  }
  held_.clear();
  big.join(), small.join();
  EXPECT_EQ(order.size(), 2u);
}

TEST_F(ReserveTest, AsksAgainWhenTheAnswerDidNotHelp) {
  // The index persists what is applied when it is asked; what others append meanwhile takes the
  // room.
  int answers = 0;
  std::vector<Journal::Reservation> others;
  onWantSpace_ = [&] {
    if (++answers > 6 || others.empty()) {
      others.clear();
      persistAll();
      return;
    }
    auto r = journal_->append(std::move(others.back()), asBytes("other"), false, nullptr);
    EXPECT_TRUE(r.isOk());
    others.pop_back();
  };
  start(*memory_);
  fillRing(1000);
  others.swap(held_);
  auto r = journal_->reserve(journal_->maxPayload());
  ASSERT_TRUE(r.isOk());
  EXPECT_GT(answers, 6);
}

TEST_F(ReserveTest, AFailureEndsTheWait) {
  start(*memory_);
  fillRing(1000);
  std::vector<std::thread> waiters;
  for (int i = 0; i < 3; ++i) {
    waiters.emplace_back([&] { EXPECT_EQ(journal_->reserve(ByteCount(5000)).errnum(), EIO); });
  }
  awaitWaits(3);
  journal_->fail(Status::error(EIO, "test"));
  for (std::thread& t : waiters) t.join();
  held_.clear();
}

TEST_F(ReserveTest, TheTailNeverMovesBackNorBeyondTheHead) {
  start(*memory_);
  const LogPosition a = append("a"), b = append("b");
  ASSERT_TRUE(flush().isOk());
  journal_->advanceTail(b.end);
  journal_->advanceTail(a.end);
  EXPECT_EQ(journal_->tail(), b.end);
  EXPECT_EQ(journal_->used(), ByteCount(0));
  journal_->advanceTail(Lsn(b.end.v + 8));
  EXPECT_EQ(journal_->failure().errnum(), EUCLEAN);
  EXPECT_EQ(journal_->tail(), b.end);
}

TEST_F(ReserveTest, ParkedReservationsNeverOverrunTheRing) {
  onWantSpace_ = [this] { persistAll(); };
  start(*memory_);
  // One thread sits on a worst-case reservation while the others go round the ring.
  SyncPoints::instance().park("journal.after_reserve");
  std::thread parked([&] { append(std::string(60000, 'P')); });
  ASSERT_TRUE(SyncPoints::instance().awaitParked("journal.after_reserve"));
  while (journal_->head().end.v < 5 * geometry_.size.v) append(std::string(3000, 'o'));
  persistAll();
  const LogPosition tail = journal_->head();
  SyncPoints::instance().release("journal.after_reserve");
  parked.join();
  ASSERT_TRUE(flush().isOk());
  EXPECT_EQ(replay(tail).payloads, std::vector<std::string>{std::string(60000, 'P')});
}

TEST_F(ReserveTest, NothingAboveTheTailIsOverwritten) {
  for (bool mutant : {false, true}) {
    memory_ = MemoryDevice::create(ByteCount(16 * MiB));
    start(*memory_);
    SyncPoints::instance().setMutant("journal.advance_tail_early", mutant);
    bool refused = false;
    onWantSpace_ = [&] {
      if (journal_->counters().reserveWaits == 0) return;
      refused = true;
      journal_->fail(Status::error(EIO, "test: nobody will move the tail"));
    };
    while (!refused && journal_->head().end.v < 2 * geometry_.size.v) {
      if (!appendText(*journal_, std::string(5000, 'n')).isOk()) break;
      if (!refused) {
        ASSERT_TRUE(flush().isOk());
      }
    }
    EXPECT_EQ(refused, !mutant);
    const Replayed r = replay();
    EXPECT_EQ(r.status.errnum(), mutant ? EUCLEAN : 0) << r.status.message();
    if (!mutant) {
      EXPECT_EQ(r.summary.records, journal_->counters().appends);
    }
    SyncPoints::instance().reset();
    journal_.reset();
  }
}

}  // namespace
}  // namespace ourfs
