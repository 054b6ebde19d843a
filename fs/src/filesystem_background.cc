// Filesystem: the background thread (commit interval, memory of the inode table) and orphans.
#include <spdlog/spdlog.h>

#include "filesystem_impl.h"

namespace ourfs {

namespace {

// Inodes that stay in core although nobody uses them; above twice as many they go at once.
constexpr size_t kKeepUnused = 16384;

}  // namespace

void FilesystemImpl::runBackground() {
  if (!inodeCount_.known()) {
    Status counted = inodeCount_.recount(volume_.index(), [this] { return !stoppingBackground(); });
    if (!counted.isOk()) spdlog::error("counting inodes: {}", counted.message());
  }
  auto next = std::chrono::steady_clock::now() + options_.commitInterval;
  MutexLock lock(backgroundMutex_);
  while (!stopBackground_) {
    const auto now = std::chrono::steady_clock::now();
    const bool due = now >= next, shrink = shrinkWanted_;
    if (!due && !shrink) {
      (void)wakeBackground_.waitFor(backgroundMutex_, next - now);
      continue;
    }
    shrinkWanted_ = false;
    lock.unlock();
    if (due || shrink) commitRound();
    if (due) next = std::chrono::steady_clock::now() + options_.commitInterval;
    table_.shrink(kKeepUnused, [this](Inode& inode) { return isBusy(inode); });
    lock.lock();
  }
}

bool FilesystemImpl::stoppingBackground() {
  MutexLock lock(backgroundMutex_);
  return stopBackground_;
}

void FilesystemImpl::stopBackground() {
  {
    MutexLock lock(backgroundMutex_);
    stopBackground_ = true;
    wakeBackground_.notifyAll();
  }
  if (background_.joinable()) background_.join();
}

void FilesystemImpl::shrinkTable() {
  if (table_.unused() <= 2 * kKeepUnused) return;
  MutexLock lock(backgroundMutex_);
  if (shrinkWanted_) return;
  shrinkWanted_ = true;
  wakeBackground_.notifyAll();
}

// Attributes that only core knows reach the log, and the log reaches the disk: a crash loses no
// more than one commit interval of what nobody has synced.
void FilesystemImpl::commitRound() {
  if (volume_.readOnly()) return;
  auto inodes = table_.all();
  for (InodePtr& inode : inodes) {
    if (stoppingBackground()) return;
    if (Status committed = data_->commitAttributes(*inode); !committed.isOk()) {
      if (committed.errnum() != ENOSPC)
        spdlog::error("inode {}: {}", inode->ino.v, committed.message());
      if (volume_.readOnly()) return;
    }
    inode.reset();
  }
  TransactionLog& log = volume_.log();
  const Lsn head = log.journal().head().end;
  if (head <= log.journal().durable()) return;
  if (Status flushed = log.flush(head); !flushed.isOk()) {
    spdlog::error("journal: {}", flushed.message());
  }
}

// Whether an unused inode still has something to write. If not, its cached data is dropped.
bool FilesystemImpl::isBusy(Inode& inode) {
  std::shared_ptr<Mapping> mapping;
  {
    MutexLock attr(inode.attrMutex);
    if (inode.attrDirty || inode.record.nlink == 0) return true;
    mapping = inode.mapping;
  }
  if (!mapping) return false;
  if (mapping->pages.anyDirtyOrWriteback(FileOffset(0), kFileEnd)) return true;
  mapping.reset();
  data_->drop(inode);
  return false;
}

Status FilesystemImpl::eraseReclaimed(std::span<const InodePtr> inodes) {
  inodeCount_.beginRemove(inodes);
  const Status erased = data_->eraseRecords(inodes);
  inodeCount_.endRemove(inodes, erased.isOk());
  if (!erased) return erased;
  for (const InodePtr& inode : inodes) data_->drop(*inode);
  return Status::ok();
}

// What a crash left behind, or an unmount with too little time.
void FilesystemImpl::queueOrphans() {
  constexpr size_t kStep = 1024;
  const std::string end = prefixEnd("O");
  InodeNo from{0};
  size_t found = 0;
  for (bool more = true; more && !reclaimer_.stopping();) {
    std::vector<InodeNo> orphans;
    Status scanned =
        volume_.index().scan(orphanKey(from), end, [&](std::string_view key, std::string_view) {
          if (auto parsed = parseKey(key)) orphans.push_back(parsed->ino);
          return orphans.size() < kStep;
        });
    if (!scanned.isOk()) {
      spdlog::error("reading the list of unlinked files: {}", scanned.message());
      return;
    }
    for (InodeNo ino : orphans) reclaimer_.queue(ino);
    found += orphans.size();
    more = orphans.size() == kStep;
    if (more) from = InodeNo(orphans.back().v + 1);
  }
  if (found > 0) spdlog::info("{} unlinked files were left by the last mount", found);
}

}  // namespace ourfs
