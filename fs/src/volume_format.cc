// mkfs.
#include <sys/stat.h>

#include "common/codec.h"
#include "fs/volume.h"
#include "journal_geometry.h"
#include "volume_settings.h"

namespace ourfs {

namespace {

InodeRecord rootDirectory(const Timestamp& now) {
  InodeRecord root;
  root.mode = S_IFDIR | 0755;
  root.nlink = 2;
  root.parent = kRootInode.v;
  root.atime = root.mtime = root.ctime = root.btime = now;
  return root;
}

// The index of an empty filesystem. No record of the journal is in it: it begins at LSN 0.
Status fillIndex(BlockDevice& device, const Superblock& superblock) {
  IndexOptions options;
  options.geometry = indexGeometry(superblock);
  options.takeSpace = [](ByteCount) -> Result<std::vector<BlockRun>> {
    return Status::error(ENOSPC);
  };
  options.beforePersist = [] { return Status::ok(); };
  options.onFailure = [](const Status&) {};
  options.onPersisted = [](AppliedPosition) {};
  TRY_ASSIGN(auto index, Index::open(device, std::move(options)));
  IndexBatch batch;
  batch.put(inodeKey(kRootInode), encodeInode(kRootInode, rootDirectory(superblock.created)));
  batch.put(settingKey(kNextInodeSetting), encodeNumber(kRootInode.v + 1));
  TRY(index->apply(batch, AppliedPosition{}));
  TRY(index->flush());
  return index->close();
}

}  // namespace

Status formatVolume(BlockDevice& device, const FormatOptions& options, Superblock* made) {
  if (device.readOnly()) return Status::error(EROFS, device.name() + " is read-only");
  TRY_ASSIGN(Superblock superblock,
             planVolume(device.size(), device.logicalSector(), device.physicalSector(), options));
  SuperblockStore store(device);
  TRY(store.wipe());  // durable before anything else is touched: a crash from here on leaves no
                      // volume
  TRY(eraseJournal(device, journalGeometry(superblock)));
  TRY(Index::format(device, indexGeometry(superblock), {initialPool(superblock)}));
  TRY(fillIndex(device, superblock));
  superblock.clean = true;
  TRY(store.storeBoth(superblock));
  if (made != nullptr) *made = superblock;
  return Status::ok();
}

}  // namespace ourfs
