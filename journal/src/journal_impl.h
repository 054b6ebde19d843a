// JournalImpl: the log lock and what it guards.
//
// Who may touch what:
//   log lock (mutex_)   positions, the pending records, the accounts of ring space, the waiters
//   I/O token (busy_)   the taken records and the JournalWriter. Whoever finds it free takes it:
//   the
//                       flush caller itself, which saves a lone fsync two changes of thread, or the
//                       writer thread when much is pending that nobody asks for. Its owner writes
//                       all that was pending, calls onDurable, and gives it back; so groups go out
//                       one after the other, and onDurable sees rising values.
#pragma once

#include <atomic>
#include <deque>
#include <thread>
#include <vector>

#include "common/mutex.h"
#include "journal/journal.h"
#include "journal_writer.h"

namespace ourfs {

class JournalImpl final : public Journal {
 public:
  JournalImpl(BlockDevice& device, Options options);
  ~JournalImpl() override;

  Result<Reservation> reserve(ByteCount payload) override;
  ByteCount maxPayload() const override;
  Result<LogPosition> append(Reservation reservation, std::span<const std::byte> payload,
                             bool afterData,
                             const std::function<Status(const LogPosition&)>& apply) override;
  Status flush(Lsn upTo, FlushScope scope) override;
  LogPosition head() const override;
  Lsn durable() const override;
  Lsn tail() const override;
  void advanceTail(Lsn tail) override;
  ByteCount used() const override;
  Status failure() const override;
  void fail(Status why) override;
  JournalCounters counters() const override;

  void giveBack(uint64_t charge);  // a reservation that was not used

 private:
  // Records that wait for a write, contiguous in LSN order from a sector boundary on. Bytes behind
  // `fill` are free memory.
  struct Pending {
    std::vector<std::byte> bytes;
    uint64_t fill = 0;
    uint64_t start = 0;     // LSN of the first byte
    bool preflush = false;  // a flush must precede them
  };
  // A reservation that waits for room, in the queue in order of arrival.
  struct Waiter {
    uint64_t charge = 0;
    bool granted = false;
    CondVar ready;
  };

  // --- journal.cc: records and flushes ---
  std::byte* roomFor(uint64_t bytes) REQUIRES(mutex_);
  JournalGroup take() REQUIRES(mutex_);
  void carry(const JournalGroup& group) EXCLUDES(mutex_);
  void finish(const JournalGroup& group, const Status& status) REQUIRES(mutex_);
  void failLocked(const Status& why) REQUIRES(mutex_);
  void writerLoop() EXCLUDES(mutex_);

  // --- ring_space.cc: reservations and the tail ---
  Status waitForRoom(uint64_t charge) EXCLUDES(mutex_);
  void askForSpace() EXCLUDES(mutex_);
  uint64_t next() const REQUIRES(mutex_) { return pending_.start + pending_.fill; }
  uint64_t occupied() const REQUIRES(mutex_);
  bool fits(uint64_t charge) const REQUIRES(mutex_);
  void spaceChanged() REQUIRES(mutex_);

  // Constant after construction.
  const Options options_;
  const JournalGeometry geometry_;
  const uint64_t sector_, size_, writeBehind_;

  mutable Mutex mutex_;
  Pending pending_ GUARDED_BY(mutex_);
  LogPosition head_ GUARDED_BY(mutex_);
  Lsn durable_ GUARDED_BY(mutex_);
  Lsn tail_ GUARDED_BY(mutex_);
  Status failure_ GUARDED_BY(mutex_);
  std::atomic<bool> failed_ = false;  // failure_ is set; it never goes away
  JournalCounters counters_ GUARDED_BY(mutex_);

  uint64_t charged_ GUARDED_BY(mutex_) = 0;    // by reservations that are out
  uint64_t spaceTick_ GUARDED_BY(mutex_) = 0;  // changes whenever waiting may have become pointless
  bool asked_ GUARDED_BY(mutex_) = false;      // wantSpace was called since the tail moved
  std::deque<Waiter*> waiters_ GUARDED_BY(mutex_);

  bool busy_ GUARDED_BY(mutex_) = false;   // the I/O token is out
  uint64_t round_ GUARDED_BY(mutex_) = 0;  // number of the group in flight, or of the last one
  Lsn inFlightTo_ GUARDED_BY(mutex_);      // what the group in flight will make durable
  uint64_t inFlightTicket_ GUARDED_BY(mutex_) = 0;
  uint64_t dataAsked_ GUARDED_BY(mutex_) = 0;  // LogAndData calls, numbered
  uint64_t dataDone_ GUARDED_BY(mutex_) = 0;   // those served
  // Those whom group n serves wait at done_[n % 2]; so its end wakes them, and one of the next
  // group.
  CondVar done_[2];
  bool writeWanted_ GUARDED_BY(mutex_) = false;  // the writer thread should carry a group
  bool stop_ GUARDED_BY(mutex_) = false;
  CondVar writerWake_;

  // Belong to the owner of the I/O token.
  JournalWriter writer_;
  std::vector<std::byte> taken_;

  std::thread thread_;
};

}  // namespace ourfs
