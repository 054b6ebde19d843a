// ReadOnlyJournal: the log of a volume that was opened to look at. Nothing can be reserved or
// appended, and everything is as durable as it will ever be.
#pragma once

#include "journal/journal.h"

namespace ourfs {

class ReadOnlyJournal final : public Journal {
 public:
  explicit ReadOnlyJournal(const LogPosition& head) : head_(head) {}

  Result<Reservation> reserve(ByteCount) override { return failure(); }
  ByteCount maxPayload() const override { return ByteCount(0); }
  Result<LogPosition> append(Reservation, std::span<const std::byte>, bool,
                             const std::function<Status(const LogPosition&)>&) override {
    return failure();
  }
  Status flush(Lsn, FlushScope) override { return Status::ok(); }
  LogPosition head() const override { return head_; }
  Lsn durable() const override { return head_.end; }
  Lsn tail() const override { return head_.end; }
  void advanceTail(Lsn) override {}
  ByteCount used() const override { return ByteCount(0); }
  Status failure() const override { return Status::error(EROFS); }
  void fail(Status) override {}
  JournalCounters counters() const override { return {}; }

 private:
  const LogPosition head_;
};

}  // namespace ourfs
