// CrashModel: what a crash may leave, by the promises of docs/design.md.
//
// Time is the clock of the recording device. The model keeps, for a single-threaded workload:
//   - the tree after every namespace operation, with the times of its directories. Operations reach
//     the log in order, so what a crash leaves is the tree after some prefix of them: at least all
//     that an fsync covered, at most all that had begun;
//   - for every 512-byte sector of every file its history of contents. A crash leaves the last one
//     that an fsync covered, or any later one whose write had begun; zeros only if nothing was
//     covered, or if a truncate or punch is among the later ones. Never anything else: free space
//     holds poison, and every write has bytes that no other has;
//   - for every file its sizes and its times. What a full fsync covered is there to the nanosecond.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fs/filesystem.h"

namespace ourfs::crash {

inline constexpr uint64_t kSector = 512;
inline constexpr std::byte kPoison{0xdb};
inline constexpr uint64_t kRootId = 1;
inline constexpr uint64_t kNever = ~uint64_t{0};

// Bytes that only this write of this file has at this place.
void fillBytes(std::span<std::byte> into, uint64_t file, uint64_t version, uint64_t at);

struct Span {  // of an operation on the clock
  uint64_t begin = 0, end = 0;
};

struct Times {
  Timestamp mtime, ctime;
  bool operator==(const Times&) const = default;
};

struct Node {
  uint64_t id = 0;  // of the file or directory in the model
  char kind = 'f';  // f, d, l
  std::string target;
  uint32_t permissions = 0;
  bool operator==(const Node&) const = default;
};
struct Tree {
  std::map<std::string, Node> nodes;                                  // by path, without the root
  std::map<uint64_t, std::map<std::string, std::string>> attributes;  // by id
  std::map<uint64_t, Times> directoryTimes;                           // by id; with the root
  bool names(uint64_t id) const;                                      // something leads to it
};

// What a crash left, as a mount shows it.
struct FoundNode {
  Node node;  // without an id
  InodeNo ino;
  InodeRecord record;
  std::map<std::string, std::string> attributes;
};
using FoundTree = std::map<std::string, FoundNode>;  // by path; the root is ""
Status walkTree(Filesystem& filesystem, FoundTree& found);
// Each file has as many links as names, each directory one for itself, one for its name and one for
// each directory in it. Empty, or what is wrong.
std::string judgeLinks(const FoundTree& found);

class CrashModel {
 public:
  CrashModel();
  Tree& tree() { return now_; }  // change it, then call changed()
  // A namespace operation that touched these ids (files and directories) has happened.
  void changed(Span span, const std::vector<uint64_t>& touched);

  // ---- data; each has happened, and changes what a reader sees ----
  void wrote(uint64_t file, uint64_t at, std::span<const std::byte> bytes, Span span);
  void zeroed(uint64_t file, uint64_t at, uint64_t length, Span span);
  void resized(uint64_t file, uint64_t size, Span span);
  // It failed half way: what was tried may be there from now on, and no fsync makes it certain;
  // `now` is what a reader sees.
  void tried(uint64_t file, uint64_t at, std::span<const std::byte> bytes, uint64_t begin,
             std::span<const std::byte> now);
  uint64_t sizeOf(uint64_t file) const { return contentOf(file).size(); }
  const std::string& contentOf(uint64_t file) const;

  // The file's times are these since an operation that began at the time of day `from`.
  void stamped(uint64_t file, const Times& times, const Timestamp& from, Span span);
  // fsync of one file or directory, or sync of everything, answered success. `dataOnly`: it obliges
  // no times.
  void synced(std::optional<uint64_t> id, bool dataOnly, Span span);

  // What a program makes of the bytes of all files, by path, after a crash at `point`: empty, or
  // which promise of its own was broken.
  using Files = std::map<std::string, std::string>;
  using Promise = std::function<std::string(const Files& files, uint64_t point)>;
  void promises(Promise promise) { promise_ = std::move(promise); }
  std::string judgePromise(const Files& files, uint64_t point) const {
    return promise_ ? promise_(files, point) : "";
  }

  struct Verdict {
    std::string wrong;     // empty, or what
    uint64_t content = 0;  // a hash of names, kinds, links, attributes, sizes and bytes
    // A hash of the same but of where the bytes are on the device instead of the bytes.
    uint64_t shape = 0;
    std::vector<Extent> shown{};  // what of the device are bytes of files
  };
  // Compares what was recovered from a crash at `point`.
  Verdict judge(Filesystem& filesystem, uint64_t point) const;

 private:
  using Sector = std::array<std::byte, kSector>;
  struct SectorEvent {
    Sector bytes;
    Span span;
  };
  struct SizeEvent {
    uint64_t size;
    Span span;
  };
  struct TimeEvent {
    Times times;
    Timestamp from;
    Span span;
  };
  struct File {
    std::string content;  // now
    std::map<uint64_t, std::vector<SectorEvent>> sectors;
    std::vector<SizeEvent> sizes;
    std::vector<TimeEvent> times;
  };
  struct Sync {
    std::optional<uint64_t> id;
    bool dataOnly;
    Span span;
  };
  struct Snapshot {
    Tree tree;
    Span span;
    std::vector<uint64_t> touched;
  };
  struct Judged;  // one file and its bytes as recovered

  void noteSectors(File& file, uint64_t from, uint64_t to, Span span);
  // Events that ended at or before it were covered by a sync that had answered at `point`.
  uint64_t coveredAt(uint64_t id, uint64_t point, bool needsTimes) const;

  std::string judgeFiles(Filesystem& filesystem, const FoundTree& found, const Tree& tree,
                         uint64_t point, Verdict& verdict) const;
  std::string judgeSize(const Judged& judged) const;
  std::string judgeSectors(const Judged& judged) const;
  std::string judgeTimes(const Judged& judged) const;
  // What happened to one sector and to the size, in order, for the message of a failure.
  std::string historyOf(uint64_t file, uint64_t sector, uint64_t point) const;

  Tree now_;
  std::vector<Snapshot> snapshots_;
  std::map<uint64_t, File> files_;
  std::vector<Sync> syncs_;
  Promise promise_;
};

}  // namespace ourfs::crash
