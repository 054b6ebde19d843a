// FaultModel: what may be on the volume after a fault, by what the workload was told.
//
// The workload has one thread. Each thing that it does gets the next number of a clock, and an
// answer. What follows from that:
//   - a change that was answered with success and covered by a sync that was answered with success
//     is there;
//   - an open file that was told an error claims nothing from before it: the data may be lost. So a
//     sync covers what came after the last error that the same open file was told;
//   - what was not covered may be there or not, sector by sector; names are those after some prefix
//     of the operations, and that reaches at least to the last one that a sync covered;
//   - nothing else ever: free space holds poison, and each file's bytes carry its number.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "fs/filesystem.h"

namespace ourfs::faults {

inline constexpr uint64_t kSectorBytes = 512;
inline constexpr std::byte kUnwritten{0xdb};  // what the device shows where nothing was written

// A sector of a file: which version of it; 0 is zeros.
void stampSector(std::span<std::byte> sector, InodeNo ino, uint64_t number, uint32_t version);
// What it holds, if it is zeros or the same sector of the same file.
std::optional<uint32_t> versionIn(std::span<const std::byte> sector, InodeNo ino, uint64_t number);

struct NamedInode {
  InodeNo ino;
  char kind = 'f';  // f, d
  bool operator==(const NamedInode&) const = default;
};
using Tree = std::map<std::string, NamedInode>;  // by path, without the root

// What a device that lies may have cost.
struct Lenience {
  bool olderState = false;  // any state of the past, synced or not
  // Bytes of the device that may hold anything.
  std::function<bool(DeviceOffset)> anything;
};

class FaultModel {
 public:
  using Time = uint64_t;
  FaultModel() { snapshots_.push_back({}); }
  Time now() const { return clock_; }

  const Tree& tree() const { return snapshots_.back().tree; }
  // A change of names was answered with success; it touched these files and directories.
  void changed(Tree tree, std::vector<InodeNo> touched);
  // A change of a file's sectors or size; `done`: it was answered with success.
  void wrote(InodeNo ino, uint64_t first, uint64_t count, uint32_t version, bool done);
  void resized(InodeNo ino, uint64_t size, bool done);
  uint64_t sizeOf(InodeNo ino) const;
  // A sync of one file or directory, or of everything (inode 0), was answered with success.
  void synced(InodeNo ino, Time since);

  // What is wrong with a file's content, or empty; an error: it could not be read. `latest`:
  // nothing but the last values will do.
  Result<std::string> judgeFile(Filesystem& filesystem, InodeNo ino, const Lenience& lenience,
                                bool latest = false) const;
  // The same for all of a volume that was mounted after the fault.
  Result<std::string> judge(Filesystem& filesystem, const Lenience& lenience) const;

 private:
  struct Change {
    Time at = 0;
    uint64_t value = 0;  // version or size
    bool done = false;
  };
  struct Snapshot {
    Tree tree;
    Time at = 0;
    std::vector<InodeNo> touched;
  };
  struct Sync {
    InodeNo ino;
    Time since = 0, at = 0;
  };
  using History = std::vector<Change>;
  // What may stand there now: the last value that is covered (0 if none is), and later ones.
  std::vector<uint64_t> allowed(InodeNo ino, const History& history, const Lenience& lenience,
                                bool latest) const;
  bool covered(InodeNo ino, Time at) const;
  bool nameCovered(const Snapshot& snapshot) const;
  std::string judgeSize(InodeNo ino, uint64_t size, const Lenience& lenience, bool latest) const;

  Time clock_ = 0;
  std::vector<Snapshot> snapshots_;
  std::map<InodeNo, std::map<uint64_t, History>> sectors_;
  std::map<InodeNo, History> sizes_;
  std::vector<Sync> syncs_;
};

}  // namespace ourfs::faults
