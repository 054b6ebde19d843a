// What the journal's tests share: a volume with a ring in memory, and verbs.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "block/fault_device.h"
#include "block/memory_device.h"
#include "block/record_device.h"
#include "common/codec.h"
#include "common/sync_point.h"
#include "journal/format.h"
#include "journal/journal.h"
#include "journal/replay.h"

namespace ourfs {

inline uint64_t testSeed() {
  const char* given = std::getenv("OURFS_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::cout << "OURFS_SEED=" << seed << std::endl;
  return seed;
}

struct Replayed {
  Status status;
  ReplaySummary summary;
  std::vector<std::string> payloads;
  std::vector<LogPosition> positions;
};

inline Replayed replayAll(BlockDevice& device, const JournalGeometry& geometry,
                          const LogPosition& tail, uint64_t maxGeneration = 1000) {
  Replayed r;
  auto result = replayJournal(device, geometry, tail, maxGeneration,
                              [&](const LogPosition& at, std::span<const std::byte> payload) {
                                r.payloads.emplace_back(asChars(payload));
                                r.positions.push_back(at);
                                return Status::ok();
                              });
  r.status = result.status();
  if (result.isOk()) r.summary = *result;
  return r;
}

inline Result<LogPosition> appendText(Journal& journal, std::string_view payload,
                                      bool afterData = false) {
  TRY_ASSIGN(Journal::Reservation room, journal.reserve(ByteCount(payload.size())));
  return journal.append(std::move(room), asBytes(payload), afterData,
                        [](const LogPosition&) { return Status::ok(); });
}

inline uint64_t countIo(const std::vector<RecordedIo>& log, IoOp op) {
  uint64_t n = 0;
  for (const RecordedIo& io : log) n += io.op == op ? 1 : 0;
  return n;
}

class JournalTest : public ::testing::Test {
 protected:
  ~JournalTest() override {
    SyncPoints::instance().reset();
    journal_.reset();
  }

  // A journal on `device`, from `head` on, with nothing applied by the index behind `tail`.
  std::unique_ptr<Journal> open(BlockDevice& device, uint64_t generation = 1, LogPosition head = {},
                                Lsn tail = Lsn(0)) {
    Journal::Options options;
    options.geometry = geometry_;
    options.generation = generation;
    options.head = head;
    options.tail = tail;
    options.wantSpace = [this] {
      ++spaceAsked_;
      if (onWantSpace_) onWantSpace_();
    };
    options.onDurable = [this](Lsn lsn) {
      if (onDurable_) onDurable_(lsn);
    };
    return Journal::start(device, std::move(options));
  }
  void start(BlockDevice& device) { journal_ = open(device); }
  // An empty volume and a journal on it, with one rule switched off unless `mutant` is empty.
  void startAnew(const std::string& mutant) {
    SyncPoints::instance().reset();  // nobody is parked any more
    journal_.reset();
    memory_ = MemoryDevice::create(ByteCount(16 * MiB));
    base_ = memory_->clone();
    record_ = RecordDevice::wrap(*memory_);
    if (!mutant.empty()) SyncPoints::instance().setMutant(mutant, true);
    start(*record_);
  }
  // What a crash at `point` leaves at the least: what is certain, and nothing else.
  std::unique_ptr<MemoryDevice> crash(uint64_t point) const {
    return crashImage(*base_, record_->log(), point, [](size_t, size_t) { return false; });
  }

  LogPosition append(std::string_view payload, bool afterData = false) {
    auto r = appendText(*journal_, payload, afterData);
    EXPECT_TRUE(r.isOk()) << r.status().message();
    return r.isOk() ? *r : LogPosition{};
  }
  Status flush(FlushScope scope = FlushScope::Log) {
    return journal_->flush(journal_->head().end, scope);
  }
  // The index has persisted everything: the ring is free.
  void persistAll() {
    ASSERT_TRUE(flush().isOk());
    journal_->advanceTail(journal_->head().end);
  }
  Replayed replay(const LogPosition& tail = {}) { return replayAll(*memory_, geometry_, tail); }

  // Changes bytes of the ring behind everybody's back.
  void overwrite(uint64_t lsn, std::span<const std::byte> bytes) {
    for (size_t i = 0; i < bytes.size(); ++i) poke(lsn + i, bytes[i]);
  }
  void poke(uint64_t lsn, std::byte value) {
    const uint64_t at = geometry_.start.v + lsn % geometry_.size.v;
    std::vector<std::byte> sector(memory_->logicalSector());
    const DeviceOffset start(roundDown(at, sector.size()));
    ASSERT_TRUE(memory_->read(start, sector).isOk());
    sector[at % sector.size()] = value;
    ASSERT_TRUE(memory_->write(start, sector).isOk());
  }
  std::byte peek(uint64_t lsn) {
    const uint64_t at = geometry_.start.v + lsn % geometry_.size.v;
    std::vector<std::byte> sector(memory_->logicalSector());
    EXPECT_TRUE(memory_->read(DeviceOffset(roundDown(at, sector.size())), sector).isOk());
    return sector[at % sector.size()];
  }

  JournalGeometry geometry_{DeviceOffset(1 * MiB), ByteCount(256 * KiB), 4096};
  std::unique_ptr<MemoryDevice> memory_ = MemoryDevice::create(ByteCount(16 * MiB));
  std::function<void()> onWantSpace_;
  std::function<void(Lsn)> onDurable_;
  std::atomic<int> spaceAsked_{0};
  std::unique_ptr<MemoryDevice> base_;  // as it was before startAnew's journal
  std::unique_ptr<RecordDevice> record_;
  std::unique_ptr<Journal> journal_;
};

}  // namespace ourfs
