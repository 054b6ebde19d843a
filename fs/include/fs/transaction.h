// Transaction and TransactionLog: one atomic change of the filesystem, through journal and index.
//
//   TRY_ASSIGN(auto room, log.reserve(worstCase));      // before the extent-map and log locks
//   Transaction t; t.put(…); t.erase(…);
//   TRY_ASSIGN(Lsn lsn, log.commit(std::move(t), std::move(room)));
//   … log.flush(lsn) when it must be durable …
//
// Invariants: docs/design.md, "Transactions". A reservation is worst case: the declared limits
// below. commit never waits and never fails for space; any failure inside it is fail-stop.
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "common/units.h"
#include "fs/space.h"
#include "index/index.h"
#include "journal/journal.h"

namespace ourfs {

// Worst-case payload of each kind of transaction, in bytes. One place; asserted in commit.
inline constexpr ByteCount kNamespaceRoom{24 *
                                          KiB};  // create, link, unlink, rename, symlink, mkdir …
inline constexpr ByteCount kAttributeRoom{8 * KiB};  // inode record alone
inline constexpr ByteCount kXattrRoom{80 *
                                      KiB};  // one attribute value up to 64 KiB, plus the inode
inline constexpr ByteCount kExtentRoom{32 *
                                       KiB};  // one ioend, or one bounded step of truncate/punch
inline constexpr size_t kMaxExtentsPerStep =
    256;  // extents that one step of truncate/punch may touch

enum class Privilege {
  Normal,   // needs the whole index reserve R
  Freeing,  // unlink, truncate, punch, orphan reclaim: may use the further reserve
};

class Transaction {
 public:
  void put(std::string key, std::string value) { batch_.put(std::move(key), std::move(value)); }
  void erase(std::string key) { batch_.erase(std::move(key)); }
  // These blocks are freed by this transaction: busy until it is durable.
  void freeBlocks(BlockRun run) { freed_.push_back(run); }
  // The records name data that was written before commit: a device flush goes first.
  void afterData() { afterData_ = true; }
  bool empty() const { return batch_.empty() && freed_.empty(); }
  const IndexBatch& batch() const { return batch_; }

 private:
  friend class TransactionLog;
  IndexBatch batch_;
  std::vector<BlockRun> freed_;
  bool afterData_ = false;
};

class TransactionLog {
 public:
  TransactionLog(Journal& journal, Index& index, SpaceAllocator& space)
      : journal_(journal), index_(index), space_(space) {}

  struct Room {
    Journal::Reservation journal;
  };
  // Journal, index pool and memtable room for one transaction. May wait, may grow the pool.
  // ENOSPC; EROFS or EIO after a failure. No extent-map or folio lock that a flusher could need may
  // be held.
  Result<Room> reserve(ByteCount payload, Privilege privilege = Privilege::Normal);
  // Appends and applies. The result is the record's end: flush up to it.
  Result<Lsn> commit(Transaction transaction, Room room);
  Status flush(Lsn upTo, FlushScope scope = FlushScope::Log);
  Journal& journal() { return journal_; }
  // Told, without locks, whenever a call fails because the journal has failed. Set before serving.
  void setOnFailure(std::function<void(const Status&)> onFailure) {
    onFailure_ = std::move(onFailure);
  }

 private:
  Status reserveIndex(Privilege privilege);
  Status checked(Status status);  // the same status; tells onFailure_
  // Mutant: the bytes in a memory that all commits share.
  std::span<const std::byte> unpinned(std::string_view bytes);

  Journal& journal_;
  Index& index_;
  SpaceAllocator& space_;
  std::function<void(const Status&)> onFailure_;
  std::vector<std::byte> shared_;  // for unpinned() only
};

}  // namespace ourfs
