// Mending of inodes: records rewritten, lost inodes named again.
#include <dirent.h>
#include <sys/stat.h>

#include "check/checker.h"

namespace ourfs {

void Checker::rewrite(uint64_t ino, std::function<void(InodeRecord&)> change, Transaction& t) {
  InodeNo number(ino);
  auto value = volume_.index().get(inodeKey(number));
  if (!value || !*value) return;
  auto record = decodeInode(number, **value);
  if (!record) return;
  change(*record);
  t.put(inodeKey(number), encodeInode(number, *record));
}

Status Checker::addName(uint64_t dir, const std::string& name, uint64_t ino, Transaction& t) {
  uint64_t base = nameCookie(name, volume_.superblock().nameKey);
  uint64_t slot = 0;
  for (;; ++slot) {
    TRY_ASSIGN(auto value, volume_.index().get(direntKey(InodeNo(dir), base | slot)));
    if (!value) break;
    TRY_ASSIGN(DirentRecord taken, decodeDirent(*value));
    if (taken.more) continue;
    taken.more = true;
    t.put(direntKey(InodeNo(dir), base | slot), encodeDirent(taken));
  }
  Node& node = nodes_[ino];
  DirentRecord record;
  record.type = static_cast<uint8_t>(IFTODT(node.mode));
  record.ino = ino;
  record.name = name;
  t.put(direntKey(InodeNo(dir), base | slot), encodeDirent(record));
  ++nodes_[dir].foundEntries;
  ++node.names;
  if (node.isDirectory()) {
    ++nodes_[dir].subdirectories;
    node.namedBy = dir;
  }
  return Status::ok();
}

Result<uint64_t> Checker::lostAndFound() {
  constexpr uint64_t root = 1;
  const std::string name = "lost+found";
  uint64_t base = nameCookie(name, volume_.superblock().nameKey);
  for (uint64_t slot = 0;; ++slot) {
    TRY_ASSIGN(auto value, volume_.index().get(direntKey(InodeNo(root), base | slot)));
    if (!value) break;
    TRY_ASSIGN(DirentRecord record, decodeDirent(*value));
    auto node = nodes_.find(record.ino);
    if (record.name == name && node != nodes_.end() && node->second.isDirectory())
      return record.ino;
  }
  TRY_ASSIGN(auto room, volume_.log().reserve(kNamespaceRoom));
  Transaction t;
  InodeNo ino = volume_.newInodeNumber(t);
  InodeRecord record;
  record.mode = S_IFDIR | 0700;
  record.nlink = 2;
  record.parent = root;
  record.generation = static_cast<uint32_t>(volume_.superblock().generation);
  t.put(inodeKey(ino), encodeInode(ino, record));
  Node node;
  node.mode = record.mode;
  node.nlink = 2;
  node.parent = root;
  nodes_[ino.v] = node;
  TRY(addName(root, name, ino.v, t));
  TRY(volume_.log().commit(std::move(t), std::move(room)));
  return ino.v;
}

Status Checker::reconnect(uint64_t ino) {
  TRY_ASSIGN(uint64_t dir, lostAndFound());
  TRY_ASSIGN(auto room, volume_.log().reserve(kNamespaceRoom));
  Transaction t;
  TRY(addName(dir, "#" + std::to_string(ino), ino, t));
  TRY(volume_.log().commit(std::move(t), std::move(room)));
  return Status::ok();
}

}  // namespace ourfs
