// The free-space snapshot: which blocks the extents use, written at a clean unmount.
//
// Keys 'F' group and 'G', as docs/format.md says. The index's own blocks are not in it: the file
// table names them. It is valid only for the generation that wrote it, and only if the
// superblock is clean; so nobody has to delete it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "allocation_group.h"
#include "common/result.h"
#include "index/index.h"

namespace ourfs {

struct SnapshotHeader {
  uint64_t generation = 0;
  uint64_t groups = 0;      // 'F' keys
  uint64_t usedBlocks = 0;  // in all of them
  uint32_t crc = 0;         // crc32c of all their keys and values, in order
  bool operator==(const SnapshotHeader&) const = default;
};
std::string encodeSnapshotHeader(const SnapshotHeader& header);
Result<SnapshotHeader> decodeSnapshotHeader(std::string_view value);

// One group's used runs, in order, none touching the next. A group without any has no key.
inline constexpr size_t kMaxGroupValue = 1 + kGroupBlocks / 8;  // bytes
using GroupRuns = std::vector<AllocationGroup::Run>;
std::string encodeGroup(const GroupRuns& runs);
Result<GroupRuns> decodeGroup(std::string_view value);

// Collects used runs in rising order, and makes the keys and the header of them.
class SnapshotBuilder {
 public:
  void add(BlockRun used);
  // Keys to values, and the header's counts and checksum.
  std::map<std::string, std::string> finish(SnapshotHeader& header);

 private:
  std::map<uint64_t, GroupRuns> groups_;
};

}  // namespace ourfs
