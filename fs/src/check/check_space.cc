// Blocks: no two claims on one, and a free-space snapshot that says the same as the extents.
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <tuple>

#include "check/checker.h"
#include "common/aligned_buffer.h"
#include "common/codec.h"
#include "free_snapshot.h"

namespace ourfs {

namespace {

struct BlockRange {
  uint64_t start = 0, end = 0;
};
using BlockRanges = std::vector<BlockRange>;

// In order, and none touches the next.
BlockRanges normalized(BlockRanges ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const BlockRange& a, const BlockRange& b) { return a.start < b.start; });
  BlockRanges merged;
  for (const BlockRange& each : ranges) {
    if (!merged.empty() && each.start <= merged.back().end)
      merged.back().end = std::max(merged.back().end, each.end);
    else
      merged.push_back(each);
  }
  return merged;
}

// Blocks of `from` that are not in `without`, and the first of them. REQUIRES: both normalized.
std::pair<uint64_t, uint64_t> countWithout(const BlockRanges& from, const BlockRanges& without) {
  uint64_t count = 0, first = 0;
  auto hole = without.begin();
  for (const BlockRange& range : from) {
    for (uint64_t at = range.start; at < range.end;) {
      while (hole != without.end() && hole->end <= at) ++hole;
      const uint64_t stop =
          hole == without.end() ? range.end : std::clamp(hole->start, at, range.end);
      if (stop > at && count == 0) first = at;
      count += stop - at;
      at = stop == range.end ? stop : std::min(hole->end, range.end);
    }
  }
  return {count, first};
}

}  // namespace

Status Checker::checkClaims() {
  // Claims of the index come first among equals: what it owns is not file data.
  std::sort(claims_.begin(), claims_.end(), [](const Claim& a, const Claim& b) {
    return std::tie(a.start, a.inode) < std::tie(b.start, b.inode);
  });
  Claim widest;
  for (const Claim& claim : claims_) {
    if (claim.start < widest.end) {
      const bool withIndex = widest.inode == 0 || claim.inode == 0;
      const Claim& loser = claim.inode == 0 ? widest : claim;
      problem(fmt::format("block {} is used twice: by {} and by {}", claim.start,
                          withIndex ? "the index" : inodeText(widest.inode),
                          inodeText(loser.inode)));
      if (mend_ && loser.inode != 0) TRY(moveExtent(loser));
      // The loser is out of the way, or will be.
      if (&loser == &claim) continue;
      widest = claim;
    }
    if (claim.end > widest.end) widest = claim;
  }
  return Status::ok();
}

// Both owners keep the bytes that are there now: one of them in a copy. Without room for one the
// problem stays.
Status Checker::moveExtent(const Claim& claim) {
  const uint64_t blockSize = volume_.blockSize();
  const InodeNo ino(claim.inode);
  const FileOffset offset(claim.fileOffset);
  TRY_ASSIGN(auto value, volume_.index().get(extentKey(ino, offset)));
  if (!value) return Status::ok();
  TRY_ASSIGN(const ExtentRecord old, decodeExtent(ino, offset, *value));
  if (old.block != claim.start) return Status::ok();  // moved before

  for (uint64_t done = 0; done < old.blocks;) {
    auto run = copyBlocks(old.block + done, old.blocks - done, old.state);
    if (run.errnum() == ENOSPC) return Status::ok();
    TRY(run);
    Transaction t;
    t.afterData();
    const auto put = [&](uint64_t from, uint64_t block, uint64_t blocks) {
      const FileOffset at = offset + ByteCount(from * blockSize);
      t.put(extentKey(ino, at), encodeExtent(ino, at, {block, blocks, old.state}));
    };
    put(done, run->start.v, run->count.v);
    done += run->count.v;
    if (done < old.blocks) put(done, old.block + done, old.blocks - done);
    TRY(commit(std::move(t)));
  }
  return Status::ok();
}

// Copies the first of `count` blocks, as many as one free run takes.
Result<BlockRun> Checker::copyBlocks(uint64_t from, uint64_t count, StoredExtentState state) {
  constexpr uint64_t kCopyBytes = MiB;
  const uint64_t blockSize = volume_.blockSize();
  TRY_ASSIGN(const BlockRun run,
             volume_.space().allocate(BlockCount(count), BlockNo(0), /*reserved=*/false));
  if (state == StoredExtentState::Unwritten) return run;
  AlignedBuffer buffer(kCopyBytes);
  for (uint64_t at = 0, end = run.count.v * blockSize; at < end; at += kCopyBytes) {
    const auto piece = buffer.span().first(std::min(kCopyBytes, end - at));
    TRY(volume_.device().read(DeviceOffset(from * blockSize + at), piece, IoClass::Data));
    TRY(volume_.device().write(DeviceOffset(run.start.v * blockSize + at), piece, IoClass::Data));
  }
  return run;
}

// A mount takes the free map from the snapshot if it belongs to the last unmount and is whole.
Status Checker::checkSnapshot() {
  const MountSummary& mount = volume_.summary();
  TRY_ASSIGN(const auto stored, volume_.index().get(kFreeHeaderKey));
  if (!stored || !mount.wasClean || mount.replay.records != 0) return Status::ok();
  const auto header = decodeSnapshotHeader(*stored);
  const uint64_t current = volume_.superblock().generation;
  if (header && header->generation != current - (volume_.readOnly() ? 0 : 1)) return Status::ok();

  BlockRanges said, used;
  SnapshotHeader found;
  bool whole = header.isOk();
  TRY(volume_.index().scan("F", prefixEnd("F"), [&](auto key, auto value) {
    const auto parsed = parseKey(key);
    const auto runs = decodeGroup(value);
    whole =
        whole && parsed && runs && parsed->ino.v <= volume_.superblock().blocks().v / kGroupBlocks;
    if (!whole) return false;
    for (const auto& run : *runs) {
      const uint64_t start = parsed->ino.v * kGroupBlocks + run.start;
      said.push_back({start, start + run.count});
      found.usedBlocks += run.count;
    }
    ++found.groups;
    found.crc = crc32c(asBytes(value), crc32c(asBytes(key), found.crc));
    return true;
  }));
  if (whole) found.generation = header->generation;
  if (!whole || found != *header) {
    problem("the free-space snapshot cannot be read");
    return Status::ok();
  }
  BlockRanges accounted = said;  // the index's own blocks are never in a snapshot
  for (const Claim& claim : claims_) {
    used.push_back({claim.start, claim.end});
    if (claim.inode == 0) accounted.push_back(used.back());
  }
  used = normalized(std::move(used));
  if (auto [count, first] = countWithout(used, normalized(std::move(accounted))); count != 0)
    problem(fmt::format("the free-space snapshot calls {} used blocks free, the first is {}", count,
                        first));
  if (auto [count, first] = countWithout(normalized(std::move(said)), used); count != 0)
    problem(fmt::format("the free-space snapshot calls {} free blocks used, the first is {}", count,
                        first));
  return Status::ok();
}

}  // namespace ourfs
