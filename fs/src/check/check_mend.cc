// Mending of inodes and names: records rewritten, names moved, lost inodes named again.
#include <dirent.h>
#include <sys/stat.h>

#include "check/checker.h"
#include "clock.h"
#include "volume_settings.h"

namespace ourfs {

void Checker::rewrite(uint64_t ino, const std::function<void(InodeRecord&)>& change,
                      Transaction& t) {
  const InodeNo number(ino);
  const auto value = volume_.index().get(inodeKey(number));
  if (!value || !*value) return;
  auto record = decodeInode(number, **value);
  if (!record) return;
  change(*record);
  t.put(inodeKey(number), encodeInode(number, *record));
}

Directory Checker::directory(uint64_t dir) {
  return Directory(volume_.index(), volume_.superblock().nameKey, InodeNo(dir));
}

Status Checker::moveNames() {
  for (const auto& [dir, record] : misplaced_) {
    Directory names = directory(dir);
    TRY_ASSIGN(const auto taken, names.find(record.name));
    if (taken) continue;  // what it leads to is lost, if nothing else names it
    TRY(names.insert(record.name, InodeNo(record.ino), record.type));
    Transaction t;
    names.emit(t);
    TRY(commit(std::move(t)));
    countName(InodeNo(dir), nodes_[record.ino]);
  }
  misplaced_.clear();
  for (const auto& [dir, record] : surplus_) {
    Directory names = directory(dir);
    TRY_ASSIGN(const auto all, names.read(0, SIZE_MAX));
    for (const Dirent& each : all) {
      if (each.ino.v == record.ino) TRY(names.remove(each.name));
    }
    Transaction t;
    names.emit(t);
    TRY(commit(std::move(t)));
  }
  surplus_.clear();
  return Status::ok();
}

// A new name: the counts of its directory grow with it, so that they are not found wrong later.
void Checker::enterName(uint64_t dir, Node& child, Transaction& t) {
  countName(InodeNo(dir), child);
  Node& parent = nodes_[dir];
  ++parent.entries;
  parent.nlink += child.isDirectory() ? 1 : 0;
  rewrite(
      dir,
      [&](InodeRecord& r) {
        r.entries = parent.entries;
        r.nlink = parent.nlink;
      },
      t);
}

// The directory for what was lost: "lost+found", or the next free name like it.
Result<uint64_t> Checker::lostAndFound() {
  const std::string base = "lost+found";
  std::string name = base;
  Directory root = directory(kRootInode.v);
  for (int i = 1;; ++i) {
    TRY_ASSIGN(const auto taken, root.find(name));
    if (!taken) break;
    const auto node = nodes_.find(taken->ino.v);
    if (node != nodes_.end() && node->second.isDirectory()) return taken->ino.v;
    name = base + "." + std::to_string(i);
  }
  Transaction t;
  const InodeNo ino = volume_.newInodeNumber(t);
  InodeRecord record;
  record.mode = S_IFDIR | 0700;
  record.nlink = 2;
  record.parent = kRootInode.v;
  record.generation = static_cast<uint32_t>(volume_.superblock().generation);
  record.atime = record.mtime = record.ctime = record.btime = wallClock();
  t.put(inodeKey(ino), encodeInode(ino, record));
  TRY(root.insert(name, ino, DT_DIR));
  root.emit(t);
  Node& node = nodes_[ino.v];
  node.mode = record.mode;
  node.nlink = record.nlink;
  node.parent = record.parent;
  enterName(kRootInode.v, node, t);
  TRY(commit(std::move(t)));
  return ino.v;
}

Status Checker::reconnect(uint64_t ino) {
  TRY_ASSIGN(const uint64_t dir, lostAndFound());
  const std::string base = "#" + std::to_string(ino);
  std::string name = base;
  Directory names = directory(dir);
  for (int i = 1;; ++i) {
    TRY_ASSIGN(const auto taken, names.find(name));
    if (!taken) break;
    name = base + "." + std::to_string(i);
  }
  Node& node = nodes_[ino];
  TRY(names.insert(name, InodeNo(ino), static_cast<uint8_t>(IFTODT(node.mode))));
  Transaction t;
  names.emit(t);
  enterName(dir, node, t);
  if (node.isDirectory()) {
    node.parent = dir;
    rewrite(
        ino, [dir](InodeRecord& r) { r.parent = dir; }, t);
  }
  return commit(std::move(t));
}

}  // namespace ourfs
