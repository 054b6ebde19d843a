// Crash exploration: a journal under a random workload on a recording device; a crash at a random
// time, with a random part of what was volatile on the medium; then the next mount on what is left.
//
// The oracle, after each crash:
//   - the records come back in order, from the tail that the index had persisted by then, as a
//   prefix of
//     what was appended, byte for byte;
//   - with everything that a flush had answered for;
//   - and each with the data that it names;
//   - nothing is called lost, and a second replay says the same.
#include <thread>

#include "common/mutex.h"
#include "journal_fixture.h"
#include "mutant.h"
#include "rounds.h"

namespace ourfs {
namespace {

constexpr uint64_t kDataStart = 2 * MiB;
constexpr uint64_t kDataBlocks = 20000;

struct Appended {
  uint64_t id = 0;
  std::string payload;
  LogPosition at;
  bool afterData = false;
};

class Explorer {
 public:
  Explorer(uint64_t seed, int threads)
      : random_(seed), threads_(threads), medium_(MemoryDevice::create(ByteCount(16 * MiB))) {}

  // Empty, or what the oracle found wrong. Counts crash states.
  std::string run(int mounts, uint64_t& states) {
    for (int mount = 1; mount <= mounts; ++mount) {
      base_ = medium_->clone();
      record_ = RecordDevice::wrap(*medium_);
      acknowledged_ = {{0, log_.size()}};
      tails_ = {{0, tails_.empty() ? LogPosition{} : tails_.back().second}};
      serve(static_cast<uint64_t>(mount));
      crash();
      ++states;
      if (std::string wrong = recover(static_cast<uint64_t>(mount)); !wrong.empty()) {
        return "mount " + std::to_string(mount) + ": " + wrong;
      }
    }
    return "";
  }

 private:
  uint64_t random(uint64_t below) {
    MutexLock lock(mutex_);
    return random_() % below;
  }

  void serve(uint64_t generation) {
    Journal::Options options;
    options.geometry = geometry_;
    options.generation = generation;
    options.head = head_;
    options.tail = tails_.back().second.end;
    options.wantSpace = [this] { persist(); };
    journal_ = Journal::start(*record_, std::move(options));
    std::vector<std::thread> workers;
    for (int t = 0; t < threads_; ++t) {
      workers.emplace_back([this] { work(); });
    }
    for (std::thread& w : workers) w.join();
    journal_.reset();
  }

  void work() {
    for (uint64_t i = 0, n = 5 + random(40); i < n; ++i) {
      const uint64_t dice = random(10);
      if (dice < 6) {
        append();
      } else if (dice < 9) {
        acknowledge(dice == 8 ? FlushScope::LogAndData : FlushScope::Log);
      } else {
        persist();
      }
    }
  }

  void append() {
    Appended a;
    a.id = nextId_++;
    a.afterData = random(2) == 0;
    a.payload = std::to_string(a.id) + ":" +
                std::string(random(6) == 0 ? random(12000) : random(700), static_cast<char>(a.id));
    if (a.afterData) {
      const std::vector<std::byte> data(512, dataByte(a.id));
      ASSERT_TRUE(record_->write(dataBlock(a.id), data, IoClass::Data).isOk());
    }
    auto room = journal_->reserve(ByteCount(a.payload.size()));
    ASSERT_TRUE(room.isOk()) << room.status().message();
    auto r = journal_->append(std::move(room).value(), asBytes(a.payload), a.afterData,
                              [&](const LogPosition& at) {
                                MutexLock lock(mutex_);
                                a.at = at;
                                log_.push_back(a);
                                return Status::ok();
                              });
    ASSERT_TRUE(r.isOk()) << r.status().message();
  }

  void acknowledge(FlushScope scope) {
    size_t upTo;
    Lsn lsn;
    {
      MutexLock lock(mutex_);
      upTo = log_.size();
      lsn = log_.empty() ? Lsn(0) : log_.back().at.end;
    }
    ASSERT_TRUE(journal_->flush(lsn, scope).isOk());
    const uint64_t now = record_->mark();
    MutexLock lock(mutex_);
    acknowledged_.emplace_back(now, upTo);
  }

  // The index persists what it has applied, as it may only once the journal has it.
  void persist() {
    const LogPosition upTo = journal_->head();
    ASSERT_TRUE(journal_->flush(upTo.end).isOk());
    {
      MutexLock lock(mutex_);
      if (upTo.end <= tails_.back().second.end) return;
      tails_.emplace_back(record_->mark(), upTo);
    }
    journal_->advanceTail(upTo.end);
  }

  void crash() {
    const auto log = record_->log();
    const uint64_t point = random(record_->clock() + 1);
    const uint64_t likely = random(5) * 25;  // percent; nothing and everything included
    medium_ = crashImage(*base_, log, point, [&](size_t, size_t) { return random(100) < likely; });
    size_t promised = 0;
    for (const auto& [when, count] : acknowledged_) {
      if (when <= point) promised = std::max(promised, count);
    }
    promised_ = promised;
    while (tails_.back().first > point) tails_.pop_back();
  }

  std::string recover(uint64_t generation) {
    const LogPosition tail = tails_.back().second;
    size_t from = 0;
    while (from < log_.size() && log_[from].at.end <= tail.end) ++from;
    const Replayed r = replayAll(*medium_, geometry_, tail, generation);
    if (!r.status.isOk()) return r.status.message();
    if (!r.summary.lost.empty()) return r.summary.lost;
    const size_t found = r.payloads.size();
    if (from + found > log_.size()) return "more records than were appended";
    if (from + found < promised_) return "an acknowledged record is missing";
    for (size_t i = 0; i < found; ++i) {
      const Appended& a = log_[from + i];
      if (r.payloads[i] != a.payload) return "record " + std::to_string(a.id) + " is not itself";
      if (!(r.positions[i] == a.at)) return "record " + std::to_string(a.id) + " has moved";
      if (a.afterData && !dataIsThere(a.id))
        return "record " + std::to_string(a.id) + " lost its data";
    }
    const Replayed again = replayAll(*medium_, geometry_, tail, generation);
    if (again.payloads != r.payloads || !(again.summary.end == r.summary.end))
      return "not repeatable";
    log_.resize(from + found);
    head_ = r.summary.end;
    return "";
  }

  bool dataIsThere(uint64_t id) {
    std::vector<std::byte> data(512);
    return medium_->read(dataBlock(id), data).isOk() && data[0] == dataByte(id);
  }
  static DeviceOffset dataBlock(uint64_t id) {
    return DeviceOffset(kDataStart + id % kDataBlocks * 512);
  }
  static std::byte dataByte(uint64_t id) { return static_cast<std::byte>(1 + id % 255); }

  Mutex mutex_;
  std::mt19937_64 random_;
  const int threads_;
  const JournalGeometry geometry_{DeviceOffset(64 * KiB), ByteCount(64 * KiB), 4096};
  std::unique_ptr<MemoryDevice> medium_, base_;
  std::unique_ptr<RecordDevice> record_;
  std::unique_ptr<Journal> journal_;
  std::atomic<uint64_t> nextId_{0};
  LogPosition head_;
  std::vector<Appended> log_;                              // of the surviving history
  std::vector<std::pair<uint64_t, size_t>> acknowledged_;  // when, so many records
  std::vector<std::pair<uint64_t, LogPosition>> tails_;    // when, what the index had persisted
  size_t promised_ = 0;
};

// The first violation in `rounds` histories; counts crash states.
std::string explore(uint64_t seed, int rounds, int threads, uint64_t& states) {
  for (int i = 0; i < rounds; ++i) {
    const uint64_t s = seed + static_cast<uint64_t>(i);
    if (std::string wrong = Explorer(s, threads).run(5, states); !wrong.empty()) {
      return wrong + " (seed " + std::to_string(s) + ")";
    }
  }
  return "";
}

class CrashTest : public ::testing::Test {
 protected:
  ~CrashTest() override { SyncPoints::instance().reset(); }
  void expectCaught(const std::string& mutant) {
    ScopedMutant on(mutant);
    const std::string wrong = explore(seed_, 4000, 1, states_);
    EXPECT_NE(wrong, "") << mutant << " went unnoticed";
    test::reportCaught(mutant, states_, wrong);
  }
  uint64_t seed_ = testSeed();
  uint64_t states_ = 0;
};

TEST_F(CrashTest, WhatWasAcknowledgedSurvivesAnyCrash) {
  EXPECT_EQ(explore(seed_, test::rounds(300), 1, states_), "");
}
TEST_F(CrashTest, SoItDoesWithConcurrentWriters) {
  EXPECT_EQ(explore(seed_, test::rounds(60), 4, states_), "");
}
TEST_F(CrashTest, OneFlushForDataAndRecordIsCaught) { expectCaught("journal.one_flush"); }
TEST_F(CrashTest, AFlushBehindTheRecordIsCaught) { expectCaught("journal.flush_after_commit"); }
TEST_F(CrashTest, AcknowledgingEarlyIsCaught) { expectCaught("journal.acknowledge_early"); }
TEST_F(CrashTest, IgnoringTheChainIsCaught) { expectCaught("journal.ignore_chain"); }
TEST_F(CrashTest, SkippingTheChecksumIsCaught) { expectCaught("journal.skip_checksum"); }

}  // namespace
}  // namespace ourfs
