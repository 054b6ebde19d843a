#include "faults/fault_model.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "fs/extents.h"

namespace ourfs::faults {

namespace {

uint64_t wordOf(InodeNo ino, uint64_t number, uint32_t version) {
  return ino.v << 48 | number << 24 | version;
}

std::string sectorText(InodeNo ino, uint64_t number) {
  return "inode " + std::to_string(ino.v) + ", sector " + std::to_string(number);
}

// Where a byte of a file lies on the device, if anywhere.
std::optional<DeviceOffset> addressOf(const std::vector<Extent>& extents, FileOffset at) {
  for (const Extent& e : extents) {
    if (at < e.offset || at >= e.end() || e.state == ExtentState::Delalloc) continue;
    return e.address + (at - e.offset);
  }
  return std::nullopt;
}

// All names below a directory.
Status collectTree(Filesystem& filesystem, InodeNo directory, const std::string& prefix,
                   Tree& found) {
  TRY_ASSIGN(OpenFilePtr handle, filesystem.openDirectory(directory));
  Tree here;
  const Status listed =
      filesystem.readDirectory(*handle, 0, false, [&](const DirectoryEntry& entry) {
        if (entry.name == "." || entry.name == "..") return true;
        here[prefix + std::string(entry.name)] = {entry.ino, entry.type == DT_DIR ? 'd' : 'f'};
        return true;
      });
  filesystem.release(std::move(handle));
  TRY(listed);
  for (const auto& [path, node] : here) {
    TRY(filesystem.getattr(node.ino).status());
    if (node.kind == 'd') TRY(collectTree(filesystem, node.ino, path + "/", found));
    found[path] = node;
  }
  return Status::ok();
}

std::string differenceOf(const Tree& found, const Tree& expected) {
  for (const auto& [path, node] : expected) {
    const auto at = found.find(path);
    if (at == found.end()) return path + " is missing";
    if (!(at->second == node)) return path + " is another file";
  }
  for (const auto& [path, node] : found) {
    if (!expected.count(path)) return path + " should not be there";
  }
  return "";
}

}  // namespace

void stampSector(std::span<std::byte> sector, InodeNo ino, uint64_t number, uint32_t version) {
  const uint64_t word = version == 0 ? 0 : wordOf(ino, number, version);
  for (size_t i = 0; i < sector.size(); i += sizeof(word)) {
    std::memcpy(sector.data() + i, &word, sizeof(word));
  }
}

std::optional<uint32_t> versionIn(std::span<const std::byte> sector, InodeNo ino, uint64_t number) {
  uint64_t word = 0;
  std::memcpy(&word, sector.data(), sizeof(word));
  const auto version = static_cast<uint32_t>(word & 0xffffff);
  std::vector<std::byte> expected(sector.size());
  stampSector(expected, ino, number, version);
  if (!std::equal(sector.begin(), sector.end(), expected.begin())) return std::nullopt;
  return version;
}

void FaultModel::changed(Tree tree, std::vector<InodeNo> touched) {
  snapshots_.push_back({std::move(tree), ++clock_, std::move(touched)});
}

void FaultModel::wrote(InodeNo ino, uint64_t first, uint64_t count, uint32_t version, bool done) {
  ++clock_;
  for (uint64_t s = first; s < first + count; ++s) {
    sectors_[ino][s].push_back({clock_, version, done});
  }
}

void FaultModel::resized(InodeNo ino, uint64_t size, bool done) {
  sizes_[ino].push_back({++clock_, size, done});
}

uint64_t FaultModel::sizeOf(InodeNo ino) const {
  const auto at = sizes_.find(ino);
  if (at == sizes_.end()) return 0;
  for (auto change = at->second.rbegin(); change != at->second.rend(); ++change) {
    if (change->done) return change->value;
  }
  return 0;
}

void FaultModel::synced(InodeNo ino, Time since) { syncs_.push_back({ino, since, ++clock_}); }

bool FaultModel::covered(InodeNo ino, Time at) const {
  return std::any_of(syncs_.begin(), syncs_.end(), [&](const Sync& sync) {
    return (sync.ino.v == 0 || sync.ino == ino) && sync.since < at && at <= sync.at;
  });
}

// An error of data says nothing about names: these are in the log, and a log that failed answers no
// sync any more.
bool FaultModel::nameCovered(const Snapshot& snapshot) const {
  return std::any_of(syncs_.begin(), syncs_.end(), [&](const Sync& sync) {
    const bool concerns = sync.ino.v == 0 || std::count(snapshot.touched.begin(),
                                                        snapshot.touched.end(), sync.ino) != 0;
    return concerns && snapshot.at <= sync.at;
  });
}

std::vector<uint64_t> FaultModel::allowed(InodeNo ino, const History& history,
                                          const Lenience& lenience, bool latest) const {
  size_t from = 0;
  bool any = false;
  for (size_t i = 0; i < history.size(); ++i) {
    const bool counts = latest ? history[i].done : covered(ino, history[i].at) && history[i].done;
    if (counts) from = i, any = true;
  }
  if (lenience.olderState) from = 0, any = false;
  std::vector<uint64_t> values;
  if (!any) values.push_back(0);
  for (size_t i = from; i < history.size(); ++i) values.push_back(history[i].value);
  return values;
}

std::string FaultModel::judgeSize(InodeNo ino, uint64_t size, const Lenience& lenience,
                                  bool latest) const {
  const auto at = sizes_.find(ino);
  const std::vector<uint64_t> sizes =
      allowed(ino, at == sizes_.end() ? History() : at->second, lenience, latest);
  // A file may have grown in several steps.
  const auto [least, most] = std::minmax_element(sizes.begin(), sizes.end());
  if (*least <= size && size <= *most) return "";
  return "inode " + std::to_string(ino.v) + " has " + std::to_string(size) + " bytes, not " +
         std::to_string(*least) + " to " + std::to_string(*most);
}

Result<std::string> FaultModel::judgeFile(Filesystem& filesystem, InodeNo ino,
                                          const Lenience& lenience, bool latest) const {
  TRY_ASSIGN(const Attributes attributes, filesystem.getattr(ino));
  const uint64_t size = attributes.record.size;
  if (std::string wrong = judgeSize(ino, size, lenience, latest); !wrong.empty()) return wrong;
  TRY_ASSIGN(OpenFilePtr handle, filesystem.open(ino, O_RDONLY));
  std::vector<std::byte> bytes(roundUp(size, kSectorBytes));
  // What fails further on is told to who asks for it.
  Status failed;
  for (uint64_t at = 0; at < size && failed.isOk();) {
    const auto got =
        filesystem.read(*handle, FileOffset(at), std::span(bytes).subspan(at, size - at));
    if (got && got->v == 0) failed = Status::corrupt("a read ends before the file does");
    if (!got) failed = got.status();
    at += got ? got->v : 0;
  }
  filesystem.release(std::move(handle));
  TRY(failed);
  const auto history = sectors_.find(ino);
  TRY_ASSIGN(const auto extents, extentsOf(filesystem, ino));
  for (uint64_t s = 0; s * kSectorBytes < size; ++s) {
    const auto address = addressOf(extents, FileOffset(s * kSectorBytes));
    if (address && lenience.anything && lenience.anything(*address)) continue;
    const auto value = versionIn(std::span(bytes).subspan(s * kSectorBytes, kSectorBytes), ino, s);
    if (!value) return sectorText(ino, s) + " holds what nobody wrote there";
    const bool known = history != sectors_.end() && history->second.count(s) != 0;
    const std::vector<uint64_t> values =
        known ? allowed(ino, history->second.at(s), lenience, latest) : std::vector<uint64_t>{0};
    if (std::count(values.begin(), values.end(), *value) != 0) continue;
    std::string text = sectorText(ino, s) + " holds version " + std::to_string(*value) + ", not";
    for (uint64_t each : values) text += " " + std::to_string(each);
    return text;
  }
  return std::string();
}

Result<std::string> FaultModel::judge(Filesystem& filesystem, const Lenience& lenience) const {
  Tree found;
  TRY(collectTree(filesystem, InodeNo(1), "", found));
  size_t least = 0;
  for (size_t i = 0; i < snapshots_.size(); ++i) {
    if (nameCovered(snapshots_[i])) least = i;
  }
  if (lenience.olderState) least = 0;
  const auto fits = [&](const Snapshot& snapshot) { return snapshot.tree == found; };
  if (std::none_of(snapshots_.begin() + static_cast<ptrdiff_t>(least), snapshots_.end(), fits)) {
    return "names: " + differenceOf(found, snapshots_.back().tree) + ", and no state since " +
           std::to_string(least) + " of " + std::to_string(snapshots_.size() - 1) + " is like this";
  }
  for (const auto& [path, node] : found) {
    if (node.kind != 'f') continue;
    TRY_ASSIGN(const std::string wrong, judgeFile(filesystem, node.ino, lenience));
    if (!wrong.empty()) return path + ": " + wrong;
  }
  return std::string();
}

}  // namespace ourfs::faults
