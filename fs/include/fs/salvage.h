// salvageVolume: copies what can be read of a volume into a directory, also of one that cannot be
// mounted. The volume is only read.
//
// What stands where the structures are lost:
//   - one superblock: the other one; both: the file table says the block size and the volume's
//     size, and the rest follows as mkfs derives it;
//   - a slot of the file table: the other one; both: a scan of the device for the index's files;
//   - superblocks and file table: that scan; the keys tell the block size, and the device's size
//     is the volume's;
//   - tables and blocks of the index: what they held is missing, the rest is not (index/salvage.h);
//   - the journal: it is replayed in memory as far as it goes;
//   - names: what none leads to is found in lost+found, its inode number behind a #;
//   - an inode's record: names make it a directory, extents a file; owner, permissions and times
//     are lost;
//   - a block of data that cannot be read: the copy has a hole there.
//
// Kept are owner, permissions, times, attributes, hard links and holes. Files that were unlinked
// are not copied.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "block/block_device.h"
#include "common/result.h"

namespace ourfs {

struct SalvageProgress {
  unsigned phase = 1;  // of kSalvagePhases
  const char* name = "";
  uint64_t done = 0, total = 0;
};
inline constexpr unsigned kSalvagePhases = 3;

struct SalvageOptions {
  std::string directory;  // exists, and is empty
  // Told of everything that is not copied as it was, one line each. In the caller's thread.
  std::function<void(const std::string&)> report;
  std::function<void(const SalvageProgress&)> progress;
};

struct SalvageReport {
  uint64_t files = 0, directories = 0, symlinks = 0, others = 0, links = 0;  // that were made
  uint64_t bytes = 0;                                                        // of data
  uint64_t problemCount = 0;  // lines that were reported
};

// An error if nothing can be copied at all: EUCLEAN if the volume is at fault.
Result<SalvageReport> salvageVolume(BlockDevice& device, const SalvageOptions& options);

}  // namespace ourfs
