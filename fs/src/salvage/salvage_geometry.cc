// What is known of a volume without superblocks: where things are, and how large blocks are.
#include <algorithm>
#include <map>

#include "salvage/salvage_source.h"

namespace ourfs {

namespace {

constexpr uint32_t kLargestUnit = 4096;

Result<Superblock> planFor(const BlockDevice& device, ByteCount size, uint32_t blockSize) {
  FormatOptions options;
  options.blockSize = blockSize;
  TRY_ASSIGN(Superblock plan,
             planVolume(size, device.logicalSector(), device.physicalSector(), options));
  plan.generation = UINT64_MAX;  // any record of the journal may count
  plan.clean = true;
  return plan;
}

}  // namespace

Status SalvageSource::guessSuperblock(const Tell& tell) {
  const auto guess = planFor(device_, device_.size(), FormatOptions().blockSize);
  if (!guess) return Status::corrupt("both superblocks are lost, and " + guess.status().message());
  guessed_ = true;
  const auto found = IndexSalvage::findGeometry(device_, indexGeometry(*guess));
  if (!found) return guessFromKeys(tell);
  TRY_ASSIGN(superblock_, planFor(device_, found->volumeSize, found->blockSize));
  note_("both superblocks are lost: the file table says how large volume and blocks are");
  return Status::ok();
}

// Blocks of 4 KiB and more have units of 4 KiB in the index; smaller blocks are units themselves.
Status SalvageSource::guessFromKeys(const Tell& tell) {
  for (const uint32_t unit : {kLargestUnit, 1024u, 2048u}) {
    auto plan = planFor(device_, device_.size(), unit);
    if (!plan) continue;  // the device's sectors are larger
    superblock_ = std::move(*plan);
    std::vector<std::string> notes;
    if (!readKeys([&](const std::string& line) { notes.push_back(line); }, tell)) continue;
    for (const std::string& line : notes) note_(line);
    guessBlockSize_ = true;
    return Status::ok();
  }
  return Status::corrupt(
      "both superblocks and the index file table are lost, and no part of the index was found");
}

// An inode knows how many bytes its extents have, the extents how many blocks.
void SalvageSource::guessBlockSize() {
  std::map<uint64_t, uint64_t> votes;
  keys_->scan("I", [&](std::string_view key, std::string_view value) {
    const auto parsed = parseKey(key);
    const auto record = parsed ? decodeInode(parsed->ino, value) : Status::corrupt("no key");
    if (!record) return true;
    uint64_t blocks = 0;
    for (const SalvagedExtent& e : extents(parsed->ino, TellOthers::No)) blocks += e.record.blocks;
    if (blocks != 0 && record->blocks % blocks == 0) ++votes[record->blocks / blocks];
    return true;
  });
  std::pair<uint64_t, uint64_t> best{blockSize(), 0};
  for (const auto& vote : votes) {
    const bool possible =
        isPowerOfTwo(vote.first) && vote.first >= kLargestUnit && vote.first <= kMaxBlockSize;
    if (possible && blockSize() == kLargestUnit && vote.second > best.second) best = vote;
  }
  superblock_.blockSize = static_cast<uint32_t>(best.first);
  superblock_.volumeSize = ByteCount(device_.size().v / best.first * best.first);
  note_("both superblocks are lost: as its files tell, the volume has blocks of " +
        std::to_string(best.first) + " bytes, and the device's size");
}

// The index's first blocks are those of the data area, which begins right behind the journal.
void SalvageSource::placeData() {
  constexpr uint64_t kAligned = 64 * KiB;  // as mkfs places it
  Superblock& s = superblock_;
  uint64_t start = 0;
  if (const auto found = keys_->foundAt()) {
    start = found->v / kAligned * kAligned;
    // The head of the data area may be lost with all else in front: no file is refused for that.
    s.dataStart = std::min(s.dataStart, DeviceOffset(start));
  } else {
    if (owned_.empty()) return;
    start = owned_.front().start.v * s.blockSize;
    s.dataStart = DeviceOffset(start);
  }
  if (start > s.journalStart.v) s.journalSize = ByteCount(start - s.journalStart.v);
}

}  // namespace ourfs
