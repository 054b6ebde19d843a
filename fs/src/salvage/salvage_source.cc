#include "salvage/salvage_source.h"

#include <sys/stat.h>

#include <algorithm>

#include "common/codec.h"
#include "volume_settings.h"

namespace ourfs {

namespace {

// A slot that says something that can be right, whatever size the device has now.
std::optional<Superblock> slotAt(BlockDevice& device, uint64_t at) {
  if (device.size().v < at + kSuperblockSize) return {};
  AlignedBuffer bytes(kSuperblockSize);
  if (!device.read(DeviceOffset(at), bytes.span(), IoClass::Superblock)) return {};
  auto slot = decodeSuperblock(asChars(bytes.span()), ByteCount(INT64_MAX));
  return slot ? std::optional(std::move(*slot)) : std::nullopt;
}

}  // namespace

Result<std::unique_ptr<SalvageSource>> SalvageSource::open(BlockDevice& device, const Note& note,
                                                           const Tell& tell) {
  std::unique_ptr<SalvageSource> source(new SalvageSource(device, note));
  TRY(source->findSuperblock(tell));
  if (!source->keys_) TRY(source->readKeys(note, tell));
  source->owned_ = source->keys_->ownedBlocks();
  std::ranges::sort(source->owned_, {}, [](const BlockRun& run) { return run.start.v; });
  if (source->guessed_) source->placeData();
  return source;
}

Status SalvageSource::readKeys(const Note& note, const Tell& tell) {
  TRY_ASSIGN(keys_, IndexSalvage::read(device_, indexGeometry(superblock_), note,
                                       [&](auto done, auto total) { tell(done.v, total.v); }));
  return Status::ok();
}

Status SalvageSource::findSuperblock(const Tell& tell) {
  const auto a = slotAt(device_, kSuperblockSlotA), b = slotAt(device_, kSuperblockSlotB);
  if (!a && !b) return guessSuperblock(tell);
  superblock_ = a && (!b || a->sequence >= b->sequence) ? *a : *b;
  if (superblock_.volumeSize > device_.size())
    note_("the volume has " + std::to_string(superblock_.volumeSize.v) + " bytes, the device " +
          std::to_string(device_.size().v) + ": what lay behind it is lost");
  return Status::ok();
}

std::optional<InodeRecord> SalvageSource::inode(InodeNo ino, std::string& why) const {
  if (const auto value = keys_->get(inodeKey(ino))) {
    auto record = decodeInode(ino, *value);
    if (record) return std::move(*record);
    why = record.status().message();
  } else {
    why = "inode " + std::to_string(ino.v) + " is missing";
  }
  why += ": owner, permissions and times are lost";
  InodeRecord made;
  made.nlink = 1;
  if (ino == kRootInode || !names(ino, TellOthers::No).empty()) {
    made.mode = S_IFDIR | 0700;
    return made;
  }
  const auto pieces = extents(ino, TellOthers::No);
  if (pieces.empty()) return {};
  made.mode = S_IFREG | 0600;
  for (const SalvagedExtent& e : pieces) {
    if (e.record.state == StoredExtentState::Mapped)
      made.size = e.offset.v + e.record.blocks * blockSize();
  }
  return made;
}

std::vector<DirentRecord> SalvageSource::names(InodeNo dir, TellOthers tell) const {
  std::vector<DirentRecord> found;
  keys_->scan(direntPrefix(dir), [&](std::string_view, std::string_view value) {
    auto record = decodeDirent(value);
    if (record && record->kind == DirentKind::Entry) found.push_back(std::move(*record));
    if (!record && tell == TellOthers::Yes)
      note_("inode " + std::to_string(dir.v) + ": a name cannot be read");
    return true;
  });
  return found;
}

std::vector<SalvagedExtent> SalvageSource::extents(InodeNo ino, TellOthers tell) const {
  std::vector<SalvagedExtent> found;
  keys_->scan(extentPrefix(ino), [&](std::string_view key, std::string_view value) {
    const auto parsed = parseKey(key);
    if (!parsed) return true;
    const FileOffset offset(parsed->number);
    const auto record = decodeExtent(ino, offset, value);
    const bool fits = record && record->blocks <= superblock_.blocks().v &&
                      offset.v <= uint64_t{INT64_MAX} - record->blocks * blockSize();
    if (fits) found.push_back({offset, *record});
    if (!fits && tell == TellOthers::Yes)
      note_("inode " + std::to_string(ino.v) + ": the extent at " + std::to_string(offset.v) +
            " cannot be read");
    return true;
  });
  return found;
}

std::vector<std::pair<std::string, std::string>> SalvageSource::attributes(InodeNo ino) const {
  std::vector<std::pair<std::string, std::string>> found;
  keys_->scan(xattrPrefix(ino), [&](std::string_view key, std::string_view value) {
    if (const auto parsed = parseKey(key)) found.emplace_back(parsed->name, value);
    return true;
  });
  return found;
}

std::vector<uint64_t> SalvageSource::allInodes() const {
  std::vector<uint64_t> all;
  for (const char* kind : {"I", "D", "E"}) {
    keys_->scan(kind, [&](std::string_view key, std::string_view) {
      const auto parsed = parseKey(key);
      if (parsed && (all.empty() || all.back() != parsed->ino.v)) all.push_back(parsed->ino.v);
      return true;
    });
  }
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

Status SalvageSource::read(uint64_t block, std::span<std::byte> into) {
  const uint64_t size = blockSize(), count = (into.size() + size - 1) / size;
  if (block < superblock_.dataStart.v / size || block >= superblock_.blocks().v ||
      count > superblock_.blocks().v - block)
    return Status::corrupt("blocks that lie outside of the data area");
  const auto behind = std::ranges::lower_bound(owned_, block + count, {},
                                               [](const BlockRun& run) { return run.start.v; });
  if (behind != owned_.begin() && (behind - 1)->start.v + (behind - 1)->count.v > block)
    return Status::corrupt("blocks that belong to the index");
  return device_.read(DeviceOffset(block * size), into, IoClass::Data);
}

}  // namespace ourfs
