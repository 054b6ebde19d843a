// checkVolume: the judge. Replays, then checks every structure of a volume against every other.
//
// What it looks at: superblock; index file table and every block of its files; every key and value
// of the index (known kind, checksum, ranges); names against inodes (each name leads to an inode of
// its type, each inode has as many names as its link count, directories form one tree, entry counts
// and parents agree, buckets have no gap); extents against each other, against the index's own
// blocks and against the volume's end; sizes and block counts of inodes; extended attributes and
// orphans without an inode.
//
// Without `repair` nothing is written, not even by replay (it happens in memory).
//
// With `repair`, data is kept wherever something shows whose it was:
//   - a lost inode gets a name in /lost+found (or /lost+found.1 …, if that is a file);
//   - of files that share blocks each keeps the bytes that are there, all but one in a copy, and
//   what
//     the index owns stays the index's; without room for a copy the problem stays;
//   - a file whose data reaches beyond its size grows;
//   - an inode that cannot be read is made anew if names (a directory) or extents (a file) hang on
//     it; owner, permissions and times are lost;
//   - a journal that has lost records is begun anew behind the last one that can be replayed.
// Where a block of the index is damaged, nothing is mended or written at all: what cannot be read
// must not be taken for missing.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "block/block_device.h"
#include "common/result.h"
#include "fs/volume.h"

namespace ourfs {

// What a check looks at, in this order. With `repair` all of it comes a second time, after the
// mends.
enum class CheckPhase { IndexBlocks, Journal, Keys, Inodes, Names, Extents, Attributes, Tree };
inline constexpr unsigned kCheckPhases = 8;
const char* nameOf(CheckPhase phase);

struct CheckProgress {
  CheckPhase phase = CheckPhase::IndexBlocks;
  uint64_t done = 0, total = 0;  // of bytes or keys; total 0: not known
};

struct CheckOptions {
  bool repair = false;
  // Called in the caller's thread: for every problem as it is found, and for what is no problem but
  // worth a note, one line each; and as a phase begins and goes on, about a hundred times each.
  std::function<void(const std::string&)> report, note;
  std::function<void(const CheckProgress&)> progress;
  // What the inodes and extents of the volume may take while they are checked, about 150 and 32
  // bytes each; besides, the index takes what it takes in a mount. ENOMEM, before anything is
  // written, if they would take more. 0: no limit.
  ByteCount memoryLimit{0};
};

struct CheckReport {
  std::vector<std::string> problems;  // one line each, the first 1,000
  uint64_t problemCount = 0;
  uint64_t repaired = 0;  // of them; the rest could not be mended or repair was off
  MountSummary mount;     // what replay did
  uint64_t inodes = 0, directories = 0, files = 0, symlinks = 0, others = 0, names = 0, extents = 0,
           attributes = 0, orphans = 0;
  BlockCount usedBlocks, freeBlocks;  // free as statfs of a fresh mount would count them
  bool clean() const { return problemCount == 0; }
  int exitCode() const;  // fsck(8): 0 clean, 1 all mended, 4 problems left
};

// An error means that the volume could not be opened far enough to be checked (exit code 4 or 8).
Result<CheckReport> checkVolume(BlockDevice& device, const CheckOptions& options);

}  // namespace ourfs
