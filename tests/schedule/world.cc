#include "schedule/world.h"

#include <algorithm>

#include "common/sync_point.h"

namespace ourfs::test {

namespace {

constexpr uint64_t kPage = 4096;
constexpr int kForcedError = ENOSPC;

VolumeOptions volumeOptions(uint32_t blockSize) {
  VolumeOptions o;
  o.blockSize = blockSize;
  o.size = ByteCount(512 * KiB);
  o.cacheLimit = ByteCount(MiB);
  o.recording = false;
  return o;
}

// The flusher has its turn as soon as anything is dirty; writers never wait for it.
WritebackOptions writebackOptions() {
  WritebackOptions o;
  o.backgroundDirty = ByteCount(1);
  o.dirtyLimit = ByteCount(MiB);
  o.expire = std::chrono::milliseconds(0);
  return o;
}

std::span<const std::byte> bytesOf(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

}  // namespace

SlowDisk::SlowDisk(BlockDevice& inner) : inner_(inner), thread_([this] { serve(); }) {}

SlowDisk::~SlowDisk() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
    changed_.notifyAll();
  }
  thread_.join();
}

void SlowDisk::submit(IoRequest request) {
  if (request.op != IoOp::Write) return inner_.submit(std::move(request));
  MutexLock lock(mutex_);
  queue_.push_back(std::move(request));
  changed_.notifyAll();
}

void SlowDisk::serve() {
  MutexLock lock(mutex_);
  for (;;) {
    if (queue_.empty()) {
      if (stop_) return;
      changed_.wait(mutex_);
      continue;
    }
    IoRequest request = std::move(queue_.front());
    queue_.erase(queue_.begin());
    lock.unlock();
    schedulingPoint("the disk writes");
    inner_.submit(std::move(request));
    lock.lock();
  }
}

World::World(uint32_t blockSize)
    : volume_(volumeOptions(blockSize)),
      freeAtFirst_(volume_.freeBlocks()),
      disk_(volume_.device),
      writeback_(Writeback::start(disk_, volume_.pool, volume_, writebackOptions())),
      file_(volume_.newFile()),
      io_{disk_, volume_, [this](Mapping&) { writeback_->dirtied(file_); }} {}

World::~World() { writeback_->forget(file_); }

void World::wrong(const std::string& what) {
  if (wrong_.empty()) wrong_ = what;
}

void World::change(uint64_t pos, const std::string& bytes) {
  if (model_.size() < pos + bytes.size()) model_.resize(pos + bytes.size(), '\0');
  model_.replace(pos, bytes.size(), bytes);
  past_.push_back({pos, bytes});
}

void World::preallocate(uint64_t length) {
  volume_.preallocate(*file_, length);
  model_.resize(length, '\0');
}

void World::write(uint64_t pos, uint64_t length, uint64_t seed) {
  const std::string bytes = pattern(seed, length);
  ExclusiveLock lock(inode_);
  change(pos, bytes);
  const auto done = bufferedWrite(*file_, io_, FileOffset(pos), bytesOf(bytes));
  if (!done.isOk() || done->v != length) wrong("a write failed or was short");
}

void World::failingWrite(uint64_t pos, uint64_t length, uint64_t seed) {
  const std::string bytes = pattern(seed, length);
  ExclusiveLock lock(inode_);
  SyncPoints::instance().failAfter("write.before_copy", 1, kForcedError);
  const auto done = bufferedWrite(*file_, io_, FileOffset(pos), bytesOf(bytes));
  SyncPoints::instance().reset();
  if (!done.isOk() && done.errnum() != kForcedError) wrong("a write failed for another reason");
  if (done.isOk() && done->v >= length) wrong("a write did not fail");
  if (done.isOk()) change(pos, bytes.substr(0, done->v));
}

void World::store(uint64_t page, uint64_t seed) {
  const std::string bytes = pattern(seed, kPage);
  past_.push_back({page * kPage, bytes});
  const auto done = cacheStore(*file_, io_, FileOffset(page * kPage), bytesOf(bytes), false);
  if (!done.isOk() || done->v != kPage) wrong("a store failed or was short");
  change(page * kPage, bytes);
}

void World::truncate(uint64_t size) {
  ExclusiveLock lock(inode_);
  ExclusiveLock invalidate(file_->invalidateLock);
  if (!truncateCache(*file_, io_, FileOffset(size)).isOk()) wrong("a truncate failed");
  volume_.freeBehind(*file_, size);
  model_.resize(size, '\0');
}

void World::punch(uint64_t from, uint64_t to) {
  ExclusiveLock lock(inode_);
  change(from, std::string(to - from, '\0'));
  ExclusiveLock invalidate(file_->invalidateLock);
  dropFolios(*file_, FileOffset(from), FileOffset(to));
  volume_.freeRange(*file_, from, to);
}

void World::zero(uint64_t pos, uint64_t length) {
  ExclusiveLock lock(inode_);
  change(pos, std::string(length, '\0'));
  ExclusiveLock invalidate(file_->invalidateLock);
  if (!zeroRange(*file_, io_, FileOffset(pos), ByteCount(length)).isOk()) wrong("zeroing failed");
}

void World::read(uint64_t pos, uint64_t length) {
  std::string bytes(length, '?');
  const auto done = readFile(*file_, io_, FileOffset(pos),
                             std::as_writable_bytes(std::span(bytes.data(), bytes.size())));
  if (!done.isOk()) return wrong("a read failed");
  for (uint64_t at = pos; at < pos + done->v; ++at) {
    const char found = bytes[at - pos];
    const bool known =
        found == '\0' || std::ranges::any_of(past_, [&](const Past& p) {
          return at >= p.pos && at - p.pos < p.bytes.size() && p.bytes[at - p.pos] == found;
        });
    if (!known) {
      return wrong("a read found at " + std::to_string(at) + " what was never there");
    }
  }
}

void World::flush() {
  if (!writeback_->flush(file_, FileOffset(0), kFileEnd).isOk()) wrong("a flush failed");
}

void World::pollute() {
  const Extent e = volume_.extentAt(*file_, model_.size());
  const uint64_t block = volume_.options.blockSize, start = roundDown(model_.size(), block);
  std::string bytes(block, '\0');
  const DeviceOffset at = e.address + (FileOffset(start) - e.offset);
  if (!volume_.memory->read(at, std::as_writable_bytes(std::span(bytes.data(), block))).isOk() ||
      e.state != ExtentState::Mapped) {
    return wrong("nothing to pollute");
  }
  std::fill(bytes.begin() + static_cast<ptrdiff_t>(model_.size() - start), bytes.end(), '?');
  if (!volume_.memory->write(at, bytesOf(bytes)).isOk()) wrong("nothing was polluted");
}

void World::reclaim() { writeback_->reclaim(volume_.pool.limit()); }

std::string World::difference(const char* where, const std::string& found) const {
  if (found.size() != model_.size()) {
    return std::string(where) + " are " + std::to_string(found.size()) + " bytes, not " +
           std::to_string(model_.size());
  }
  const auto at = std::ranges::mismatch(found, model_);
  if (at.in1 == found.end()) return "";
  return std::string(where) + " is another byte at " + std::to_string(at.in1 - found.begin());
}

std::string World::verify() {
  letOthersFinish();
  const auto look = [this](const char* where) {
    std::string bytes(model_.size() + 100, '?');
    const auto done = readFile(*file_, io_, FileOffset(0),
                               std::as_writable_bytes(std::span(bytes.data(), bytes.size())));
    bytes.resize(done.isOk() ? done->v : 0);
    if (const std::string d = difference(where, bytes); !d.empty()) wrong(d);
  };
  look("in the cache");
  if (const std::string dirty = volume_.dirtyWithoutSpace(*file_); !dirty.empty()) wrong(dirty);
  flush();
  if (const std::string d = difference("on disk", volume_.onDisk(*file_)); !d.empty()) wrong(d);
  letOthersFinish();
  // Twice: the first time a folio that was used lately stays.
  reclaim();
  reclaim();
  if (file_->pages.folios() != 0) wrong("a folio stays in the cache");
  look("read from disk");
  if (file_->storedSize != model_.size()) wrong("the stored size is not that of the file");
  uint64_t used = 0;
  for (const Extent& e : volume_.extents(*file_)) {
    if (e.state == ExtentState::Delalloc) wrong("a reservation is left");
    if (e.state != ExtentState::Hole) used += e.length.v / volume_.options.blockSize;
  }
  if (volume_.freeBlocks() + used != freeAtFirst_) wrong("a block was lost");
  if (const std::string tail = volume_.behindTheEnd(*file_); !tail.empty()) wrong(tail);
  if (!volume_.violations().empty()) wrong(volume_.violations().front());
  return wrong_;
}

}  // namespace ourfs::test
