// Names: each of them, and the buckets that they lie in.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>

#include "check/checker.h"
#include "volume_settings.h"

namespace ourfs {

namespace {

constexpr uint64_t kSlotMask = kSlotsPerBucket - 1;

bool isChain(const std::vector<std::pair<uint64_t, DirentRecord>>& slots) {
  for (size_t i = 0; i < slots.size(); ++i) {
    const auto& [cookie, record] = slots[i];
    const bool last = i + 1 == slots.size();
    if ((cookie & kSlotMask) != i || record.more == last) return false;
    if (last && record.kind == DirentKind::Vacated) return false;
  }
  return true;
}

bool isListed(const std::vector<DirentRecord>& records, const std::string& name) {
  return std::any_of(records.begin(), records.end(),
                     [&](const DirentRecord& r) { return r.name == name; });
}

}  // namespace

Status Checker::checkNames() {
  Slots bucket;
  InodeNo bucketDir;
  const auto finish = [&] {
    if (!bucket.empty()) checkBucket(bucketDir, bucket);
    bucket.clear();
  };
  TRY(scanPrefix('D', [&](const ParsedKey& key, std::string_view value) {
    const auto eraseIt = [dir = key.ino, cookie = key.number](Transaction& t) {
      t.erase(direntKey(dir, cookie));
    };
    auto record = decodeDirent(value);
    if (!record) {
      problem(inodeText(key.ino.v) + ": a name cannot be read: " + record.status().message(),
              eraseIt);
      return;
    }
    const auto dir = nodes_.find(key.ino.v);
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

// A bucket in which anything is wrong is written anew, without gaps.
void Checker::checkBucket(InodeNo dir, const Slots& slots) {
  std::vector<DirentRecord> kept;
  bool changed = false;
  for (const auto& [cookie, record] : slots) {
    if (record.kind != DirentKind::Entry) continue;
    std::optional<DirentRecord> right;
    if (isListed(kept, record.name))
      problem(inodeText(dir.v) + ": name " + quoted(record.name) + " appears twice");
    else
      right = checkName(dir, cookie, record);
    changed = changed || !right || right->type != record.type;
    if (right) kept.push_back(std::move(*right));
  }
  if (!isChain(slots)) {
    problem(inodeText(dir.v) + ": a chain of names with one hash has a gap");
    changed = true;
  }
  if (!changed) return;
  mendLater([dir, slots, kept](Transaction& t) mutable {
    for (const auto& [cookie, record] : slots) t.erase(direntKey(dir, cookie));
    const uint64_t base = slots.front().first & ~kSlotMask;
    for (size_t i = 0; i < kept.size(); ++i) {
      kept[i].more = i + 1 < kept.size();
      t.put(direntKey(dir, base | i), encodeDirent(kept[i]));
    }
  });
}

// The record as it should be; none if the name has to leave this bucket.
std::optional<DirentRecord> Checker::checkName(InodeNo dir, uint64_t cookie,
                                               const DirentRecord& record) {
  const std::string where = inodeText(dir.v) + ": name " + quoted(record.name);
  const auto target = nodes_.find(record.ino);
  if (target == nodes_.end()) {
    problem(where + " leads to " + inodeText(record.ino) + ", which does not exist");
    return std::nullopt;
  }
  Node& node = target->second;
  if (node.isDirectory() && !checkDirectoryName(dir, record, node)) return std::nullopt;
  DirentRecord right = record;
  right.type = static_cast<uint8_t>(IFTODT(node.mode));
  if (bucketOf(record.name, volume_.superblock().nameKey) != (cookie & ~kSlotMask)) {
    problem(where + " lies under the hash of another name");
    // With mending it counts once it has got to where it belongs.
    misplaced_.push_back({dir.v, right});
    if (!mend_) countName(dir, node);
    return std::nullopt;
  }
  countName(dir, node);
  if (record.type != right.type) problem(where + " has the wrong type");
  return right;
}

// A directory has one name. Of two, the one that its parent field speaks for stays.
bool Checker::checkDirectoryName(InodeNo dir, const DirentRecord& record, Node& node) {
  if (node.names == 0 && record.ino != kRootInode.v) return true;
  problem(inodeText(dir.v) + ": name " + quoted(record.name) + " is a second name of a directory");
  if (record.ino == kRootInode.v || node.parent != dir.v || node.namedBy == dir.v) return false;
  surplus_.push_back({node.namedBy, record});
  Node& former = nodes_[node.namedBy];
  --former.foundEntries;
  --former.subdirectories;
  --node.names;
  --report_.names;
  return true;
}

void Checker::countName(InodeNo dir, Node& node) {
  ++report_.names;
  ++node.names;
  Node& parent = nodes_[dir.v];
  ++parent.foundEntries;
  if (!node.isDirectory()) return;
  ++parent.subdirectories;
  node.namedBy = dir.v;
}

}  // namespace ourfs
