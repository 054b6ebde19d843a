#include "fs/transaction.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/codec.h"
#include "common/sync_point.h"

namespace ourfs {

Result<TransactionLog::Room> TransactionLog::reserve(ByteCount payload, Privilege privilege) {
  TRY(checked(journal_.failure()));
  if (const Status admitted = reserveIndex(privilege); !admitted.isOk()) {
    if (mutantEnabled("transaction.enospc_aborts")) journal_.fail(admitted);
    return checked(admitted);
  }
  auto granted = journal_.reserve(payload);
  if (!granted) return checked(granted.status());
  return Room{std::move(granted).value()};
}

Status TransactionLog::reserveIndex(Privilege privilege) {
  if (!index_.poolSufficient()) {
    const Status grown = index_.growPool();
    // What frees space must not fail for want of it: it adds a few keys at most, and part of the
    // pool's reserve is there for the compaction that makes them vanish.
    const bool needed =
        privilege == Privilege::Normal || mutantEnabled("transaction.freeing_needs_room");
    if (!grown.isOk() && (grown.errnum() != ENOSPC || needed)) return grown;
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
  // Pinned: nobody else can reach the bytes that the journal copies.
  const std::string bytes = batch.encode();
  const auto payload = mutantEnabled("transaction.unpinned") ? unpinned(bytes) : asBytes(bytes);
  SYNC_POINT("transaction.encoded");
  const auto apply = [&](const LogPosition& position) -> Status {
    TRY(index_.apply(batch, AppliedPosition{position.end, position.crc}));
    // Under the log lock, so that no flush can have made the record durable before its blocks are
    // here.
    for (const BlockRun& run : transaction.freed_) space_.freeAt(run, position.end);
    return Status::ok();
  };
  const bool late = mutantEnabled("transaction.apply_unlocked");
  auto position = journal_.append(std::move(room.journal), payload, transaction.afterData_,
                                  late ? nullptr : std::function(apply));
  if (!position) return checked(position.status());
  if (late) {
    SYNC_POINT("transaction.before_apply");
    TRY(apply(*position));
  }
  return position->end;
}

std::span<const std::byte> TransactionLog::unpinned(std::string_view bytes) {
  shared_.resize(std::max<size_t>(shared_.size(), kXattrRoom.v));
  const auto copied = asBytes(bytes).first(std::min(bytes.size(), shared_.size()));
  std::ranges::copy(copied, shared_.begin());
  return std::span(shared_).first(copied.size());
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
