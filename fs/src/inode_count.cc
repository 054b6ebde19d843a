#include "inode_count.h"

#include "common/codec.h"
#include "volume_settings.h"

namespace ourfs {

namespace {

constexpr size_t kKeysPerStep = 2048;

}  // namespace

Status InodeCount::load(Volume& volume) {
  TRY_ASSIGN(auto stored, volume.index().get(settingKey(kInodesSetting)));
  if (!stored || !volume.summary().wasClean) return Status::ok();
  Decoder d(*stored);
  const uint64_t generation = d.u64();
  const uint64_t count = d.u64();
  // Every mount that writes takes the next generation.
  const uint64_t expected = volume.superblock().generation - (volume.readOnly() ? 0 : 1);
  if (!d.ok() || !d.atEnd() || generation != expected) return Status::ok();
  MutexLock lock(mutex_);
  count_ = count;
  known_ = true;
  return Status::ok();
}

bool InodeCount::known() {
  MutexLock lock(mutex_);
  return known_;
}

Status InodeCount::recount(Index& index, const std::function<bool()>& goOn) {
  while (goOn()) {
    // A new inode that is told to us only later than its key was seen is counted twice.
    MutexLock lock(mutex_);
    size_t seen = 0;
    TRY(index.scan(inodeKey(cursor_), prefixEnd("I"), [&](std::string_view key, std::string_view) {
      mutex_.assertHeld();
      auto parsed = parseKey(key);
      if (!parsed) return false;
      cursor_ = InodeNo(parsed->ino.v + 1);
      if (!leaving_.contains(parsed->ino.v)) ++count_;
      return ++seen < kKeysPerStep;
    }));
    if (seen < kKeysPerStep) {
      known_ = true;
      return Status::ok();
    }
  }
  return Status::ok();
}

void InodeCount::store(const Volume& volume, Transaction& transaction) {
  MutexLock lock(mutex_);
  if (!known_) return;
  std::string value;
  Encoder e(value);
  e.u64(volume.superblock().generation);
  e.u64(count_);
  transaction.put(settingKey(kInodesSetting), value);
}

void InodeCount::created(InodeNo ino) {
  MutexLock lock(mutex_);
  if (counted(ino)) ++count_;
}

void InodeCount::beginRemove(std::span<const InodePtr> inodes) {
  MutexLock lock(mutex_);
  for (const InodePtr& inode : inodes) {
    leaving_.insert(inode->ino.v);
    if (counted(inode->ino) && count_ > 0) --count_;
  }
}

void InodeCount::endRemove(std::span<const InodePtr> inodes, bool removed) {
  MutexLock lock(mutex_);
  for (const InodePtr& inode : inodes) {
    leaving_.erase(inode->ino.v);
    if (!removed && counted(inode->ino)) ++count_;
  }
}

uint64_t InodeCount::value() {
  MutexLock lock(mutex_);
  return count_;
}

}  // namespace ourfs
