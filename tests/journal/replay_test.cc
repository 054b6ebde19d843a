#include <algorithm>
#include <cstring>
#include <thread>

#include "common/checksum.h"
#include "journal_fixture.h"
#include "rounds.h"

namespace ourfs {
namespace {

class ReplayTest : public JournalTest {
 protected:
  // `n` records, each flushed by itself.
  void flushed(size_t n, size_t bytes = 300) {
    for (size_t i = 0; i < n; ++i) {
      payloads_.push_back(std::to_string(i) + std::string(bytes, 'f'));
      positions_.push_back(append(payloads_.back()));
      ASSERT_TRUE(flush().isOk());
    }
  }
  uint64_t lsnOf(size_t record) const {
    return positions_[record].end.v - roundUp(48 + payloads_[record].size(), 8);
  }
  RecordHeader headerAt(uint64_t lsn) {
    RecordHeader h;
    auto* bytes = reinterpret_cast<std::byte*>(&h);
    for (size_t i = 0; i < sizeof(h); ++i) bytes[i] = peek(lsn + i);
    return h;
  }
  // Puts a record there, with a right checksum unless told otherwise.
  uint32_t forge(uint64_t at, RecordHeader h, std::string_view payload, bool seal = true) {
    h.payloadLength = static_cast<uint32_t>(payload.size());
    if (seal) {
      h.crc = 0;
      h.crc = crc32c(asBytes(payload), crc32c(std::as_bytes(std::span(&h, 1))));
    }
    overwrite(at, std::as_bytes(std::span(&h, 1)));
    overwrite(at + sizeof(h), asBytes(payload));
    return h.crc;
  }
  void spoil(size_t record) { poke(lsnOf(record) + 50, ~peek(lsnOf(record) + 50)); }
  std::vector<std::string> first(size_t n) const {
    return {payloads_.begin(), payloads_.begin() + static_cast<ptrdiff_t>(n)};
  }

  std::vector<std::string> payloads_;
  std::vector<LogPosition> positions_;
};

TEST_F(ReplayTest, AnEmptyRingHasNothing) {
  memory_->setFill(std::byte{0x5a});
  ASSERT_TRUE(eraseJournal(*memory_, geometry_).isOk());
  for (uint64_t i = 0; i < geometry_.size.v; i += 997) ASSERT_EQ(peek(i), std::byte{0});
  const Replayed r = replay();
  EXPECT_TRUE(r.status.isOk());
  EXPECT_EQ(r.summary.records, 0u);
  EXPECT_EQ(r.summary.end, LogPosition{});
  EXPECT_EQ(r.summary.lost, "");
}

TEST_F(ReplayTest, ErasesOnlyTheRing) {
  memory_->setFill(std::byte{0x5a});
  ASSERT_TRUE(eraseJournal(*memory_, geometry_).isOk());
  std::vector<std::byte> sector(512);
  ASSERT_TRUE(memory_->read(geometry_.start - ByteCount(512), sector).isOk());
  EXPECT_EQ(sector[511], std::byte{0x5a});
  ASSERT_TRUE(memory_->read(geometry_.start + geometry_.size, sector).isOk());
  EXPECT_EQ(sector[0], std::byte{0x5a});
}

TEST_F(ReplayTest, StartsAtAnyRecordsEnd) {
  start(*memory_);
  for (int i = 0; i < 9; ++i) {
    payloads_.push_back("record " + std::to_string(i));
    positions_.push_back(append(payloads_.back()));
    if (i % 3 == 2) {
      ASSERT_TRUE(flush().isOk());
    }
  }
  for (size_t i = 0; i < payloads_.size(); ++i) {
    const Replayed r = replay(positions_[i]);
    EXPECT_EQ(r.payloads, std::vector<std::string>(
                              payloads_.begin() + static_cast<ptrdiff_t>(i) + 1, payloads_.end()));
    EXPECT_EQ(r.summary.lost, "");
  }
}

TEST_F(ReplayTest, TheTailsChecksumMustMatch) {
  start(*memory_);
  flushed(3);
  LogPosition wrong = positions_[0];
  wrong.crc ^= 1;
  const Replayed r = replay(wrong);
  EXPECT_TRUE(r.payloads.empty());
  EXPECT_NE(r.summary.lost, "") << "the third record says that the second was durable";
}

// Each field that the chain depends on, changed in the middle one of three records.
TEST_F(ReplayTest, AnythingThatIsNotTheSuccessorBreaksTheChain) {
  struct Case {
    const char* name;
    void (*change)(RecordHeader&);
    bool seal;
  };
  const Case cases[] = {
      {"magic", [](RecordHeader& h) { h.magic ^= 1; }, true},
      {"crc", [](RecordHeader& h) { h.crc ^= 1; }, false},
      {"previous", [](RecordHeader& h) { h.previousCrc ^= 1; }, true},
      {"lsn", [](RecordHeader& h) { h.lsn += 8; }, true},
      {"lap before", [](RecordHeader& h) { h.lsn -= 4096; }, true},
      {"generation too high", [](RecordHeader& h) { h.generation = 1001; }, true},
      {"generation goes back", [](RecordHeader& h) { h.generation = 0; }, true},
      {"durable in the future", [](RecordHeader& h) { h.durableLsn = h.lsn + 8; }, true},
      {"flags", [](RecordHeader& h) { h.flags = 1; }, true},
  };
  for (const Case& c : cases) {
    payloads_.clear(), positions_.clear();
    memory_ = MemoryDevice::create(ByteCount(16 * MiB));
    start(*memory_);
    flushed(3);
    RecordHeader h = headerAt(lsnOf(1));
    c.change(h);
    forge(lsnOf(1), h, payloads_[1], c.seal);
    const Replayed r = replay();
    ASSERT_TRUE(r.status.isOk()) << c.name;
    EXPECT_EQ(r.payloads, first(1)) << c.name;
    EXPECT_EQ(r.summary.end, positions_[0]) << c.name;
    EXPECT_NE(r.summary.lost, "") << c.name;
    journal_.reset();
  }
}

TEST_F(ReplayTest, AnAbsurdLengthBreaksTheChain) {
  start(*memory_);
  flushed(2);
  for (uint32_t length : {UINT32_MAX, static_cast<uint32_t>(geometry_.size.v / 4 + 1), 1u << 31}) {
    RecordHeader h = headerAt(lsnOf(1));
    h.payloadLength = length;
    overwrite(lsnOf(1), std::as_bytes(std::span(&h, 1)));
    EXPECT_EQ(replay().payloads, first(1));
  }
}

TEST_F(ReplayTest, ALostDurableRecordIsProved) {
  start(*memory_);
  flushed(6);
  EXPECT_EQ(replay().summary.lost, "");
  spoil(2);
  const Replayed r = replay();
  ASSERT_TRUE(r.status.isOk());
  EXPECT_EQ(r.payloads, first(2));
  EXPECT_NE(r.summary.lost.find(std::to_string(positions_[1].end.v)), std::string::npos);
}

TEST_F(ReplayTest, ALossIsFoundBehindAValidRecordOfTheSameWrite) {
  start(*memory_);
  flushed(1, 5000);
  SyncPoints::instance().park("journal.before_flush");
  append("a record whose loss is looked for"), positions_.push_back(journal_->head());
  std::thread flusher([&] { EXPECT_TRUE(journal_->flush(Lsn(UINT64_MAX)).isOk()); });
  ASSERT_TRUE(SyncPoints::instance().awaitParked("journal.before_flush"));
  append("first of its write: knows only what was durable before");
  SyncPoints::instance().release("journal.before_flush");
  flusher.join();
  append("second of its write: knows more");
  ASSERT_TRUE(flush().isOk());
  poke(positions_[1].end.v - 9, ~peek(positions_[1].end.v - 9));
  const Replayed r = replay();
  EXPECT_EQ(r.payloads, first(1));
  EXPECT_NE(r.summary.lost, "");
}

TEST_F(ReplayTest, ALostLastRecordLooksLikeATornTail) {
  start(*memory_);
  flushed(3);
  spoil(2);
  const Replayed r = replay();
  EXPECT_EQ(r.payloads, first(2));
  EXPECT_EQ(r.summary.lost, "");
  EXPECT_EQ(r.summary.end, positions_[1]);
}

TEST_F(ReplayTest, AnIndexOlderThanTheJournalIsRefused) {
  start(*memory_);
  flushed(5);
  const LogPosition old = positions_[2];
  while (journal_->head().end.v < geometry_.size.v + 200 * KiB)
    append(std::string(3000, 'l')), persistAll();
  EXPECT_EQ(replay(old).status.errnum(), EUCLEAN);
  EXPECT_EQ(replay().status.errnum(), EUCLEAN);
  EXPECT_EQ(replay(journal_->head()).status.errnum(), 0);
}

TEST_F(ReplayTest, ATailThatNoRecordCanHaveIsRefused) {
  EXPECT_EQ(replay({Lsn(4), 0}).status.errnum(), EUCLEAN);
  EXPECT_EQ(replay({Lsn(UINT64_MAX - 7), 0}).status.errnum(), EUCLEAN);
}

TEST_F(ReplayTest, ReadErrorsAndCallersErrorsEndIt) {
  start(*memory_);
  flushed(4);
  auto faulty = FaultDevice::wrap(*memory_);
  FaultRule rule;
  rule.op = IoOp::Read;
  faulty->addRule(rule);
  EXPECT_EQ(replayAll(*faulty, geometry_, {}).status.errnum(), EIO);
  for (int stop = 0; stop < 4; ++stop) {
    int seen = 0;
    auto r = replayJournal(*memory_, geometry_, {}, 1000, [&](const LogPosition&, auto) {
      return seen++ == stop ? Status::error(ENOMEM) : Status::ok();
    });
    EXPECT_EQ(r.errnum(), ENOMEM);
    EXPECT_EQ(seen, stop + 1);
  }
  EXPECT_EQ(replay().payloads, first(4)) << "as if nothing had happened";
}

TEST_F(ReplayTest, ReadsOnly) {
  start(*memory_);
  flushed(4);
  spoil(1);
  auto recorder = RecordDevice::wrap(*memory_);
  EXPECT_EQ(replayAll(*recorder, geometry_, {}).payloads, first(1));
  EXPECT_TRUE(recorder->log().empty());
}

TEST_F(ReplayTest, LeftoversOfAnOlderMountAreNeverTakenUpAgain) {
  start(*memory_);
  flushed(6, 5000);
  // The first mount's third record was torn; the second mount goes on there, and its first record
  // is as long as the torn one, so that it ends where the leftover begins.
  spoil(2);
  const LogPosition end = positions_[1];
  journal_ = open(*memory_, 2, end, Lsn(0));
  const LogPosition added = append(std::string(payloads_[2].size(), 'n'));
  ASSERT_EQ(added.end, positions_[2].end);
  ASSERT_TRUE(flush().isOk());
  const Replayed r = replay();
  EXPECT_EQ(r.summary.records, 3u);
  EXPECT_EQ(r.summary.end, added);
  EXPECT_EQ(r.summary.generation, 2u);
  EXPECT_EQ(r.summary.lost, "") << "the older mount's records behind it prove nothing";
}

TEST_F(ReplayTest, TheMutantsAreCaught) {
  start(*memory_);
  flushed(5);
  spoil(2);
  {
    ScopedMutant mutant("journal.ignore_chain");
    EXPECT_EQ(replay().payloads.size(), 4u) << "jumps over the hole";
  }
  {
    ScopedMutant mutant("journal.skip_checksum");
    const Replayed r = replay();
    ASSERT_EQ(r.payloads.size(), 5u);
    EXPECT_NE(r.payloads[2], payloads_[2]) << "hands out spoilt bytes";
  }
  EXPECT_EQ(replay().payloads, first(2));
}

// A ring with some laps behind it, to be damaged.
class DamageTest : public ReplayTest {
 protected:
  void SetUp() override {
    geometry_.size = ByteCount(64 * KiB);
    start(*memory_);
    for (int i = 0; i < 40; ++i) append(std::string(random_() % 3000, 'o')), persistAll();
    tail_ = journal_->head();
    while (journal_->used().v < 40 * KiB) {
      payloads_.push_back(std::to_string(payloads_.size()) + std::string(random_() % 6000, 'd'));
      positions_.push_back(append(payloads_.back()));
      if (random_() % 3 == 0) {
        ASSERT_TRUE(flush().isOk());
      }
    }
    ASSERT_TRUE(flush().isOk());
    ASSERT_EQ(replay(tail_).payloads, payloads_);
  }
  // Whatever the bytes: an answer, and not one wrong payload.
  void expectPrefix(uint64_t round) {
    const Replayed r = replay(tail_);
    ASSERT_TRUE(r.status.isOk() || r.status.errnum() == EUCLEAN) << r.status.message();
    ASSERT_LE(r.payloads.size(), payloads_.size()) << "round " << round;
    ASSERT_EQ(r.payloads, first(r.payloads.size())) << "round " << round;
  }

  std::mt19937_64 random_{testSeed()};
  LogPosition tail_;
};

TEST_F(DamageTest, TwentyThousandMutationsNeverYieldAWrongPayload) {
  for (uint64_t round = 0; round < test::rounds(uint64_t{20000}) && !HasFatalFailure(); ++round) {
    std::vector<std::pair<uint64_t, std::byte>> undo;
    const bool atHeader = random_() % 2 == 0;
    const uint64_t header = lsnOf(random_() % payloads_.size());
    for (uint64_t i = 0, n = 1 + random_() % 4; i < n; ++i) {
      const uint64_t at = atHeader ? header + random_() % 48 : random_() % geometry_.size.v;
      undo.emplace_back(at, peek(at));
      poke(at, static_cast<std::byte>(random_()));
    }
    expectPrefix(round);
    for (size_t i = undo.size(); i-- > 0;) poke(undo[i].first, undo[i].second);
  }
  EXPECT_EQ(replay(tail_).payloads, payloads_);
}

TEST_F(DamageTest, ForgedRecordsWithRightChecksumsNeverCrashIt) {
  for (int round = 0; round < test::rounds(2000); ++round) {
    const uint64_t at = random_() % 2 == 0
                            ? lsnOf(random_() % payloads_.size())
                            : roundDown(tail_.end.v + random_() % geometry_.size.v, 4096);
    RecordHeader h = headerAt(at);
    h.magic = kRecordMagic;
    h.lsn = at + (random_() % 4) * geometry_.size.v;
    if (random_() % 3 == 0) h.generation = random_() % 4;
    if (random_() % 3 == 0) h.durableLsn = random_() % 2 == 0 ? random_() : at;
    if (random_() % 5 == 0) h.flags = static_cast<uint32_t>(random_() % 2);
    std::string payload(random_() % 2000, 'F');
    forge(at, h, payload);
    if (random_() % 4 == 0) {  // and one whose length is a lie
      h.payloadLength = static_cast<uint32_t>(random_());
      overwrite(at, std::as_bytes(std::span(&h, 1)));
    }
    const Replayed r = replay(tail_);
    ASSERT_TRUE(r.status.isOk() || r.status.errnum() == EUCLEAN) << r.status.message();
    ASSERT_LE(r.summary.end.end.v, roundDown(tail_.end.v, 4096) + geometry_.size.v);
  }
}

TEST_F(DamageTest, ARingOfRandomBytesIsAnEmptyOne) {
  std::vector<std::byte> noise(geometry_.size.v);
  for (int round = 0; round < 50; ++round) {
    for (std::byte& b : noise) b = static_cast<std::byte>(random_());
    ASSERT_TRUE(memory_->write(geometry_.start, noise).isOk());
    const Replayed r = replay(tail_);
    ASSERT_TRUE(r.status.isOk());
    ASSERT_EQ(r.summary.records, 0u);
    ASSERT_EQ(r.summary.lost, "");
  }
}

// A ring full of headers that look right, each with the longest payload: work, but bounded.
TEST_F(DamageTest, AHostileRingEndsInBoundedTime) {
  geometry_.size = ByteCount(14 * MiB);
  RecordHeader h;
  h.payloadLength = static_cast<uint32_t>(geometry_.size.v / 4);
  std::vector<std::byte> sector(512);
  for (uint64_t at = 0; at < geometry_.size.v; at += 512) {
    h.lsn = at;
    std::memcpy(sector.data(), &h, sizeof(h));
    ASSERT_TRUE(memory_->write(geometry_.start + ByteCount(at), sector).isOk());
  }
  geometry_.sector = 512;
  const Replayed r = replay();
  EXPECT_TRUE(r.status.isOk());
  EXPECT_EQ(r.summary.records, 0u);
}

}  // namespace
}  // namespace ourfs
