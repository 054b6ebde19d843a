// Extents against each other, against the index's own blocks and against the volume's end.
#include <algorithm>

#include "check/checker.h"
#include "common/aligned_buffer.h"

namespace ourfs {

Status Checker::checkExtents() {
  const Superblock& superblock = volume_.superblock();
  const uint64_t blockSize = superblock.blockSize;
  uint64_t firstBlock = superblock.dataStart.v / blockSize, endBlock = superblock.blocks().v;
  uint64_t lastInode = 0, lastEnd = 0;
  for (const BlockRun& run : volume_.index().ownedBlocks())
    claims_.push_back({run.start.v, run.start.v + run.count.v, 0, 0});

  return scanPrefix('E', [&](const ParsedKey& key, std::string_view value) {
    ++report_.extents;
    FileOffset offset(key.number);
    std::string where =
        "inode " + std::to_string(key.ino.v) + ": extent at " + std::to_string(offset.v);
    auto eraseIt = [ino = key.ino, offset](Transaction& t) { t.erase(extentKey(ino, offset)); };
    auto record = decodeExtent(key.ino, offset, value);
    if (!record) {
      problem(where + ": " + record.status().message(), eraseIt);
      return;
    }
    auto node = nodes_.find(key.ino.v);
    if (node == nodes_.end() || !node->second.isRegular()) {
      problem(where + " belongs to no regular file", eraseIt);
      return;
    }
    uint64_t length = record->blocks * blockSize;
    if (record->block < firstBlock || record->block >= endBlock || record->blocks == 0 ||
        record->blocks > endBlock - record->block || !isAligned(offset.v, blockSize)) {
      problem(where + " lies outside the volume or is misaligned", eraseIt);
      return;
    }
    if (lastInode == key.ino.v && offset.v < lastEnd) {
      problem(where + " overlaps the extent before it", eraseIt);
      return;
    }
    lastInode = key.ino.v;
    lastEnd = offset.v + length;
    node->second.foundBlocks += length;
    uint64_t end = roundUp(node->second.size, blockSize);
    if (record->state == StoredExtentState::Mapped && !node->second.orphan &&
        offset.v + length > end)
      problem(where + " holds data behind the end of the file",
              [=, this, ino = key.ino, r = *record](Transaction& t) {
                uint64_t keep = offset.v < end ? (end - offset.v) / blockSize : 0;
                if (keep == 0) {
                  t.erase(extentKey(ino, offset));
                } else {
                  ExtentRecord shorter = r;
                  shorter.blocks = keep;
                  t.put(extentKey(ino, offset), encodeExtent(ino, offset, shorter));
                }
              });
    claims_.push_back({record->block, record->block + record->blocks, key.ino.v, offset.v});
  });
}

Status Checker::checkClaims() {
  // Claims of the index come first among equals: what it owns is not file data.
  std::sort(claims_.begin(), claims_.end(), [](const Claim& a, const Claim& b) {
    return std::tie(a.start, a.inode) < std::tie(b.start, b.inode);
  });
  Claim widest;
  for (const Claim& claim : claims_) {
    if (claim.start < widest.end) {
      bool withIndex = widest.inode == 0 || claim.inode == 0;
      const Claim& loser = claim.inode == 0 ? widest : claim;
      problem("block " + std::to_string(claim.start) + " is used twice: by " +
              (withIndex ? "the index" : "inode " + std::to_string(widest.inode)) +
              " and by inode " + std::to_string(loser.inode));
      if (mend_ && loser.inode != 0) TRY(moveExtent(loser));
    }
    if (claim.end > widest.end) widest = claim;
  }
  return Status::ok();
}

// Both owners keep the bytes that are there now: one of them in a copy.
Status Checker::moveExtent(const Claim& claim) {
  const uint64_t blockSize = volume_.blockSize();
  InodeNo ino(claim.inode);
  FileOffset offset(claim.fileOffset);
  TRY_ASSIGN(auto value, volume_.index().get(extentKey(ino, offset)));
  if (!value) return Status::ok();  // mended before
  TRY_ASSIGN(ExtentRecord old, decodeExtent(ino, offset, *value));

  for (uint64_t done = 0; done < old.blocks;) {
    TRY_ASSIGN(auto room, volume_.log().reserve(kNamespaceRoom));
    TRY(volume_.space().reserve(BlockCount(old.blocks - done)));
    auto run = volume_.space().allocate(BlockCount(old.blocks - done), BlockNo(0), true);
    if (!run) {
      volume_.space().unreserve(BlockCount(old.blocks - done));
      return run.status();
    }
    volume_.space().unreserve(BlockCount(old.blocks - done) - run->count);
    AlignedBuffer block(blockSize, 4096);
    for (uint64_t i = 0; i < run->count.v; ++i) {
      TRY(volume_.device().read(DeviceOffset((old.block + done + i) * blockSize), block.span()));
      TRY(volume_.device().write(DeviceOffset((run->start.v + i) * blockSize), block.span(),
                                 IoClass::Data));
    }
    Transaction t;
    t.afterData();
    FileOffset at = offset + ByteCount(done * blockSize);
    t.put(extentKey(ino, at), encodeExtent(ino, at, {run->start.v, run->count.v, old.state}));
    done += run->count.v;
    if (done < old.blocks) {
      FileOffset rest = offset + ByteCount(done * blockSize);
      t.put(extentKey(ino, rest),
            encodeExtent(ino, rest, {old.block + done, old.blocks - done, old.state}));
    }
    TRY(volume_.log().commit(std::move(t), std::move(room)));
  }
  return Status::ok();
}

}  // namespace ourfs
