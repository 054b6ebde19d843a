// Inodes by themselves, orphans, counts and settings.
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "check/checker.h"
#include "clock.h"
#include "volume_settings.h"
#include "xattr.h"

namespace ourfs {

namespace {

bool isKnownType(uint32_t mode) {
  return S_ISDIR(mode) || S_ISREG(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) ||
         S_ISFIFO(mode) || S_ISSOCK(mode);
}

InodeRecord newRecord(uint32_t mode) {
  InodeRecord record;
  record.mode = mode;
  record.nlink = S_ISDIR(mode) ? 2 : 1;
  record.parent = S_ISDIR(mode) ? kRootInode.v : 0;
  record.atime = record.mtime = record.ctime = record.btime = wallClock();
  return record;
}

}  // namespace

bool Checker::Node::isDirectory() const { return S_ISDIR(mode); }
bool Checker::Node::isRegular() const { return S_ISREG(mode); }

Status Checker::checkInodes() {
  std::vector<std::pair<uint64_t, std::string>> unreadable;
  TRY(scanPrefix('I', [&](const ParsedKey& key, std::string_view value) {
    if (auto record = decodeInode(key.ino, value); record.isOk()) {
      checkInode(key.ino, *record);
    } else {
      unreadable.emplace_back(key.ino.v, record.status().message());
    }
  }));
  for (const auto& [ino, why] : unreadable) TRY(rebuildInode(ino, why));
  checkRoot();
  return Status::ok();
}

void Checker::checkInode(InodeNo ino, const InodeRecord& record) {
  Node node;
  node.mode = record.mode;
  node.nlink = record.nlink;
  node.flags = record.flags;
  node.size = record.size;
  node.blocks = record.blocks;
  node.entries = record.entries;
  node.parent = record.parent;
  ++report_.inodes;
  if (ino.v >= kMaxInodeNumber) {
    problem(inodeText(ino.v) + ": no inode can have that number",
            [ino](Transaction& t) { t.erase(inodeKey(ino)); });
    return;
  }
  if (!isKnownType(node.mode)) {
    node.mode = S_IFREG | (node.mode & 07777);
    problem(inodeText(ino.v) + ": its type is unknown",
            [this, ino, mode = node.mode](Transaction& t) {
              rewrite(
                  ino.v, [mode](InodeRecord& r) { r.mode = mode; }, t);
            });
  }
  if (S_ISLNK(node.mode) && (record.symlink.empty() || record.symlink.front() == '\0')) {
    problem(inodeText(ino.v) + ": a symbolic link without a target",
            [ino](Transaction& t) { t.erase(inodeKey(ino)); });
    return;
  }
  checkFields(ino, node.mode, record);
  if (node.isDirectory())
    ++report_.directories;
  else if (node.isRegular())
    ++report_.files;
  else if (S_ISLNK(node.mode))
    ++report_.symlinks;
  else
    ++report_.others;
  nodes_.emplace(ino.v, node);
}

// What a record must not say of an inode of its type.
void Checker::checkFields(InodeNo ino, uint32_t mode, const InodeRecord& r) {
  const auto wrong = [&](const std::string& what, void (*mend)(InodeRecord&)) {
    problem(inodeText(ino.v) + ": " + what,
            [this, ino, mend](Transaction& t) { rewrite(ino.v, mend, t); });
  };
  const bool isLink = S_ISLNK(mode), isDevice = S_ISCHR(mode) || S_ISBLK(mode);
  if (r.flags & ~kXattrFlags)
    wrong("unknown flags", [](InodeRecord& i) { i.flags &= kXattrFlags; });
  if (!isDevice && r.rdev != 0)
    wrong("a device number, but it is no device", [](InodeRecord& i) { i.rdev = 0; });
  if (!isLink && !r.symlink.empty())
    wrong("a target, but it is no symbolic link", [](InodeRecord& i) { i.symlink.clear(); });
  if (!isLink && !S_ISREG(mode) && r.size != 0)
    wrong("a size, but it is neither a file nor a link", [](InodeRecord& i) { i.size = 0; });
  if (!S_ISDIR(mode) && (r.entries != 0 || r.parent != 0))
    wrong("names or a parent, but it is no directory",
          [](InodeRecord& i) { i.entries = i.parent = 0; });
  if (!isLink) return;
  if (const size_t length = r.symlink.find('\0'); length != std::string::npos) {
    wrong("the target of a symbolic link has a NUL", [](InodeRecord& i) {
      i.symlink.resize(i.symlink.find('\0'));
      i.size = i.symlink.size();
    });
  } else if (r.size != r.symlink.size()) {
    wrong("a symbolic link of size " + std::to_string(r.size) + " with a target of " +
              std::to_string(r.symlink.size()) + " bytes",
          [](InodeRecord& i) { i.size = i.symlink.size(); });
  }
}

// What an unreadable record stood for shows in what hangs on it: names make it a directory, extents
// a file. Without either there is nothing to keep.
Status Checker::rebuildInode(uint64_t ino, const std::string& why) {
  const InodeNo number(ino);
  if (ino >= kMaxInodeNumber) {
    problem(why, [number](Transaction& t) { t.erase(inodeKey(number)); });
    return Status::ok();
  }
  bool hasNames = false, hasExtents = false;
  uint64_t size = 0, blocks = 0;
  const std::string names = direntPrefix(number), extents = extentPrefix(number);
  TRY(volume_.index().scan(names, prefixEnd(names), [&](auto, auto) {
    hasNames = true;
    return false;
  }));
  TRY(volume_.index().scan(extents, prefixEnd(extents), [&](auto key, auto value) {
    const auto parsed = parseKey(key);
    if (!parsed) return true;
    const auto extent = decodeExtent(number, FileOffset(parsed->number), value);
    if (!extent) return true;
    hasExtents = true;
    blocks += extent->blocks;
    if (extent->state == StoredExtentState::Mapped &&
        extent->blocks <= volume_.superblock().blocks().v)
      size = parsed->number + extent->blocks * volume_.blockSize();
    return true;
  }));
  if (!hasNames && !hasExtents) {
    problem(why, [number](Transaction& t) { t.erase(inodeKey(number)); });
    return Status::ok();
  }
  InodeRecord record = newRecord(hasNames ? S_IFDIR | 0700 : S_IFREG | 0600);
  if (number == kRootInode) record.mode |= 0755;
  if (!hasNames) {
    record.size = size;
    record.blocks = blocks * volume_.blockSize();
  }
  record.flags = kInodeHasXattr;  // perhaps: until the attributes were looked at, none is given up
  checkInode(number, record);
  nodes_[ino].rebuilt = true;
  problem(
      why + (hasNames ? ": it was a directory" : ": it was a file"),
      [number, record](Transaction& t) { t.put(inodeKey(number), encodeInode(number, record)); });
  return Status::ok();
}

void Checker::checkRoot() {
  Node& root = nodes_[kRootInode.v];
  if (root.isDirectory()) return;
  const InodeRecord record = newRecord(S_IFDIR | 0755);
  problem("the root directory is missing", [record](Transaction& t) {
    t.put(inodeKey(kRootInode), encodeInode(kRootInode, record));
  });
  root = Node();
  root.mode = record.mode;
  root.rebuilt = true;
}

Status Checker::checkOrphans() {
  return scanPrefix('O', [&](const ParsedKey& key, std::string_view value) {
    ++report_.orphans;
    auto node = nodes_.find(key.ino.v);
    auto forgetIt = [ino = key.ino](Transaction& t) { t.erase(orphanKey(ino)); };
    if (!value.empty())
      problem("orphan list: " + inodeText(key.ino.v) + " has a value",
              [ino = key.ino](Transaction& t) { t.put(orphanKey(ino), ""); });
    if (key.ino == kRootInode)
      problem("orphan list: the root directory is on it", forgetIt);
    else if (node == nodes_.end())
      problem("orphan list: " + inodeText(key.ino.v) + " does not exist", forgetIt);
    else if (node->second.nlink != 0 || node->second.rebuilt)
      problem("orphan list: " + inodeText(key.ino.v) + " still has names", forgetIt);
    else
      node->second.orphan = true;
  });
}

// The next mount would reclaim it, and leave its names without an inode.
void Checker::checkOrphanNames() {
  for (auto& [ino, node] : nodes_) {
    if (!node.orphan || (node.names == 0 && node.foundEntries == 0)) continue;
    node.orphan = false;
    problem("orphan list: " + inodeText(ino) +
                (node.names != 0 ? " has a name" : " is a directory with names in it"),
            [i = InodeNo(ino)](Transaction& t) { t.erase(orphanKey(i)); });
  }
}

void Checker::checkCounts() {
  for (const auto& [ino, node] : nodes_) {
    if (!node.rebuilt) {
      checkNode(ino, node);
      continue;
    }
    mendLater([this, i = ino, n = node](Transaction& t) {
      rewrite(
          i,
          [&n](InodeRecord& r) {
            r.nlink = static_cast<uint32_t>(n.isDirectory() ? 2 + n.subdirectories : n.names);
            r.entries = n.foundEntries;
            r.blocks = n.foundBlocks;
            r.flags = n.foundFlags;
            if (n.isDirectory()) r.parent = n.namedBy != 0 ? n.namedBy : kRootInode.v;
          },
          t);
    });
  }
}

void Checker::checkNode(uint64_t ino, const Node& node) {
  const auto compare = [&](uint64_t InodeRecord::*field, uint64_t said, uint64_t found,
                           const char* what) {
    if (said == found) return;
    problem(inodeText(ino) + ": " + what + " " + std::to_string(said) + ", should be " +
                std::to_string(found),
            [this, ino, field, found](Transaction& t) {
              rewrite(
                  ino, [&](InodeRecord& r) { r.*field = found; }, t);
            });
  };
  compare(&InodeRecord::blocks, node.blocks, node.foundBlocks, "bytes allocated are");
  // What else is in the record of an unlinked one goes with it. By the above, its space is found.
  if (node.orphan) return;
  const uint64_t links = node.isDirectory() ? 2 + node.subdirectories : node.names;
  if (node.nlink != links && (node.isDirectory() || !node.lost || mend_))
    problem(inodeText(ino) + ": link count is " + std::to_string(node.nlink) + ", should be " +
                std::to_string(links),
            [this, ino, links](Transaction& t) {
              rewrite(
                  ino, [links](InodeRecord& r) { r.nlink = static_cast<uint32_t>(links); }, t);
            });
  if (node.isDirectory()) {
    const uint64_t parent = ino == kRootInode.v ? ino : node.namedBy;
    compare(&InodeRecord::entries, node.entries, node.foundEntries, "number of names is");
    if (parent != 0) compare(&InodeRecord::parent, node.parent, parent, "parent is");
  }
  if (!node.isRegular()) return;
  const uint64_t blockSize = volume_.blockSize();
  if (node.size > INT64_MAX || node.mappedEnd > roundUp(node.size, blockSize))
    compare(&InodeRecord::size, node.size, std::min<uint64_t>(node.mappedEnd, INT64_MAX),
            "size is");
}

Status Checker::checkSettings() {
  TRY(checkInodeCount());
  uint64_t highest = kRootInode.v;
  for (const auto& [ino, node] : nodes_) highest = std::max(highest, ino);
  TRY_ASSIGN(const auto stored, volume_.index().get(settingKey(kNextInodeSetting)));
  const uint64_t next = stored ? decodeNumber(*stored).value_or(0) : 0;
  if (next > highest && next <= kMaxInodeNumber) return Status::ok();
  problem("the next inode number (" + std::to_string(next) + ") cannot be right, should be " +
              std::to_string(highest + 1),
          [highest](Transaction& t) {
            t.put(settingKey(kNextInodeSetting), encodeNumber(highest + 1));
          });
  return Status::ok();
}

// Counts only after a clean unmount, and for its generation.
Status Checker::checkInodeCount() {
  TRY_ASSIGN(const auto stored, volume_.index().get(settingKey(kInodesSetting)));
  if (!stored) return Status::ok();
  const Fix eraseIt = [](Transaction& t) { t.erase(settingKey(kInodesSetting)); };
  Decoder d(*stored);
  const uint64_t generation = d.u64(), count = d.u64();
  if (!d.ok() || !d.atEnd()) {
    problem("the number of inodes cannot be read", eraseIt);
    return Status::ok();
  }
  const uint64_t inodes = keys_['I'], current = volume_.superblock().generation;
  const bool counts = volume_.summary().wasClean && report_.orphans == 0 &&
                      generation == current - (volume_.readOnly() ? 0 : 1);
  if (counts && count != inodes)
    problem("the number of inodes is " + std::to_string(count) + ", should be " +
                std::to_string(inodes),
            eraseIt);
  return Status::ok();
}

}  // namespace ourfs
