#include "crash/crash_model.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <cstring>
#include <functional>

namespace ourfs::crash {

namespace {

struct SectorHead {
  uint64_t file, version, number, mark;
};
constexpr uint64_t kMark = 0x5eC70Bedu;

}  // namespace

void fillSector(std::span<std::byte> sector, Stamp stamp, uint64_t number) {
  std::memset(sector.data(), 0, kSector);
  if (stamp == Stamp{}) return;
  for (uint64_t at = 0; at < kSector; at += sizeof(SectorHead)) {
    SectorHead head{stamp.file, stamp.version, number, kMark + at};
    std::memcpy(sector.data() + at, &head, sizeof head);
  }
}

std::optional<Stamp> readSector(std::span<const std::byte> sector, uint64_t number) {
  SectorHead head;
  std::memcpy(&head, sector.data(), sizeof head);
  Stamp stamp{head.file, head.version};
  std::byte expected[kSector];
  fillSector(expected, stamp, number);
  if (std::memcmp(expected, sector.data(), kSector) != 0) return std::nullopt;
  return stamp;
}

CrashModel::CrashModel() { snapshots_.push_back({now_, {0, 0}, {}}); }

void CrashModel::changed(Span span, const std::vector<uint64_t>& touched) {
  snapshots_.push_back({now_, span, touched});
}

void CrashModel::wrote(uint64_t file, uint64_t sector, Stamp value, Span span) {
  sectors_[file][sector].push_back({value, span});
}

void CrashModel::resized(uint64_t file, uint64_t size, Span span) {
  sizes_[file].push_back({size, span});
}

uint64_t CrashModel::sizeOf(uint64_t file) const {
  auto found = sizes_.find(file);
  return found == sizes_.end() ? 0 : found->second.back().size;
}

void CrashModel::synced(std::optional<uint64_t> id, Span span) { syncs_.push_back({id, span}); }

std::string CrashModel::historyOf(uint64_t file, uint64_t number, uint64_t point) const {
  std::map<uint64_t, std::string> lines;  // by the clock
  auto text = [&](Span span) {
    return "[" + std::to_string(span.begin) + "," + std::to_string(span.end) + "]" +
           (covered(file, span, point) ? " covered" : "");
  };
  if (auto found = sectors_.find(file); found != sectors_.end()) {
    if (auto events = found->second.find(number); events != found->second.end())
      for (const Event& event : events->second)
        lines[event.span.begin] +=
            " sector=v" + std::to_string(event.value.version) + text(event.span);
  }
  if (auto found = sizes_.find(file); found != sizes_.end()) {
    for (const SizeEvent& event : found->second)
      lines[event.span.begin] += " size=" + std::to_string(event.size) + text(event.span);
  }
  for (const Sync& sync : syncs_) {
    if (!sync.id || *sync.id == file)
      lines[sync.span.begin] +=
          " sync[" + std::to_string(sync.span.begin) + "," + std::to_string(sync.span.end) + "]";
  }
  std::string all = "\n  history (crash at " + std::to_string(point) + "):";
  for (auto& [clock, line] : lines) all += "\n   " + line;
  return all;
}

bool CrashModel::covered(uint64_t file, Span event, uint64_t point) const {
  for (const Sync& sync : syncs_) {
    if (sync.id && *sync.id != file) continue;
    if (event.end <= sync.span.begin && sync.span.end <= point) return true;
  }
  return false;
}

namespace {

Status walk(Filesystem& filesystem, InodeNo dir, const std::string& prefix, Found& found) {
  TRY_ASSIGN(OpenFilePtr handle, filesystem.openDirectory(dir));
  std::vector<std::pair<std::string, uint8_t>> names;
  TRY(filesystem.readDirectory(*handle, 0, false, [&](const DirectoryEntry& entry) {
    if (entry.name != "." && entry.name != "..") names.emplace_back(entry.name, entry.type);
    return true;
  }));
  filesystem.release(std::move(handle));
  for (auto& [name, type] : names) {
    TRY_ASSIGN(Attributes attributes, filesystem.lookup(dir, name));
    std::string path = prefix + name;
    Node node;
    node.kind = S_ISDIR(attributes.record.mode) ? 'd' : S_ISLNK(attributes.record.mode) ? 'l' : 'f';
    if (node.kind == 'l') {
      TRY_ASSIGN(node.target, filesystem.readlink(attributes.ino));
    }
    found.nodes[path] = node;
    found.inodes[path] = attributes.ino;
    TRY_ASSIGN(std::string list, filesystem.listxattr(attributes.ino));
    for (size_t at = 0; at < list.size();) {
      std::string key = list.c_str() + at;
      TRY_ASSIGN(found.attributes[path][key], filesystem.getxattr(attributes.ino, key));
      at += key.size() + 1;
    }
    if (node.kind == 'd') TRY(walk(filesystem, attributes.ino, path + "/", found));
  }
  return Status::ok();
}

bool sameTree(const Found& found, const Tree& tree) {
  if (found.nodes.size() != tree.nodes.size()) return false;
  for (auto& [path, node] : tree.nodes) {
    auto other = found.nodes.find(path);
    if (other == found.nodes.end() || other->second.kind != node.kind ||
        other->second.target != node.target)
      return false;
    static const std::map<std::string, std::string> none;
    auto expected = tree.attributes.find(node.id);
    auto actual = found.attributes.find(path);
    if ((expected == tree.attributes.end() ? none : expected->second) !=
        (actual == found.attributes.end() ? none : actual->second))
      return false;
  }
  return true;
}

// " path(kind, names of attributes with their lengths)", for the message of a failure.
template <class Key>
std::string listing(const std::map<std::string, Node>& nodes,
                    const std::map<Key, std::map<std::string, std::string>>& attributes,
                    Key (*keyOf)(const std::string& path, const Node& node)) {
  std::string text;
  for (auto& [path, node] : nodes) {
    text += " " + path + "(" + node.kind;
    if (auto own = attributes.find(keyOf(path, node)); own != attributes.end())
      for (auto& [name, value] : own->second)
        text += " " + name + ":" + std::to_string(value.size());
    text += ")";
  }
  return text;
}
std::string listing(const Found& found) {
  return listing<std::string>(found.nodes, found.attributes,
                              [](const std::string& path, const Node&) { return path; });
}
std::string listing(const Tree& tree) {
  return listing<uint64_t>(tree.nodes, tree.attributes,
                           [](const std::string&, const Node& node) { return node.id; });
}

}  // namespace

std::string CrashModel::judgeFile(Filesystem& filesystem, InodeNo ino, uint64_t file,
                                  const std::string& path, uint64_t point) const {
  auto attributes = filesystem.getattr(ino);
  if (!attributes) return path + ": getattr: " + attributes.status().message();
  uint64_t size = attributes->record.size;

  uint64_t smallest = 0, largest = 0;
  auto history = sizes_.find(file);
  if (history != sizes_.end()) {
    for (const SizeEvent& event : history->second) {
      if (event.span.begin >= point) break;
      if (covered(file, event.span, point)) {
        smallest = largest = event.size;
      } else {
        smallest = std::min(smallest, event.size);
        largest = std::max(largest, event.size);
      }
    }
  }
  if (size < smallest || size > largest)
    return path + ": size " + std::to_string(size) + ", may be " + std::to_string(smallest) +
           " to " + std::to_string(largest) + historyOf(file, size / kSector, point) +
           historyOf(file, 0, point);

  auto handle = filesystem.open(ino, O_RDONLY);
  if (!handle) return path + ": open: " + handle.status().message();
  std::vector<std::byte> bytes(roundUp(size, kSector));
  for (uint64_t at = 0; at < size;) {
    auto done = filesystem.read(**handle, FileOffset(at), std::span(bytes).subspan(at, size - at));
    if (!done) return path + ": read at " + std::to_string(at) + ": " + done.status().message();
    if (done->v == 0) return path + ": short read at " + std::to_string(at);
    at += done->v;
  }
  filesystem.release(std::move(*handle));
  contentHash ^= crc32c(std::span(bytes)) + 0x9e3779b97f4a7c15ull * (ino.v + size);

  static const std::map<uint64_t, std::vector<Event>> none;
  auto written = sectors_.find(file);
  const auto& sectors = written == sectors_.end() ? none : written->second;
  for (uint64_t number = 0; number * kSector < size; ++number) {
    auto sector = std::span(bytes).subspan(number * kSector, kSector);
    auto value = readSector(sector, number);
    std::string where = path + ": sector " + std::to_string(number);
    if (!value) {
      bool poison = sector[0] == kPoison;
      return where +
             (poison ? " shows free space (poison)" : " holds bytes that nobody wrote there") +
             historyOf(file, number, point);
    }
    std::vector<Stamp> allowed{Stamp{}};
    auto events = sectors.find(number);
    if (events != sectors.end()) {
      for (const Event& event : events->second) {
        if (event.span.begin >= point) break;
        if (covered(file, event.span, point)) allowed.clear();
        allowed.push_back(event.value);
      }
    }
    if (std::find(allowed.begin(), allowed.end(), *value) == allowed.end())
      return where + " holds version " + std::to_string(value->version) + " of file " +
             std::to_string(value->file) + ", allowed for file " + std::to_string(file) + ": " +
             std::to_string(allowed.size()) + " values, the oldest version " +
             std::to_string(allowed.front().version) + historyOf(file, number, point);
  }
  return "";
}

std::string CrashModel::judgeFiles(Filesystem& filesystem, const Found& found, const Tree& tree,
                                   uint64_t point) const {
  contentHash = 0;
  for (auto& [path, node] : tree.nodes) {
    if (node.kind != 'f') continue;
    std::string wrong = judgeFile(filesystem, found.inodes.at(path), node.id, path, point);
    if (!wrong.empty()) return wrong;
  }
  return "";
}

std::string CrashModel::judge(Filesystem& filesystem, uint64_t point) const {
  size_t atLeast = 0, atMost = 0;
  for (size_t i = 1; i < snapshots_.size(); ++i) {
    const Snapshot& s = snapshots_[i];
    if (s.span.begin < point) atMost = i;
    for (uint64_t id : s.touched) {
      if (covered(id, s.span, point)) atLeast = i;
    }
  }
  Found found;
  Status walked = walk(filesystem, InodeNo(1), "", found);
  if (!walked.isOk()) return "walking the tree: " + walked.message();

  // Different prefixes may have the same names (a file replaced by another): one of them must fit.
  std::string wrong = "the tree is none of those after operations " + std::to_string(atLeast) +
                      " to " + std::to_string(atMost) + ":" + listing(found);
  for (size_t i = atLeast; i <= atMost; ++i)
    wrong += "\n  after " + std::to_string(i) + ":" + listing(snapshots_[i].tree);
  for (size_t i = atMost + 1; i-- > atLeast;) {
    if (!sameTree(found, snapshots_[i].tree)) continue;
    wrong = judgeFiles(filesystem, found, snapshots_[i].tree, point);
    contentHash ^= i * 0x100000001b3ull;
    if (wrong.empty()) break;
  }
  return wrong;
}

}  // namespace ourfs::crash
