// Filesystem: start and stop.
#include <spdlog/spdlog.h>

#include <utility>

#include "common/sync_point.h"
#include "filesystem_impl.h"

namespace ourfs {

Result<std::unique_ptr<Filesystem>> Filesystem::start(Volume& volume,
                                                      const FilesystemOptions& options) {
  auto filesystem = std::make_unique<FilesystemImpl>(volume, options);
  TRY(filesystem->begin());
  return std::unique_ptr<Filesystem>(std::move(filesystem));
}

FilesystemImpl::FilesystemImpl(Volume& volume, const FilesystemOptions& options)
    : volume_(volume),
      options_(options),
      table_(
          [this](InodeNo ino) -> Result<InodeRecord> {
            TRY_ASSIGN(auto value, volume_.index().get(inodeKey(ino)));
            if (!value) return Status::error(ENOENT);
            return decodeInode(ino, *value);
          },
          [this](InodePtr inode) { reclaimer_.queue(inode->ino); }),
      data_(std::make_unique<FileData>(volume, table_, options.data)),
      reclaimer_(
          table_, [this](Inode& inode) { return data_->reclaimContents(inode); },
          [this](std::span<const InodePtr> inodes) { return eraseReclaimed(inodes); }) {}

FilesystemImpl::~FilesystemImpl() {
  stopBackground();
  reclaimer_.stop();
  data_.reset();
}

Status FilesystemImpl::begin() {
  TRY_ASSIGN(InodePtr root, table_.get(kRootInode));
  if (!root->isDirectory()) {
    return Status::corrupt("the root of the volume is not a directory; run fsck.ourfs");
  }
  TRY(inodeCount_.load(volume_));
  // A small volume is counted at once; a large one goes on in the background.
  bool first = true;
  if (!inodeCount_.known()) {
    TRY(inodeCount_.recount(volume_.index(), [&] { return std::exchange(first, false); }));
  }
  if (!volume_.readOnly()) reclaimer_.start([this] { queueOrphans(); });
  background_ = std::thread([this] { runBackground(); });
  return Status::ok();
}

Status FilesystemImpl::stop() {
  constexpr std::chrono::seconds kPatience{30};
  stopBackground();
  // There is nobody left who could forget or close anything.
  table_.releaseAll();
  if (!volume_.readOnly() && !reclaimer_.drain(kPatience)) {
    spdlog::info("{} unlinked files are left for the next mount", reclaimer_.waiting());
  }
  reclaimer_.stop();
  if (!volume_.failure().isOk()) return volume_.failure();
  if (volume_.readOnly()) return Status::ok();
  TRY(data_->syncAll());
  TRY_ASSIGN(auto room, volume_.log().reserve(kAttributeRoom, Privilege::Freeing));
  Transaction t;
  inodeCount_.store(volume_, t);
  TRY_ASSIGN(Lsn lsn, volume_.log().commit(std::move(t), std::move(room)));
  return volume_.log().flush(lsn);
}

Status FilesystemImpl::syncAll() {
  if (!volume_.failure().isOk()) return Status::error(EIO);
  if (volume_.readOnly()) return Status::ok();
  const Status synced = data_->syncAll();
  // What was lost before, and nobody may have asked for since: the caller has no open file that
  // would be told.
  MutexLock lock(syncMutex_);
  const int lost = data_->counters().errors.checkAndAdvance(syncCursor_);
  const bool silent = lost == 0 || mutantEnabled("files.sync_hides_loss");
  return synced.isOk() && !silent ? Status::error(lost) : synced;
}

}  // namespace ourfs
