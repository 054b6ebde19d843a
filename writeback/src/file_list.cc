#include "file_list.h"

#include <iterator>

namespace ourfs {

namespace {
int64_t nanoseconds(FileList::Clock::time_point t) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(t.time_since_epoch()).count();
}
}  // namespace

std::shared_ptr<DirtyFile>& FileList::entry(const std::shared_ptr<Mapping>& mapping) {
  std::shared_ptr<DirtyFile>& file = files_[mapping.get()];
  if (!file) {
    file = std::make_shared<DirtyFile>(mapping);
    joinRound(file);
  }
  return file;
}

void FileList::joinRound(const std::shared_ptr<DirtyFile>& file) {
  if (!file->inRound) file->inRound = round_.insert(round_.end(), file);
}

void FileList::leaveRound(DirtyFile& file) {
  if (file.inRound) round_.erase(*file.inRound);
  file.inRound.reset();
}

void FileList::put(Files& list, DirtyFile::Place place, const std::shared_ptr<DirtyFile>& file) {
  file->place = place;
  file->at = list.insert(list.end(), file);
}

void FileList::leaveList(DirtyFile& file) {
  if (file.place == DirtyFile::Place::Waiting) waiting_.erase(file.at);
  if (file.place == DirtyFile::Place::Active) active_.erase(file.at);
  if (file.place == DirtyFile::Place::Running) --running_;
  file.place = DirtyFile::Place::None;
}

void FileList::wait(const std::shared_ptr<DirtyFile>& file) {
  file->mapping->dirtiedAt.store(nanoseconds(Clock::now()), std::memory_order_relaxed);
  put(waiting_, DirtyFile::Place::Waiting, file);
}

void FileList::settle(const std::shared_ptr<DirtyFile>& file) {
  // The exchange reads what a writer's exchange wrote, and so sees the folio that it made dirty
  // before; a writer that comes later finds `queued` false, and adds the file itself.
  leaveList(*file);
  file->mapping->queued.exchange(false);
  if (file->mapping->pages.dirtyFolios() == 0 || file->mapping->queued.exchange(true)) return;
  wait(file);
}

void FileList::add(const std::shared_ptr<Mapping>& mapping) {
  if (mapping->queued.exchange(true)) return;
  MutexLock lock(mutex_);
  const std::shared_ptr<DirtyFile>& file = entry(mapping);
  joinRound(file);
  if (file->place == DirtyFile::Place::None) wait(file);
}

void FileList::activateFirst() {
  const std::shared_ptr<DirtyFile> file = waiting_.front();
  leaveList(*file);
  put(active_, DirtyFile::Place::Active, file);
}

std::shared_ptr<DirtyFile> FileList::take(Clock::time_point expired, bool pressure) {
  MutexLock lock(mutex_);
  const auto old = [&](const DirtyFile& file) {
    return file.mapping->dirtiedAt.load(std::memory_order_relaxed) <= nanoseconds(expired);
  };
  while (!waiting_.empty() && old(*waiting_.front())) activateFirst();
  if (pressure && !waiting_.empty() && (active_.empty() || waitingsTurn_)) {
    activateFirst();
    active_.splice(active_.begin(), active_, std::prev(active_.end()));
    waitingsTurn_ = false;
  }
  if (active_.empty()) return nullptr;
  std::shared_ptr<DirtyFile> file = active_.front();
  leaveList(*file);
  file->place = DirtyFile::Place::Running;
  ++running_;
  ++file->users;
  return file;
}

void FileList::giveBack(const std::shared_ptr<DirtyFile>& file, bool more) {
  MutexLock lock(mutex_);
  if (!file->forgotten && file->place == DirtyFile::Place::Running) {
    if (more) {
      leaveList(*file);
      put(active_, DirtyFile::Place::Active, file);
      waitingsTurn_ = true;
    } else {
      settle(file);
    }
  }
  release(*file);
}

std::shared_ptr<DirtyFile> FileList::use(const std::shared_ptr<Mapping>& mapping) {
  MutexLock lock(mutex_);
  std::shared_ptr<DirtyFile> file = entry(mapping);
  ++file->users;
  return file;
}

std::vector<std::shared_ptr<DirtyFile>> FileList::useBusy() {
  MutexLock lock(mutex_);
  std::vector<std::shared_ptr<DirtyFile>> busy;
  for (const auto& file : round_) {
    const bool dirty =
        file->place != DirtyFile::Place::None || file->mapping->pages.dirtyFolios() != 0;
    if (!dirty && !file->flights.any()) continue;
    ++file->users;
    busy.push_back(file);
  }
  return busy;
}

std::shared_ptr<DirtyFile> FileList::useNextForReclaim() {
  MutexLock lock(mutex_);
  while (!round_.empty()) {
    std::shared_ptr<DirtyFile> file = round_.front();
    if (file->place == DirtyFile::Place::None && file->mapping->pages.folios() == 0) {
      leaveRound(*file);  // until it is dirty again
      continue;
    }
    round_.splice(round_.end(), round_, round_.begin());
    ++file->users;
    return file;
  }
  return nullptr;
}

void FileList::release(DirtyFile& file) {
  if (--file.users == 0) unused_.notifyAll();
}

void FileList::unuse(const std::shared_ptr<DirtyFile>& file) {
  MutexLock lock(mutex_);
  // A file that a flusher runs is settled by it.
  const bool listed =
      file->place == DirtyFile::Place::Waiting || file->place == DirtyFile::Place::Active;
  if (listed && !file->forgotten && file->mapping->pages.dirtyFolios() == 0) settle(file);
  release(*file);
}

void FileList::forget(const std::shared_ptr<Mapping>& mapping) {
  MutexLock lock(mutex_);
  auto found = files_.find(mapping.get());
  if (found == files_.end()) return;
  const std::shared_ptr<DirtyFile> file = found->second;
  files_.erase(found);
  leaveRound(*file);
  leaveList(*file);
  file->forgotten = true;
  while (file->users != 0) unused_.wait(mutex_);
  lock.unlock();
  // An I/O uses the file until its flight has ended.
  file->flights.waitBefore(UINT64_MAX, FileOffset(0), kFileEnd);
  mapping->queued.store(false);
  file->mapping.reset();
}

size_t FileList::inRound() const {
  MutexLock lock(mutex_);
  return round_.size();
}

size_t FileList::dirty() const {
  MutexLock lock(mutex_);
  return waiting_.size() + active_.size() + running_;
}

}  // namespace ourfs
