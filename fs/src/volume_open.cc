// Mounting, in the order that volume.h promises.
#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>

#include <chrono>

#include "checkpointer.h"
#include "clock.h"
#include "common/sync_point.h"
#include "discarder.h"
#include "fs/volume.h"
#include "journal_geometry.h"
#include "journal_reach.h"
#include "read_only_journal.h"
#include "replay_group.h"
#include "volume_settings.h"

namespace ourfs {

namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

Result<std::unique_ptr<Volume>> Volume::open(BlockDevice& device, const OpenOptions& options) {
  std::unique_ptr<Volume> volume(new Volume(device));
  TRY(volume->openAll(options));
  return volume;
}

Status Volume::openAll(const OpenOptions& options) {
  const Stopwatch total;
  store_ = std::make_unique<SuperblockStore>(device_);
  TRY_ASSIGN(superblock_, store_->load());
  summary_.oneSuperblock = store_->mayBeOlder();
  if (summary_.oneSuperblock && !mutantEnabled("superblock.trust_older_copy")) expectOneMoreMount();
  TRY(checkAccess(options));
  summary_.wasClean = superblock_.clean;
  foundGeneration_ = superblock_.generation;
  TRY(openIndex(options));
  TRY(replayAll(options));
  if (!looksOnly_) TRY(markDirty());
  TRY(buildFreeMap(options));
  TRY(loadInodeWatermark());
  TRY(startLog(options));
  if (!looksOnly_) TRY(index_->startBackground());
  summary_.totalSeconds = total.seconds();
  return Status::ok();
}

// The copy that is damaged may have said that the volume is mounted. Two writes of the superblock
// in a row are never more than one generation apart, so this covers whatever it said: records of
// that mount are replayed, and a free-space snapshot from before it is not used.
void Volume::expectOneMoreMount() {
  ++superblock_.generation;
  superblock_.clean = false;
}

Status Volume::checkAccess(const OpenOptions& options) {
  if (options.noRecovery && !options.readOnly) {
    return Status::error(EINVAL, "norecovery needs a read-only mount");
  }
  if (device_.readOnly() && !options.readOnly) {
    return Status::error(EROFS, device_.name() + " is read-only: mount with -o ro");
  }
  const uint32_t sector = device_.logicalSector();
  if (superblock_.blockSize < sector || !isAligned(superblock_.journalSector, sector)) {
    return Status::error(EINVAL,
                         fmt::format("the device has sectors of {} bytes, the volume was made "
                                     "for smaller ones: copy it to another device",
                                     sector));
  }
  looksOnly_ = options.readOnly;
  if (const uint64_t unknown = superblock_.roCompat & ~kKnownRoCompat;
      unknown != 0 && !looksOnly_) {
    spdlog::warn("unknown ro-compat feature bits {:#x}: the mount is read-only", unknown);
    looksOnly_ = true;
  }
  readOnly_.store(looksOnly_, std::memory_order_release);
  return Status::ok();
}

Status Volume::openIndex(const OpenOptions& options) {
  IndexOptions index;
  index.geometry = indexGeometry(superblock_);
  index.blockCache = options.blockCache;
  index.readOnly = looksOnly_;
  index.takeSpace = [this](ByteCount wanted) { return takeSpace(wanted); };
  index.returnSpace = [this](const std::vector<BlockRun>& runs) {
    for (const BlockRun& run : runs) space_->freeUnstored(run);
  };
  index.beforePersist = [this] { return beforePersist(); };
  index.onPersisted = [this](AppliedPosition persisted) { advanceTail(persisted.end); };
  index.onFailure = [this](const Status& why) {
    if (recordFailure(why)) checkpointer_->failJournal();
  };
  TRY_ASSIGN(index_, Index::open(device_, std::move(index)));
  return Status::ok();
}

Status Volume::replayAll(const OpenOptions& options) {
  const Stopwatch watch;
  TRY_ASSIGN(const AppliedPosition persisted, index_->persisted());
  const LogPosition tail{persisted.end, persisted.crc};
  summary_.replay.end = tail;
  if (options.noRecovery) return Status::ok();

  ReplayGroup group(*index_);
  const auto add = [&](const LogPosition& position, std::span<const std::byte> payload) {
    return group.add(AppliedPosition{position.end, position.crc}, payload);
  };
  const JournalGeometry geometry = journalGeometry(superblock_);
  TRY_ASSIGN(summary_.replay, replayJournal(device_, geometry, tail, superblock_.generation, add));
  if (!mutantEnabled("replay.last_group_lost")) TRY(group.apply());
  if (summary_.replay.records == 0 && !superblock_.clean && !mutantEnabled("volume.skip_reach")) {
    const Status reached = checkJournalReaches(device_, geometry, tail, superblock_.generation);
    if (!options.forCheck || reached.errnum() != EUCLEAN) TRY(reached);
    if (!reached.isOk()) summary_.replay.lost = reached.message();
  }
  if (!summary_.replay.lost.empty()) {
    if (!looksOnly_ && options.forCheck) {
      // fsck goes on with what is there. The evidence of the loss goes once the index has persisted
      // what was replayed.
      TRY(index_->flush());
      TRY(eraseJournal(device_, geometry));
    } else if (!looksOnly_) {
      return Status::corrupt(summary_.replay.lost +
                             ": refusing to write; mount with -o ro to read what is left");
    }
    spdlog::warn("{}", summary_.replay.lost);
  }
  summary_.replaySeconds = watch.seconds();
  return Status::ok();
}

// Durable before the first allocation, so that a crash from here on is known for one.
Status Volume::markDirty() {
  ++superblock_.generation;
  ++superblock_.mountCount;
  superblock_.lastMounted = wallClock();
  superblock_.clean = false;
  if (mutantEnabled("volume.dirty_late")) return Status::ok();
  return store_->store(superblock_);
}

Status Volume::startLog(const OpenOptions& how) {
  if (looksOnly_) {
    journal_ = std::make_unique<ReadOnlyJournal>(summary_.replay.end);
    log_ = std::make_unique<TransactionLog>(*journal_, *index_, *space_);
    return Status::ok();
  }
  TRY_ASSIGN(const AppliedPosition persisted, index_->persisted());
  if (how.discard) {
    discarder_ = std::make_unique<Discarder>(device_, *space_, superblock_.blockSize, readOnly_);
    space_->setDiscard([this](BlockRun run) { discarder_->queue(run); });
  }
  Journal::Options options;
  options.geometry = journalGeometry(superblock_);
  options.generation = superblock_.generation;
  options.head = summary_.replay.end;
  options.tail = persisted.end;
  options.wantSpace = [this] { checkpointer_->request(); };
  options.onDurable = [this](Lsn durable) { space_->onDurable(durable); };
  journal_ = Journal::start(device_, std::move(options));
  log_ = std::make_unique<TransactionLog>(*journal_, *index_, *space_);
  log_->setOnFailure([this](const Status& why) { failStop(why); });
  space_->setWhenFull([this](SpaceUse use) { whenFull(use); });
  running_.store(journal_.get(), std::memory_order_release);
  checkpointer_->start();
  return Status::ok();
}

Status Volume::loadInodeWatermark() {
  TRY_ASSIGN(const auto value, index_->get(settingKey(kNextInodeSetting)));
  const auto stored = value ? decodeNumber(*value) : std::nullopt;
  if (!stored) spdlog::warn("index: the next inode number is missing: run fsck.ourfs");
  uint64_t next = kRootInode.v + 1;
  if (stored && *stored <= kMaxInodeNumber) next = std::max(next, *stored);
  // A watermark that a slow transaction has set back must not let a number be used twice.
  const std::string end = inodeKey(InodeNo(kMaxInodeNumber));
  TRY(index_->scan(inodeKey(InodeNo(next)), end, [&](auto key, auto) {
    if (const auto parsed = parseKey(key); parsed.isOk()) next = parsed->ino.v + 1;
    return true;
  }));
  MutexLock lock(inodeMutex_);
  nextInode_ = inodeWatermark_ = committedWatermark_ = next;
  return Status::ok();
}

}  // namespace ourfs
