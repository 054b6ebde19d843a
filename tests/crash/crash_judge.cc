// CrashModel: comparing what was recovered with what may be.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "crash/crash_model.h"
#include "fs/extents.h"

namespace ourfs::crash {

namespace {

char kindOf(uint32_t mode) { return S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : 'f'; }

Status readAttributes(Filesystem& filesystem, FoundNode& found) {
  if (!(found.record.flags & kInodeHasXattr)) return Status::ok();
  TRY_ASSIGN(std::string list, filesystem.listxattr(found.ino));
  for (size_t at = 0; at < list.size();) {
    std::string key = list.c_str() + at;
    TRY_ASSIGN(found.attributes[key], filesystem.getxattr(found.ino, key));
    at += key.size() + 1;
  }
  return Status::ok();
}

Status walkDirectory(Filesystem& filesystem, InodeNo dir, const std::string& prefix,
                     FoundTree& found) {
  TRY_ASSIGN(OpenFilePtr handle, filesystem.openDirectory(dir));
  std::vector<std::string> names;
  TRY(filesystem.readDirectory(*handle, 0, false, [&](const DirectoryEntry& entry) {
    if (entry.name != "." && entry.name != "..") names.emplace_back(entry.name);
    return true;
  }));
  filesystem.release(std::move(handle));
  for (const std::string& name : names) {
    TRY_ASSIGN(Attributes attributes, filesystem.lookup(dir, name));
    FoundNode& node = found[prefix + name];
    node.ino = attributes.ino;
    node.record = attributes.record;
    node.node.kind = kindOf(node.record.mode);
    node.node.permissions = node.record.mode & 07777;
    if (node.node.kind == 'l') {
      TRY_ASSIGN(node.node.target, filesystem.readlink(node.ino));
    }
    TRY(readAttributes(filesystem, node));
    if (node.node.kind == 'd') TRY(walkDirectory(filesystem, node.ino, prefix + name + "/", found));
  }
  return Status::ok();
}

bool sameNode(const FoundNode& found, const Node& node, const Tree& tree) {
  static const std::map<std::string, std::string> none;
  const auto attributes = tree.attributes.find(node.id);
  return found.node.kind == node.kind && found.node.target == node.target &&
         found.node.permissions == node.permissions &&
         found.attributes == (attributes == tree.attributes.end() ? none : attributes->second);
}

bool sameTimes(const FoundNode& found, const Times& times) {
  return found.record.mtime == times.mtime && found.record.ctime == times.ctime;
}

// The same names, and two of them lead to one inode where they should and only there. Directories
// change together with their names, so their times must be those of the same moment.
bool sameTree(const FoundTree& found, const Tree& tree) {
  if (found.size() != tree.nodes.size() + 1) return false;
  std::map<uint64_t, uint64_t> inodeOf, idOf;
  for (const auto& [path, node] : tree.nodes) {
    const auto other = found.find(path);
    if (other == found.end() || !sameNode(other->second, node, tree)) return false;
    const uint64_t ino = other->second.ino.v;
    if (inodeOf.try_emplace(node.id, ino).first->second != ino) return false;
    if (idOf.try_emplace(ino, node.id).first->second != node.id) return false;
    if (node.kind == 'd' && !sameTimes(other->second, tree.directoryTimes.at(node.id)))
      return false;
  }
  const auto root = tree.directoryTimes.find(kRootId);
  return root == tree.directoryTimes.end() || sameTimes(found.at(""), root->second);
}

std::string textOf(const std::map<std::string, std::string>& attributes) {
  std::string text;
  for (const auto& [name, value] : attributes)
    text += " " + name + ":" + std::to_string(value.size());
  return text;
}
std::string textOf(const Timestamp& t) {
  return std::to_string(t.sec) + "." + std::to_string(t.nsec);
}

// " path(kind, id or inode, names of attributes with their lengths)", for the message of a failure.
std::string listing(const FoundTree& found) {
  std::string text;
  for (const auto& [path, node] : found)
    text += " " + path + "(" + node.node.kind + " inode " + std::to_string(node.ino.v) +
            (node.node.kind == 'd' ? " m" + textOf(node.record.mtime) : "") +
            textOf(node.attributes) + ")";
  return text;
}
std::string listing(const Tree& tree) {
  std::string text;
  for (const auto& [path, node] : tree.nodes) {
    const auto times = tree.directoryTimes.find(node.id);
    const auto own = tree.attributes.find(node.id);
    text += " " + path + "(" + node.kind + " id " + std::to_string(node.id) +
            (times == tree.directoryTimes.end() ? "" : " m" + textOf(times->second.mtime)) +
            (own == tree.attributes.end() ? "" : textOf(own->second)) + ")";
  }
  return text;
}

uint64_t mixHash(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
  return hash ^ hash >> 29;
}
uint64_t hashOf(std::string_view bytes) { return std::hash<std::string_view>()(bytes); }

// All but the bytes of files. Neither times nor inode numbers count: they differ from run to run.
uint64_t hashOf(const FoundTree& found) {
  std::map<uint64_t, uint64_t> firstName;
  uint64_t hash = 0, number = 0;
  for (const auto& [path, node] : found) {
    hash = mixHash(hash, hashOf(path));
    hash = mixHash(hash, hashOf(node.node.target) ^ static_cast<uint64_t>(node.node.kind));
    hash = mixHash(hash, firstName.try_emplace(node.ino.v, ++number).first->second);
    hash = mixHash(hash, node.node.kind == 'f' ? node.record.size : 0);
    for (const auto& [name, value] : node.attributes)
      hash = mixHash(mixHash(hash, hashOf(name)), hashOf(value));
  }
  return hash;
}

Result<std::string> readAll(Filesystem& filesystem, InodeNo ino, uint64_t size) {
  TRY_ASSIGN(OpenFilePtr handle, filesystem.open(ino, O_RDONLY | O_NOATIME));
  std::string bytes(size, '\0');
  for (uint64_t at = 0; at < size;) {
    TRY_ASSIGN(const ByteCount done,
               filesystem.read(*handle, FileOffset(at),
                               std::as_writable_bytes(std::span(bytes)).subspan(at)));
    if (done.v == 0) return Status::error(EIO, "short read at " + std::to_string(at));
    at += done.v;
  }
  filesystem.release(std::move(handle));
  return bytes;
}

Status noteExtents(Filesystem& filesystem, const FoundNode& found, CrashModel::Verdict& verdict) {
  TRY_ASSIGN(const std::vector<Extent> extents, extentsOf(filesystem, found.ino));
  for (Extent extent : extents) {
    const uint64_t size = roundUp(found.record.size, kSector);
    if (extent.state != ExtentState::Mapped || extent.offset.v >= size) continue;
    extent.length = std::min(extent.length, ByteCount(size - extent.offset.v));
    verdict.shape = mixHash(mixHash(verdict.shape, extent.offset.v), extent.length.v);
    verdict.shape = mixHash(verdict.shape, extent.address.v);
    verdict.shown.push_back(extent);
  }
  verdict.shape = mixHash(verdict.shape, kNever);  // the end of a file
  return Status::ok();
}

}  // namespace

Status walkTree(Filesystem& filesystem, FoundTree& found) {
  TRY_ASSIGN(const Attributes root, filesystem.getattr(InodeNo(1)));
  FoundNode& node = found[""];
  node.ino = root.ino;
  node.record = root.record;
  node.node.kind = 'd';
  return walkDirectory(filesystem, root.ino, "", found);
}

std::string judgeLinks(const FoundTree& found) {
  std::map<uint64_t, uint64_t> links, directories;
  for (const auto& [path, node] : found) {
    ++links[node.ino.v];
    if (path.empty() || node.node.kind != 'd') continue;
    const size_t slash = path.rfind('/');
    ++directories[found.at(slash == std::string::npos ? "" : path.substr(0, slash)).ino.v];
  }
  for (const auto& [path, node] : found) {
    const uint64_t expected =
        node.node.kind == 'd' ? 2 + directories[node.ino.v] : links[node.ino.v];
    if (node.record.nlink != expected)
      return "\"" + path + "\" has " + std::to_string(node.record.nlink) + " links, and " +
             std::to_string(expected) + " lead to it";
  }
  return "";
}

struct CrashModel::Judged {
  const std::string& path;
  const FoundNode& found;
  uint64_t id;
  uint64_t point;
  const File* file;  // null: nothing is known but that it was made
  std::string bytes;
};

std::string CrashModel::historyOf(uint64_t id, uint64_t number, uint64_t point) const {
  std::multimap<uint64_t, std::string> lines;  // by the clock
  const uint64_t covered = coveredAt(id, point, false);
  auto text = [&](Span span) {
    return "[" + std::to_string(span.begin) + "," + std::to_string(span.end) + "]" +
           (span.end <= covered ? " covered" : "");
  };
  if (const auto found = files_.find(id); found != files_.end()) {
    const File& file = found->second;
    if (const auto events = file.sectors.find(number); events != file.sectors.end())
      for (const SectorEvent& event : events->second) {
        uint64_t head;
        std::memcpy(&head, event.bytes.data(), sizeof head);
        lines.emplace(event.span.begin, "sector=" + std::to_string(head) + text(event.span));
      }
    for (const SizeEvent& event : file.sizes)
      lines.emplace(event.span.begin, "size=" + std::to_string(event.size) + text(event.span));
    for (const TimeEvent& event : file.times)
      lines.emplace(event.span.begin, "mtime=" + textOf(event.times.mtime) +
                                          " ctime=" + textOf(event.times.ctime) + text(event.span));
  }
  for (const Sync& sync : syncs_)
    if (!sync.id || *sync.id == id)
      lines.emplace(sync.span.begin, std::string(sync.dataOnly ? "datasync" : "sync") + "[" +
                                         std::to_string(sync.span.begin) + "," +
                                         std::to_string(sync.span.end) + "]");
  std::string all = "\n  history (crash at " + std::to_string(point) + "):";
  for (const auto& [clock, line] : lines) all += "\n    " + line;
  return all;
}

std::string CrashModel::judgeSize(const Judged& judged) const {
  const uint64_t size = judged.found.record.size;
  const uint64_t covered = coveredAt(judged.id, judged.point, false);
  uint64_t smallest = 0, largest = 0;
  if (judged.file != nullptr) {
    for (const SizeEvent& event : judged.file->sizes) {
      if (event.span.begin >= judged.point) break;
      const bool certain = event.span.end <= covered;
      smallest = certain ? event.size : std::min(smallest, event.size);
      largest = certain ? event.size : std::max(largest, event.size);
    }
  }
  if (size >= smallest && size <= largest) return "";
  return judged.path + ": size " + std::to_string(size) + ", may be " + std::to_string(smallest) +
         " to " + std::to_string(largest) + historyOf(judged.id, size / kSector, judged.point);
}

std::string CrashModel::judgeSectors(const Judged& judged) const {
  static const Sector zeros{};
  const std::string& bytes = judged.bytes;
  const uint64_t covered = coveredAt(judged.id, judged.point, false);
  for (uint64_t number = 0; number * kSector < bytes.size(); ++number) {
    const uint64_t at = number * kSector;
    const size_t shown = std::min<uint64_t>(kSector, bytes.size() - at);
    auto is = [&](const Sector& value) {
      return std::memcmp(bytes.data() + at, value.data(), shown) == 0;
    };
    bool fits = is(zeros);
    size_t values = 1;
    if (judged.file != nullptr) {
      const auto events = judged.file->sectors.find(number);
      if (events != judged.file->sectors.end()) {
        for (const SectorEvent& event : events->second) {
          if (event.span.begin >= judged.point) break;
          const bool certain = event.span.end <= covered;
          fits = (fits && !certain) || is(event.bytes);
          values = certain ? 1 : values + 1;
        }
      }
    }
    if (fits) continue;
    const bool poison = bytes.find_first_of(static_cast<char>(kPoison), at) == at && shown > 1 &&
                        bytes[at + 1] == bytes[at];
    uint64_t head = 0;
    std::memcpy(&head, bytes.data() + at, std::min(shown, sizeof head));
    return judged.path + ": sector " + std::to_string(number) +
           (poison ? " shows free space (poison)" : " begins with " + std::to_string(head)) +
           " and is none of " + std::to_string(values) + " values that it may have" +
           historyOf(judged.id, number, judged.point);
  }
  return "";
}

// The last times that a full fsync covered, exactly, or any later ones. An operation may take its
// time in steps, so of one that nobody waited for any moment since its beginning will do.
std::string CrashModel::judgeTimes(const Judged& judged) const {
  if (judged.file == nullptr || judged.file->times.empty()) return "";
  const uint64_t covered = coveredAt(judged.id, judged.point, true);
  const InodeRecord& record = judged.found.record;
  bool fits = false, exact = false;
  auto within = [](const Timestamp& t, const Timestamp& from, const Timestamp& to) {
    return from <= t && t <= to;
  };
  const Times* before = nullptr;
  for (const TimeEvent& event : judged.file->times) {
    if (event.span.begin >= judged.point) break;
    const Times& times = event.times;
    const bool same = record.mtime == times.mtime && record.ctime == times.ctime;
    exact = event.span.end <= covered;
    // One of the two may be the one before: it takes two steps, or this operation sets one only.
    auto mayBe = [&](const Timestamp& t, const Timestamp& now, const Timestamp& old) {
      return t == now || t == old || within(t, event.from, now);
    };
    const bool close = before != nullptr && mayBe(record.mtime, times.mtime, before->mtime) &&
                       mayBe(record.ctime, times.ctime, before->ctime);
    fits = same || (!exact && (fits || close));
    before = &times;
  }
  if (fits) return "";
  return judged.path + ": mtime " + textOf(record.mtime) + " and ctime " + textOf(record.ctime) +
         " are none that it may have" + historyOf(judged.id, 0, judged.point);
}

std::string CrashModel::judgeFiles(Filesystem& filesystem, const FoundTree& found, const Tree& tree,
                                   uint64_t point, Verdict& verdict) const {
  Files files;
  for (const auto& [path, node] : tree.nodes) {
    if (node.kind != 'f') continue;
    const auto file = files_.find(node.id);
    Judged judged{
        path, found.at(path), node.id, point, file == files_.end() ? nullptr : &file->second, ""};
    if (std::string wrong = judgeSize(judged); !wrong.empty()) return wrong;
    auto bytes = readAll(filesystem, judged.found.ino, judged.found.record.size);
    if (!bytes) return path + ": read: " + bytes.status().message();
    judged.bytes = std::move(*bytes);
    verdict.content = mixHash(verdict.content, hashOf(judged.bytes));
    const Status placed = noteExtents(filesystem, judged.found, verdict);
    if (!placed.isOk()) return path + ": extents: " + placed.message();
    if (std::string wrong = judgeSectors(judged); !wrong.empty()) return wrong;
    if (std::string wrong = judgeTimes(judged); !wrong.empty()) return wrong;
    files[path] = std::move(judged.bytes);
  }
  return judgePromise(files, point);
}

CrashModel::Verdict CrashModel::judge(Filesystem& filesystem, uint64_t point) const {
  std::map<uint64_t, uint64_t> covered;
  size_t atLeast = 0, atMost = 0;
  for (size_t i = 1; i < snapshots_.size(); ++i) {
    const Snapshot& s = snapshots_[i];
    if (s.span.begin < point) atMost = i;
    for (uint64_t id : s.touched) {
      const auto at = covered.try_emplace(id, 0);
      if (at.second) at.first->second = coveredAt(id, point, false);
      if (s.span.end <= at.first->second) atLeast = i;
    }
  }
  Verdict verdict;
  FoundTree found;
  Status walked = walkTree(filesystem, found);
  if (!walked.isOk()) {
    verdict.wrong = "walking the tree: " + walked.message();
    return verdict;
  }
  verdict.wrong = judgeLinks(found);
  if (!verdict.wrong.empty()) return verdict;

  // Different prefixes may have the same names (a file replaced by another): one of them must fit.
  const uint64_t names = hashOf(found);
  for (size_t i = atMost + 1; i-- > atLeast;) {
    if (!sameTree(found, snapshots_[i].tree)) continue;
    verdict = {"", names, names, {}};
    verdict.wrong = judgeFiles(filesystem, found, snapshots_[i].tree, point, verdict);
    if (verdict.wrong.empty()) return verdict;
  }
  if (!verdict.wrong.empty()) return verdict;
  verdict.wrong = "the tree is none of those after operations " + std::to_string(atLeast) + " to " +
                  std::to_string(atMost) + ":" + listing(found);
  for (size_t i = atLeast; i <= atMost; ++i)
    verdict.wrong += "\n  after " + std::to_string(i) + ":" + listing(snapshots_[i].tree);
  return verdict;
}

}  // namespace ourfs::crash
