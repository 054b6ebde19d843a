// Inodes, orphans, names, attributes and the tree.
#include <dirent.h>
#include <sys/stat.h>

#include <cstring>
#include <unordered_set>

#include "check/checker.h"
#include "common/codec.h"

namespace ourfs {

namespace {

std::string inodeText(uint64_t ino) { return "inode " + std::to_string(ino); }
std::string quoted(const std::string& name) { return "\"" + name + "\""; }
constexpr uint64_t kRoot = 1;
constexpr uint64_t kSlotMask = 0xff;

}  // namespace

Status Checker::checkInodes() {
  TRY(scanPrefix('I', [&](const ParsedKey& key, std::string_view value) {
    auto record = decodeInode(key.ino, value);
    if (!record) {
      problem(inodeText(key.ino.v) + ": " + record.status().message(),
              [ino = key.ino](Transaction& t) { t.erase(inodeKey(ino)); });
      return;
    }
    ++report_.inodes;
    Node node;
    node.mode = record->mode;
    node.nlink = record->nlink;
    node.flags = record->flags;
    node.size = record->size;
    node.blocks = record->blocks;
    node.entries = record->entries;
    node.parent = record->parent;
    if (S_ISDIR(node.mode))
      ++report_.directories;
    else if (S_ISREG(node.mode))
      ++report_.files;
    else if (S_ISLNK(node.mode))
      ++report_.symlinks;
    else
      ++report_.others;
    if (S_ISLNK(node.mode) && (record->symlink.empty() || record->symlink.size() > 4095))
      problem(inodeText(key.ino.v) + ": a symbolic link without a valid target");
    if (node.size > uint64_t{1} << 63)
      problem(inodeText(key.ino.v) + ": size " + std::to_string(node.size) + " is out of range");
    nodes_.emplace(key.ino.v, node);
  }));
  auto root = nodes_.find(kRoot);
  if (root != nodes_.end() && root->second.isDirectory()) return Status::ok();
  problem("the root directory is missing", [](Transaction& t) {
    InodeRecord record;
    record.mode = S_IFDIR | 0755;
    record.nlink = 2;
    record.parent = kRoot;
    t.put(inodeKey(InodeNo(kRoot)), encodeInode(InodeNo(kRoot), record));
  });
  Node made;
  made.mode = S_IFDIR | 0755;
  made.nlink = 2;
  made.parent = kRoot;
  nodes_[kRoot] = made;
  return Status::ok();
}

Status Checker::checkOrphans() {
  return scanPrefix('O', [&](const ParsedKey& key, std::string_view) {
    ++report_.orphans;
    auto node = nodes_.find(key.ino.v);
    auto forgetIt = [ino = key.ino](Transaction& t) { t.erase(orphanKey(ino)); };
    if (node == nodes_.end())
      problem("orphan list: " + inodeText(key.ino.v) + " does not exist", forgetIt);
    else if (node->second.nlink != 0)
      problem("orphan list: " + inodeText(key.ino.v) + " still has names", forgetIt);
    else
      node->second.orphan = true;
  });
}

void Checker::checkName(InodeNo dir, uint64_t cookie, const DirentRecord& record) {
  std::string where = inodeText(dir.v) + ": name " + quoted(record.name);
  auto removeIt = [dir, cookie, more = record.more](Transaction& t) {
    DirentRecord vacated;
    vacated.kind = DirentKind::Vacated;
    vacated.more = more;
    if (more)
      t.put(direntKey(dir, cookie), encodeDirent(vacated));
    else
      t.erase(direntKey(dir, cookie));
  };
  if (record.name.empty() || record.name.size() > 255 ||
      record.name.find('/') != std::string::npos || record.name.find('\0') != std::string::npos ||
      record.name == "." || record.name == "..") {
    problem(where + " is not a valid name", removeIt);
    return;
  }
  if (nameCookie(record.name, volume_.superblock().nameKey) != (cookie & ~kSlotMask)) {
    problem(where + " lies under the hash of another name", removeIt);
    return;
  }
  auto target = nodes_.find(record.ino);
  if (target == nodes_.end()) {
    problem(where + " leads to " + inodeText(record.ino) + ", which does not exist", removeIt);
    return;
  }
  Node& node = target->second;
  if (node.isDirectory() && (node.names > 0 || record.ino == kRoot)) {
    problem(where + " is a second name of a directory", removeIt);
    return;
  }
  ++report_.names;
  ++node.names;
  Node& parent = nodes_[dir.v];
  ++parent.foundEntries;
  if (node.isDirectory()) {
    ++parent.subdirectories;
    node.namedBy = dir.v;
  }
  if (record.type != IFTODT(node.mode)) {
    DirentRecord right = record;
    right.type = static_cast<uint8_t>(IFTODT(node.mode));
    problem(where + " has the wrong type", [dir, cookie, right](Transaction& t) {
      t.put(direntKey(dir, cookie), encodeDirent(right));
    });
  }
}

void Checker::checkBucket(InodeNo dir,
                          const std::vector<std::pair<uint64_t, DirentRecord>>& slots) {
  bool broken = false;
  for (size_t i = 0; i < slots.size(); ++i) {
    const auto& [cookie, record] = slots[i];
    bool last = i + 1 == slots.size();
    if ((cookie & kSlotMask) != i || record.more == last) broken = true;
    if (last && record.kind == DirentKind::Vacated) broken = true;
    for (size_t j = 0; j < i; ++j) {
      if (record.kind == DirentKind::Entry && slots[j].second.kind == DirentKind::Entry &&
          slots[j].second.name == record.name)
        problem(inodeText(dir.v) + ": name " + quoted(record.name) + " appears twice");
    }
  }
  for (const auto& [cookie, record] : slots) {
    if (record.kind == DirentKind::Entry) checkName(dir, cookie, record);
  }
  if (!broken) return;
  problem(inodeText(dir.v) + ": a chain of names with one hash has a gap",
          [this, dir, slots](Transaction& t) {
            std::vector<DirentRecord> kept;
            for (const auto& [cookie, record] : slots) {
              t.erase(direntKey(dir, cookie));
              if (record.kind == DirentKind::Entry && nodes_.count(record.ino))
                kept.push_back(record);
            }
            uint64_t base = slots.front().first & ~kSlotMask;
            for (size_t i = 0; i < kept.size(); ++i) {
              kept[i].more = i + 1 < kept.size();
              t.put(direntKey(dir, base | i), encodeDirent(kept[i]));
            }
          });
}

Status Checker::checkNames() {
  std::vector<std::pair<uint64_t, DirentRecord>> bucket;
  InodeNo bucketDir;
  auto finish = [&] {
    if (!bucket.empty()) checkBucket(bucketDir, bucket);
    bucket.clear();
  };
  TRY(scanPrefix('D', [&](const ParsedKey& key, std::string_view value) {
    auto eraseIt = [dir = key.ino, cookie = key.number](Transaction& t) {
      t.erase(direntKey(dir, cookie));
    };
    auto record = decodeDirent(value);
    if (!record) {
      problem(inodeText(key.ino.v) + ": a name cannot be read: " + record.status().message(),
              eraseIt);
      return;
    }
    auto dir = nodes_.find(key.ino.v);
    if (dir == nodes_.end() || !dir->second.isDirectory()) {
      problem("name " + quoted(record->name) + " belongs to " + inodeText(key.ino.v) +
                  ", which is no directory",
              eraseIt);
      return;
    }
    if (!bucket.empty() &&
        (bucketDir != key.ino || (bucket.front().first & ~kSlotMask) != (key.number & ~kSlotMask)))
      finish();
    bucketDir = key.ino;
    bucket.emplace_back(key.number, std::move(*record));
  }));
  finish();
  return Status::ok();
}

Status Checker::checkAttributes() {
  TRY(scanPrefix('X', [&](const ParsedKey& key, std::string_view) {
    ++report_.attributes;
    auto node = nodes_.find(key.ino.v);
    if (node == nodes_.end()) {
      problem("extended attribute " + quoted(key.name) + " of " + inodeText(key.ino.v) +
                  ", which does not exist",
              [ino = key.ino, name = key.name](Transaction& t) { t.erase(xattrKey(ino, name)); });
      return;
    }
    node->second.hasXattr = true;
  }));
  for (auto& [ino, node] : nodes_) {
    if (node.hasXattr && !(node.flags & kInodeHasXattr))
      problem(inodeText(ino) + ": has attributes, but its flags say none",
              [this, i = ino](Transaction& t) {
                rewrite(
                    i, [](InodeRecord& r) { r.flags |= kInodeHasXattr; }, t);
              });
  }
  return Status::ok();
}

Status Checker::checkTree() {
  // Every directory must lead to the root through the directories that name it.
  std::unordered_set<uint64_t> good{kRoot};
  std::vector<uint64_t> lost;
  for (auto& [ino, node] : nodes_) {
    if (!node.isDirectory() || node.orphan) continue;
    std::vector<uint64_t> path;
    std::unordered_set<uint64_t> onPath;
    uint64_t at = ino;
    while (at != 0 && !good.count(at) && onPath.insert(at).second) {
      path.push_back(at);
      auto step = nodes_.find(at);
      at = step == nodes_.end() ? 0 : step->second.namedBy;
    }
    if (good.count(at))
      good.insert(path.begin(), path.end());
    else if (node.namedBy == 0 || onPath.count(at))
      lost.push_back(ino);
  }
  for (auto& [ino, node] : nodes_) {
    if (!node.isDirectory() && !node.orphan && node.names == 0) lost.push_back(ino);
  }
  for (uint64_t ino : lost) {
    const Node& node = nodes_[ino];
    if (node.isDirectory() && node.namedBy != 0) {
      problem(inodeText(ino) + ": a directory in a circle that the root does not reach");
    } else if (node.nlink == 0 && !node.isDirectory()) {
      problem(inodeText(ino) + ": unlinked, but not on the orphan list",
              [i = ino](Transaction& t) { t.put(orphanKey(InodeNo(i)), ""); });
      nodes_[ino].orphan = true;
    } else {
      problem(inodeText(ino) + ": lost: no name leads to it");
      if (mend_) TRY(reconnect(ino));
    }
  }
  return Status::ok();
}

Status Checker::checkCounts() {
  for (auto& [ino, node] : nodes_) {
    if (node.orphan) continue;
    uint64_t links = node.isDirectory() ? 2 + node.subdirectories : node.names;
    if (node.nlink != links)
      problem(inodeText(ino) + ": link count is " + std::to_string(node.nlink) + ", should be " +
                  std::to_string(links),
              [this, i = ino, links](Transaction& t) {
                rewrite(
                    i, [links](InodeRecord& r) { r.nlink = static_cast<uint32_t>(links); }, t);
              });
    if (node.isDirectory() && node.entries != node.foundEntries)
      problem(inodeText(ino) + ": counts " + std::to_string(node.entries) + " names, has " +
                  std::to_string(node.foundEntries),
              [this, i = ino, n = node.foundEntries](Transaction& t) {
                rewrite(
                    i, [n](InodeRecord& r) { r.entries = n; }, t);
              });
    uint64_t parent = ino == kRoot ? kRoot : node.namedBy;
    if (node.isDirectory() && node.parent != parent && parent != 0)
      problem(inodeText(ino) + ": its parent is " + std::to_string(node.parent) + ", should be " +
                  std::to_string(parent),
              [this, i = ino, parent](Transaction& t) {
                rewrite(
                    i, [parent](InodeRecord& r) { r.parent = parent; }, t);
              });
    if (node.blocks != node.foundBlocks)
      problem(inodeText(ino) + ": says " + std::to_string(node.blocks) +
                  " bytes allocated, extents have " + std::to_string(node.foundBlocks),
              [this, i = ino, n = node.foundBlocks](Transaction& t) {
                rewrite(
                    i, [n](InodeRecord& r) { r.blocks = n; }, t);
              });
  }
  return Status::ok();
}

Status Checker::checkSettings() {
  uint64_t highest = kRoot;
  for (const auto& [ino, node] : nodes_) highest = std::max(highest, ino);
  auto stored = volume_.index().get(settingKey("next_inode"));
  TRY(stored);
  uint64_t next = 0;
  if (*stored && (*stored)->size() == 8) std::memcpy(&next, (*stored)->data(), 8);
  if (next <= highest && highest > kRoot)
    problem("the next inode number (" + std::to_string(next) + ") is in use already",
            [highest](Transaction& t) {
              std::string value;
              Encoder(value).u64(highest + 1);
              t.put(settingKey("next_inode"), value);
            });
  return Status::ok();
}

}  // namespace ourfs
