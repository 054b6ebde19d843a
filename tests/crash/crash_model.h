// CrashModel: what a crash may leave, by the promises of docs/design.md.
//
// Time is the clock of the recording device. The model keeps, for a single-threaded workload:
//   - the tree after every namespace operation. Operations reach the log in order, so what a crash
//     leaves is the tree after some prefix of them: at least all that an fsync covered, at most all
//     that had begun;
//   - for every 512-byte sector of every file its history of values. A crash leaves the last value
//     that an fsync covered, or any later one whose write had begun; zero only if nothing was
//     covered, or if a truncate or punch is among the later ones. Never anything else: free space
//     holds poison.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fs/filesystem.h"

namespace ourfs::crash {

inline constexpr uint64_t kSector = 512;
inline constexpr std::byte kPoison{0xdb};

// A sector's value: which file wrote it, and which version. {0, 0} is zeros.
struct Stamp {
  uint64_t file = 0, version = 0;
  bool operator==(const Stamp&) const = default;
};
void fillSector(std::span<std::byte> sector, Stamp stamp, uint64_t number);
// What a sector holds: nothing recognisable, zeros, or a stamp.
std::optional<Stamp> readSector(std::span<const std::byte> sector, uint64_t number);

struct Span {  // of an operation on the clock
  uint64_t begin = 0, end = 0;
};

struct Node {
  uint64_t id = 0;  // of the file or directory in the model
  char kind = 'f';  // f, d, l
  std::string target;
  bool operator==(const Node&) const = default;
};
struct Tree {
  std::map<std::string, Node> nodes;                                  // by path, without the root
  std::map<uint64_t, std::map<std::string, std::string>> attributes;  // by id
  bool operator==(const Tree&) const = default;
};

// The recovered tree: kinds, targets, inode numbers and attributes, by path.
struct Found {
  std::map<std::string, Node> nodes;
  std::map<std::string, InodeNo> inodes;
  std::map<std::string, std::map<std::string, std::string>> attributes;
};

class CrashModel {
 public:
  CrashModel();
  Tree& tree() { return now_; }  // change it, then call changed()
  // A namespace operation that touched these ids (files and directories) has happened.
  void changed(Span span, const std::vector<uint64_t>& touched);
  void wrote(uint64_t file, uint64_t sector, Stamp value, Span span);
  void resized(uint64_t file, uint64_t size, Span span);
  uint64_t sizeOf(uint64_t file) const;
  // fsync of one file or directory, or sync of everything, answered success.
  void synced(std::optional<uint64_t> id, Span span);

  // Compares what was recovered from a crash at `point`. Empty, or what is wrong.
  std::string judge(Filesystem& filesystem, uint64_t point) const;
  // Content of the recovered volume, for counting distinct states; valid after judge.
  mutable uint64_t contentHash = 0;

 private:
  struct Event {
    Stamp value;
    Span span;
  };
  struct SizeEvent {
    uint64_t size;
    Span span;
  };
  struct Sync {
    std::optional<uint64_t> id;
    Span span;
  };
  struct Snapshot {
    Tree tree;
    Span span;
    std::vector<uint64_t> touched;
  };
  // What happened to one sector and to the size, in order, for the message of a failure.
  std::string historyOf(uint64_t file, uint64_t sector, uint64_t point) const;
  bool covered(uint64_t file, Span event, uint64_t point) const;
  std::string judgeFiles(Filesystem& filesystem, const Found& found, const Tree& tree,
                         uint64_t point) const;
  std::string judgeFile(Filesystem& filesystem, InodeNo ino, uint64_t file, const std::string& path,
                        uint64_t point) const;

  Tree now_;
  std::vector<Snapshot> snapshots_;
  std::map<uint64_t, std::map<uint64_t, std::vector<Event>>> sectors_;
  std::map<uint64_t, std::vector<SizeEvent>> sizes_;
  std::vector<Sync> syncs_;
};

}  // namespace ourfs::crash
