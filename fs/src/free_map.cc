// The free map of a volume: what the index owns, and what the extents use, from the snapshot or a
// scan.
#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "common/codec.h"
#include "common/sync_point.h"
#include "free_snapshot.h"
#include "fs/volume.h"

namespace ourfs {

namespace {

constexpr ByteCount kSnapshotRoom{64 * KiB};  // payload of one step of writing the snapshot

// What may not go to data: room for the index to grow while a full volume is being emptied.
BlockCount metadataReserve(const Superblock& s) {
  const uint64_t most = indexGeometry(s).poolReserve().v / 2;
  return BlockCount(std::min(std::max(s.volumeSize.v / 128, MiB), most) / s.blockSize);
}

// fsck mends what it finds. Without replay the index may name blocks that have since become the
// pool's.
bool tolerant(const OpenOptions& options) { return options.forCheck || options.noRecovery; }

// As much of `run` as is free; for fsck, which counts what anybody claims as used. A run that does
// not lie inside says nothing: it could take all the room that mending needs.
void markWhatIsFree(SpaceAllocator& space, BlockRun run, const Superblock& s) {
  const uint64_t start = run.start.v, end = s.blocks().v;
  if (start < s.dataStart.v / s.blockSize || start >= end || run.count.v > end - start) return;
  for (uint64_t i = 0; i < run.count.v; ++i)
    (void)space.markUsed({run.start + BlockCount(i), BlockCount(1)});
}

// Calls each(run) for what lies in [from, to) and in none of `holes`, which are in order.
class Complement {
 public:
  Complement(uint64_t from, std::vector<BlockRun> holes) : at_(from), holes_(std::move(holes)) {}

  template <class F>
  void upTo(uint64_t to, F&& each) {
    while (at_ < to) {
      while (next_ < holes_.size() && endOf(holes_[next_]) <= at_) ++next_;
      const uint64_t stop = next_ < holes_.size() ? std::min(holes_[next_].start.v, to) : to;
      if (stop > at_) each(BlockRun{BlockNo(at_), BlockCount(stop - at_)});
      at_ = std::max(at_, stop);
      if (at_ < to) at_ = std::min(to, endOf(holes_[next_]));
    }
  }
  void skipTo(uint64_t to) { at_ = std::max(at_, to); }

 private:
  static uint64_t endOf(const BlockRun& run) { return run.start.v + run.count.v; }
  uint64_t at_;
  size_t next_ = 0;
  const std::vector<BlockRun> holes_;
};

std::vector<BlockRun> inOrder(std::vector<BlockRun> runs) {
  std::sort(runs.begin(), runs.end(),
            [](const BlockRun& a, const BlockRun& b) { return a.start < b.start; });
  return runs;
}

}  // namespace

std::unique_ptr<SpaceAllocator> Volume::emptyFreeMap() const {
  return std::make_unique<SpaceAllocator>(BlockNo(superblock_.dataStart.v / superblock_.blockSize),
                                          BlockNo(superblock_.blocks().v),
                                          metadataReserve(superblock_));
}

Status Volume::buildFreeMap(const OpenOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  const bool mayTrust = summary_.wasClean && summary_.replay.records == 0 && !options.forCheck;
  summary_.snapshotUsed = mayTrust && loadSnapshot();
  if (!summary_.snapshotUsed) {
    space_ = emptyFreeMap();
    TRY(markIndexBlocks(options));
    TRY(scanExtents(options));
  }
  summary_.scanSeconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return Status::ok();
}

Status Volume::markIndexBlocks(const OpenOptions& options) {
  for (const BlockRun& run : index_->ownedBlocks()) {
    if (space_->markUsed(run)) continue;
    if (!tolerant(options)) {
      return Status::corrupt(
          fmt::format("index: its blocks {}+{} lie outside or are used twice: "
                      "run fsck.ourfs",
                      run.start.v, run.count.v));
    }
    markWhatIsFree(*space_, run, superblock_);
  }
  return Status::ok();
}

Status Volume::scanExtents(const OpenOptions& options) {
  Status problem;
  const auto take = [&](std::string_view key, std::string_view value) -> Status {
    TRY_ASSIGN(const ParsedKey parsed, parseKey(key));
    const FileOffset offset(parsed.number);
    TRY_ASSIGN(const ExtentRecord extent, decodeExtent(parsed.ino, offset, value));
    const BlockRun run{BlockNo(extent.block), BlockCount(extent.blocks)};
    ++summary_.extents;
    if (space_->markUsed(run)) return Status::ok();
    if (tolerant(options)) markWhatIsFree(*space_, run, superblock_);
    return Status::corrupt(
        fmt::format("inode {}: the extent at offset {} has blocks {}+{}, which lie "
                    "outside or are used twice: run fsck.ourfs",
                    parsed.ino.v, offset.v, run.start.v, run.count.v));
  };
  TRY(index_->scan("E", prefixEnd("E"), [&](auto key, auto value) {
    problem = take(key, value);
    return problem.isOk() || tolerant(options);
  }));
  return tolerant(options) ? Status::ok() : problem;
}

// True if there is one for this unmount, and all of it is right. False is no error: the extents are
// scanned.
bool Volume::loadSnapshot() {
  const auto stored = index_->get(kFreeHeaderKey);
  if (!stored.isOk() || !*stored) return false;
  const auto header = decodeSnapshotHeader(**stored);
  if (!header || header->generation != foundGeneration_) return false;

  space_ = emptyFreeMap();
  if (!markIndexBlocks(OpenOptions{}).isOk()) return false;
  SnapshotHeader found;
  found.generation = header->generation;
  bool right = true;
  const Status scanned = index_->scan("F", prefixEnd("F"), [&](auto key, auto value) {
    const auto parsed = parseKey(key);
    const auto runs = decodeGroup(value);
    right = parsed.isOk() && runs.isOk() && parsed->ino.v <= superblock_.blocks().v / kGroupBlocks;
    if (!right) return false;
    for (const auto& run : *runs) {
      const BlockNo start(parsed->ino.v * kGroupBlocks + run.start);
      right = right && space_->markUsed({start, BlockCount(run.count)});
      found.usedBlocks += run.count;
    }
    ++found.groups;
    found.crc = crc32c(asBytes(value), crc32c(asBytes(key), found.crc));
    return right;
  });
  if (mutantEnabled("space.skip_snapshot_checksum")) found.crc = header->crc;
  if (scanned.isOk() && right && found == *header) return true;
  spdlog::warn("the free-space snapshot is damaged: scanning the extents");
  return false;
}

Status Volume::writeSnapshot() {
  if (space_->counts().busy.v != 0)
    return Status::error(EBUSY, "space: blocks are busy at unmount");
  SnapshotBuilder builder;
  const auto add = [&](BlockRun used) { builder.add(used); };
  Complement used(superblock_.dataStart.v / superblock_.blockSize, inOrder(index_->ownedBlocks()));
  space_->forEachFree([&](BlockRun free) {
    used.upTo(free.start.v, add);
    used.skipTo((free.start + free.count).v);
  });
  used.upTo(superblock_.blocks().v, add);
  SnapshotHeader header;
  header.generation = superblock_.generation;
  auto values = builder.finish(header);

  // What the last snapshot already says is not written again.
  std::vector<std::string> gone;
  TRY(index_->scan("F", prefixEnd("F"), [&](auto key, auto value) {
    const auto at = values.find(std::string(key));
    if (at == values.end()) gone.emplace_back(key);
    if (at != values.end() && at->second == value) values.erase(at);
    return true;
  }));
  Transaction step;
  const auto commitStep = [&]() -> Status {
    TRY_ASSIGN(auto room, log_->reserve(kSnapshotRoom));
    TRY(log_->commit(std::exchange(step, Transaction()), std::move(room)));
    return Status::ok();
  };
  const auto full = [&] {
    return step.batch().encodedSize() + 2 * kMaxGroupValue > kSnapshotRoom.v;
  };
  for (std::string& key : gone) {
    step.erase(std::move(key));
    if (full()) TRY(commitStep());
  }
  for (auto& [key, value] : values) {
    step.put(key, std::move(value));
    if (full()) TRY(commitStep());
  }
  step.put(std::string(kFreeHeaderKey), encodeSnapshotHeader(header));
  return commitStep();
}

}  // namespace ourfs
