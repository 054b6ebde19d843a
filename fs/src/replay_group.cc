#include "replay_group.h"

#include "common/codec.h"
#include "common/sync_point.h"
#include "fs/transaction.h"

namespace ourfs {

namespace {
// No more than one transaction may have: what awaitMemtableRoom() leaves room for.
constexpr ByteCount kMostBytes = kXattrRoom;
}  // namespace

Status ReplayGroup::add(const AppliedPosition& position, std::span<const std::byte> payload) {
  if (bytes_ + payload.size() > kMostBytes.v) TRY(apply());
  TRY(decode(payload));
  bytes_ += payload.size();
  ++records_;
  position_ = position;
  return Status::ok();
}

Status ReplayGroup::decode(std::span<const std::byte> payload) {
  TRY_ASSIGN(const IndexBatch batch, IndexBatch::decode(asChars(payload)));
  const bool firstWins = mutantEnabled("replay.first_change_wins");
  for (const IndexBatch::Change& change : batch.changes()) {
    auto value = change.isPut ? std::optional(change.value) : std::nullopt;
    const auto [at, isNew] = changes_.try_emplace(change.key);
    if (isNew || !firstWins) at->second = std::move(value);
  }
  return Status::ok();
}

Status ReplayGroup::apply() {
  if (records_ == 0) return Status::ok();
  IndexBatch batch;
  for (auto& [key, value] : changes_) {
    if (value)
      batch.put(key, std::move(*value));
    else
      batch.erase(key);
  }
  TRY(index_.awaitMemtableRoom());  // the journal may be larger than all memtables
  TRY(index_.apply(batch, position_));
  changes_.clear();
  records_ = bytes_ = 0;
  return Status::ok();
}

}  // namespace ourfs
