#include "fs/transaction.h"

#include <spdlog/spdlog.h>

#include "common/codec.h"
#include "common/sync_point.h"

namespace ourfs {

Result<TransactionLog::Room> TransactionLog::reserve(ByteCount payload, Privilege privilege) {
  TRY(checked(journal_.failure()));
  TRY(reserveIndex(privilege));
  auto granted = journal_.reserve(payload);
  if (!granted) return checked(granted.status());
  return Room{std::move(granted).value()};
}

Status TransactionLog::reserveIndex(Privilege privilege) {
  if (!index_.poolSufficient()) {
    const Status grown = index_.growPool();
    // What frees space must not fail for want of it: it adds a few keys at most, and part of the
    // pool's reserve is there for the compaction that makes them vanish.
    if (!grown.isOk() && (grown.errnum() != ENOSPC || privilege == Privilege::Normal)) return grown;
  }
  return index_.awaitMemtableRoom();
}

Result<Lsn> TransactionLog::commit(Transaction transaction, Room room) {
  if (transaction.empty()) return journal_.head().end;
  const IndexBatch& batch = transaction.batch_;
  if (batch.encodedSize() > room.journal.payload() &&
      !mutantEnabled("transaction.commit_without_reservation")) {
    const Status overrun = Status::error(
        EOVERFLOW, fmt::format("transaction: {} bytes were committed, {} were reserved",
                               batch.encodedSize(), room.journal.payload()));
    journal_.fail(overrun);
    return checked(overrun);
  }
  const std::string bytes = batch.encode();
  const auto apply = [&](const LogPosition& position) -> Status {
    TRY(index_.apply(batch, AppliedPosition{position.end, position.crc}));
    // Under the log lock, so that no flush can have made the record durable before its blocks are
    // here.
    for (const BlockRun& run : transaction.freed_) space_.freeAt(run, position.end);
    return Status::ok();
  };
  auto position =
      journal_.append(std::move(room.journal), asBytes(bytes), transaction.afterData_, apply);
  if (!position) return checked(position.status());
  return position->end;
}

Status TransactionLog::flush(Lsn upTo, FlushScope scope) {
  return checked(journal_.flush(upTo, scope));
}

Status TransactionLog::checked(Status status) {
  if (!status.isOk() && onFailure_) {
    if (const Status failed = journal_.failure(); !failed.isOk()) onFailure_(failed);
  }
  return status;
}

}  // namespace ourfs
