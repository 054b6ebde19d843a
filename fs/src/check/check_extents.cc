// Extents: each by itself, and against the one before it in its file.
#include <algorithm>

#include "check/checker.h"
#include "common/aligned_buffer.h"
#include "iomap/extent_map.h"

namespace ourfs {

Status Checker::checkExtents() {
  for (const BlockRun& run : volume_.index().ownedBlocks())
    claims_.push_back({run.start.v, run.start.v + run.count.v, 0, 0});
  lastInode_ = lastEnd_ = 0;
  return scanPrefix('E',
                    [&](const ParsedKey& key, std::string_view value) { checkExtent(key, value); });
}

void Checker::checkExtent(const ParsedKey& key, std::string_view value) {
  const Superblock& superblock = volume_.superblock();
  const uint64_t blockSize = superblock.blockSize;
  const uint64_t firstBlock = superblock.dataStart.v / blockSize, endBlock = superblock.blocks().v;
  const FileOffset offset(key.number);
  const std::string where = inodeText(key.ino.v) + ": extent at " + std::to_string(offset.v);
  const Fix eraseIt = [ino = key.ino, offset](Transaction& t) { t.erase(extentKey(ino, offset)); };
  ++report_.extents;

  const auto record = decodeExtent(key.ino, offset, value);
  if (!record) return problem(record.status().message(), eraseIt);
  const auto found = nodes_.find(key.ino.v);
  if (found == nodes_.end() || !found->second.isRegular())
    return problem(where + " belongs to no regular file", eraseIt);
  if (record->block < firstBlock || record->block >= endBlock ||
      record->blocks > endBlock - record->block)
    return problem(where + " lies outside the volume", eraseIt);
  const uint64_t length = record->blocks * blockSize;
  if (!isAligned(offset.v, blockSize) || offset >= kFileEnd || length > kFileEnd.v - offset.v)
    return problem(where + " is misaligned or lies behind the end of any file", eraseIt);
  if (lastInode_ == key.ino.v && offset.v < lastEnd_)
    return checkOverlap(where, key.ino, offset, *record);

  Node& node = found->second;
  lastInode_ = key.ino.v;
  lastEnd_ = offset.v + length;
  node.foundBlocks += length;
  if (record->state == StoredExtentState::Mapped) node.mappedEnd = lastEnd_;
  claims_.push_back({record->block, record->block + record->blocks, key.ino.v, offset.v});
}

// The extent in front keeps the range that both have; what lies behind it stays with this one.
void Checker::checkOverlap(const std::string& where, InodeNo ino, FileOffset offset,
                           const ExtentRecord& record) {
  const uint64_t shared = (lastEnd_ - offset.v) / volume_.blockSize();
  problem(where + " overlaps the extent before it",
          [this, ino, offset, record, shared, end = FileOffset(lastEnd_)](Transaction& t) {
            t.erase(extentKey(ino, offset));
            const auto taken = volume_.index().get(extentKey(ino, end));
            if (record.blocks <= shared || !taken || *taken) return;
            const ExtentRecord rest{record.block + shared, record.blocks - shared, record.state};
            t.put(extentKey(ino, end), encodeExtent(ino, end, rest));
          });
}

}  // namespace ourfs
