#include "fs/file_data.h"

#include <spdlog/spdlog.h>

#include "data/file_data_state.h"

namespace ourfs {

FileData::State::State(FileData& owner, Volume& v, InodeTable& table,
                       const FileDataOptions& options)
    : self(owner),
      volume(v),
      inodes(table),
      blockSize(v.blockSize()),
      pool(std::max<uint32_t>(v.blockSize(), 4096), options.cacheLimit),
      writeback(Writeback::start(v.device(), pool, owner, options.writeback)),
      io{v.device(), owner, [this](Mapping& m) {
           writeback->dirtied(static_cast<FileMapping&>(m).shared_from_this());
         }} {}

FileData::State::~State() {
  for (const InodePtr& inode : inodes.all()) {
    std::shared_ptr<Mapping> mapping = inode->mappingIfAny();
    if (!mapping) continue;
    writeback->forget(mapping);
    ExclusiveLock invalidate(mapping->invalidateLock);
    dropFolios(*mapping, FileOffset(0), kFileEnd);
  }
  writeback.reset();
}

FileData::FileData(Volume& volume, InodeTable& inodes, const FileDataOptions& options)
    : state_(std::make_unique<State>(*this, volume, inodes, options)) {}

FileData::~FileData() = default;

FolioPool& FileData::pool() { return state_->pool; }
Writeback& FileData::writeback() { return *state_->writeback; }
MappingCounters& FileData::counters() { return state_->counters; }

Result<std::shared_ptr<Mapping>> FileData::mappingOf(Inode& inode) {
  std::shared_ptr<FileMapping> mapping;
  bool hasExtents = false;
  {
    MutexLock attr(inode.attrMutex);
    hasExtents = inode.record.blocks != 0;
    if ((inode.record.mode & S_IFMT) != S_IFREG) return Status::error(EINVAL);
    if (!inode.mapping) {
      auto fresh = std::make_shared<FileMapping>(inode.ino, state_->blockSize, state_->pool,
                                                 state_->counters);
      fresh->size = inode.record.size;
      fresh->storedSize = inode.record.size;
      inode.mapping = fresh;
    }
    mapping = std::static_pointer_cast<FileMapping>(inode.mapping);
  }
  if (mapping->extents.loaded()) return std::shared_ptr<Mapping>(mapping);

  InodePtr owner = state_->inodes.find(inode.ino);
  ExclusiveLock invalidate(mapping->invalidateLock);
  MutexLock extents(mapping->extents.mutex());
  if (mapping->extents.loaded()) return std::shared_ptr<Mapping>(mapping);
  mapping->owner = owner;
  std::vector<Extent> stored;
  Status bad;
  auto take = [&](auto key, auto value) {
    auto parsed = parseKey(key);
    auto record = parsed ? decodeExtent(inode.ino, FileOffset(parsed->number), value)
                         : Result<ExtentRecord>(parsed.status());
    if (!record) {
      bad = record.status();
      return false;
    }
    stored.push_back(
        {FileOffset(parsed->number), ByteCount(record->blocks * state_->blockSize),
         DeviceOffset(record->block * state_->blockSize),
         record->state == StoredExtentState::Mapped ? ExtentState::Mapped : ExtentState::Unwritten,
         true});
    return true;
  };
  std::string prefix = extentPrefix(inode.ino);
  // An empty file is not looked for: a scan costs as much as the rest of its removal.
  if (hasExtents) TRY(state_->volume.index().scan(prefix, prefixEnd(prefix), take));
  TRY(bad);
  for (size_t i = 1; i < stored.size(); ++i) {
    if (stored[i].offset < stored[i - 1].end())
      return Status::corrupt("inode " + std::to_string(inode.ino.v) +
                             ": extents overlap; run fsck.ourfs");
  }
  mapping->extents.load(stored);
  return std::shared_ptr<Mapping>(mapping);
}

void FileData::drop(Inode& inode) {
  std::shared_ptr<Mapping> mapping = inode.mappingIfAny();
  if (!mapping) return;
  state_->writeback->forget(mapping);
  {
    ExclusiveLock invalidate(mapping->invalidateLock);
    dropFolios(*mapping, FileOffset(0), kFileEnd);
  }
  MutexLock attr(inode.attrMutex);
  inode.mapping.reset();
}

Status FileData::State::admitGrowth() {
  if (volume.index().poolSufficient()) return Status::ok();
  return volume.index().growPool();
}

void FileData::State::recordDelta(Transaction& t, InodeNo ino, const ExtentDelta& delta) const {
  for (const Extent& e : delta.erased) t.erase(extentKey(ino, e.offset));
  for (const Extent& e : delta.written) {
    ExtentRecord record{
        blockOf(e.address.v), blockOf(e.length.v),
        e.state == ExtentState::Mapped ? StoredExtentState::Mapped : StoredExtentState::Unwritten};
    t.put(extentKey(ino, e.offset), encodeExtent(ino, e.offset, record));
  }
}

void FileData::State::releaseReplaced(Transaction& t, const ExtentDelta& delta) {
  for (const Extent& e : delta.replaced) {
    if (e.state == ExtentState::Delalloc) {
      volume.space().unreserve(blocksOf(e.length));
    } else if (e.stored) {
      t.freeBlocks(runOf(e));
    } else {
      volume.space().freeUnstored(runOf(e));
    }
  }
}

Status FileData::State::commitWithInode(Inode& inode, FileMapping& mapping, Transaction t,
                                        TransactionLog::Room room, const InodeUpdate& update) {
  MutexLock attr(inode.attrMutex);
  if (update.storedSize) {
    inode.record.size = *update.storedSize;
    mapping.storedSize = *update.storedSize;
  }
  if (update.touch) inode.record.mtime = inode.record.ctime = now();
  inode.record.blocks = mapping.extents.storedBytes().v;
  t.put(inodeKey(inode.ino), encodeInode(inode.ino, inode.record));
  TRY_ASSIGN(Lsn lsn, volume.log().commit(std::move(t), std::move(room)));
  inode.attrDirty = false;
  inode.raiseLastLsn(lsn);
  return Status::ok();
}

void FileData::State::touchModified(Inode& inode) {
  MutexLock attr(inode.attrMutex);
  inode.record.mtime = inode.record.ctime = now();
  inode.attrDirty = true;
}

Status FileData::commitAttributes(Inode& inode) {
  {
    MutexLock attr(inode.attrMutex);
    if (!inode.attrDirty) return Status::ok();
  }
  TRY_ASSIGN(auto room, state_->volume.log().reserve(kAttributeRoom, Privilege::Freeing));
  MutexLock attr(inode.attrMutex);
  if (!inode.attrDirty) return Status::ok();
  Transaction t;
  t.put(inodeKey(inode.ino), encodeInode(inode.ino, inode.record));
  TRY_ASSIGN(Lsn lsn, state_->volume.log().commit(std::move(t), std::move(room)));
  inode.attrDirty = false;
  inode.raiseLastLsn(lsn);
  return Status::ok();
}

Status FileData::State::killPrivileges(Inode& inode) {
  {
    MutexLock attr(inode.attrMutex);
    bool setgid = (inode.record.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP);
    if (!(inode.record.mode & S_ISUID) && !setgid && !(inode.record.flags & kInodeHasCapability))
      return Status::ok();
  }
  TRY_ASSIGN(auto room, volume.log().reserve(kAttributeRoom));
  MutexLock attr(inode.attrMutex);
  Transaction t;
  inode.record.mode &= ~uint32_t{S_ISUID};
  if (inode.record.mode & S_IXGRP) inode.record.mode &= ~uint32_t{S_ISGID};
  if (inode.record.flags & kInodeHasCapability) t.erase(xattrKey(inode.ino, "security.capability"));
  inode.record.flags &= ~kInodeHasCapability;
  t.put(inodeKey(inode.ino), encodeInode(inode.ino, inode.record));
  TRY_ASSIGN(Lsn lsn, volume.log().commit(std::move(t), std::move(room)));
  inode.raiseLastLsn(lsn);
  return Status::ok();
}

Result<std::vector<Extent>> FileData::extents(Inode& inode) {
  TRY_ASSIGN(std::shared_ptr<Mapping> mapping, mappingOf(inode));
  std::vector<Extent> all;
  MutexLock extents(mapping->extents.mutex());
  mapping->extents.forEach(FileOffset(0), kFileEnd, [&](const Extent& e) {
    all.push_back(e);
    return true;
  });
  return all;
}

}  // namespace ourfs
