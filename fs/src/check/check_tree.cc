// The tree: everything that is not removed hangs below the root.
#include <algorithm>
#include <unordered_set>

#include "check/checker.h"
#include "volume_settings.h"

namespace ourfs {

// The inodes without a name that should have one, directories first, in order. `circles`: one
// directory of each circle.
std::vector<uint64_t> Checker::findLost(std::vector<uint64_t>& circles) {
  std::vector<uint64_t> directories, others;
  for (const auto& [ino, node] : nodes_) {
    if (node.orphan) continue;
    if (node.isDirectory())
      directories.push_back(ino);
    else if (node.names == 0)
      others.push_back(ino);
  }
  std::sort(directories.begin(), directories.end());
  std::sort(others.begin(), others.end());

  // Upwards from each, to one that has been seen. What hangs below something lost is not lost.
  std::vector<uint64_t> lost;
  std::unordered_set<uint64_t> seen{kRootInode.v};
  for (uint64_t ino : directories) {
    std::vector<uint64_t> path;
    uint64_t at = ino;
    for (; at != 0 && seen.insert(at).second; at = nodes_[at].namedBy) path.push_back(at);
    if (at == 0) {
      lost.push_back(path.back());
      continue;
    }
    const auto back = std::find(path.begin(), path.end(), at);
    if (back != path.end()) circles.push_back(*std::min_element(back, path.end()));
  }
  lost.insert(lost.end(), others.begin(), others.end());
  return lost;
}

Status Checker::checkTree() {
  std::vector<uint64_t> circles;
  for (uint64_t ino : findLost(circles)) {
    Node& node = nodes_[ino];
    node.lost = true;
    if (node.nlink == 0 && node.foundEntries == 0) {
      problem(inodeText(ino) + ": unlinked, but not on the orphan list",
              [i = InodeNo(ino)](Transaction& t) { t.put(orphanKey(i), ""); });
      node.orphan = true;
      continue;
    }
    problem(inodeText(ino) + ": lost: no name leads to it");
    if (mend_) TRY(reconnect(ino));
  }
  for (uint64_t ino : circles) {
    Node& node = nodes_[ino];
    problem(inodeText(ino) + ": a directory in a circle that the root does not reach");
    if (!mend_) continue;
    DirentRecord name;
    name.ino = ino;
    surplus_.push_back({node.namedBy, name});
    Node& parent = nodes_[node.namedBy];
    --parent.foundEntries;
    --parent.subdirectories;
    --node.names;
    TRY(moveNames());
    Transaction t;
    rewrite(
        node.namedBy,
        [&](InodeRecord& r) {
          r.entries = --parent.entries;
          r.nlink = --parent.nlink;
        },
        t);
    TRY(commit(std::move(t)));
    TRY(reconnect(ino));
  }
  return Status::ok();
}

}  // namespace ourfs
