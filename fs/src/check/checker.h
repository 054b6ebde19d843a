// Checker: one pass over all keys of an open volume, with or without mending.
//
// A pass collects what the index says into nodes_ and claims_ and reports what does not fit. Mends
// that only put or erase keys are collected and applied at two points of the pass; those that must
// see their results (moves of extents, names for lost inodes) follow in between.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "check/progress.h"
#include "directory.h"
#include "fs/check.h"
#include "quoted.h"

namespace ourfs {

class Checker {
 public:
  // `mend` needs a volume that is open for writing.
  Checker(Volume& volume, bool mend, CheckReport& report,
          const std::function<void(const std::string&)>& tell, Progress& progress,
          ByteCount memoryLimit)
      : volume_(volume),
        mend_(mend),
        report_(report),
        tell_(tell),
        progress_(progress),
        memoryLimit_(memoryLimit) {}
  // An error only if the volume cannot be read or written any more.
  Status run();
  // The free-space snapshot of the last unmount against the extents that run() has found. Closing
  // a volume that is open for writing writes a new one.
  Status checkSnapshot();

 private:
  struct Node {
    uint32_t mode = 0, nlink = 0, flags = 0;
    uint64_t size = 0, blocks = 0, entries = 0, parent = 0;
    uint64_t names = 0;  // names that lead here
    uint64_t subdirectories = 0, foundEntries = 0, foundBlocks = 0;
    uint64_t namedBy = 0;     // directories: the directory with the name
    uint64_t mappedEnd = 0;   // of the last extent with data
    uint32_t foundFlags = 0;  // what its attributes say
    bool orphan = false;
    bool lost = false;     // told; without mending it has no names
    bool rebuilt = false;  // its record was made anew: the counts in it are filled in silently
    bool isDirectory() const;
    bool isRegular() const;
  };
  struct Claim {  // of blocks, by an extent or by the index itself (inode 0)
    uint64_t start = 0, end = 0, inode = 0, fileOffset = 0;
  };
  struct Surplus {  // a name that has to go, or to be put where its hash belongs
    uint64_t dir = 0;
    DirentRecord record;
  };
  using Fix = std::function<void(Transaction&)>;
  using Slots = std::vector<std::pair<uint64_t, DirentRecord>>;

  void problem(const std::string& line, Fix fix = nullptr);
  void mendLater(Fix fix);
  Status applyFixes();
  Status scanPrefix(char kind, const std::function<void(const ParsedKey&, std::string_view)>& each);

  void begin(CheckPhase phase, char kind);  // one step for each key of the kind
  Status checkKinds();
  Status makeRoom();
  Status checkInodes();
  void checkInode(InodeNo ino, const InodeRecord& record);
  void checkFields(InodeNo ino, uint32_t mode, const InodeRecord& record);
  Status rebuildInode(uint64_t ino, const std::string& why);
  void checkRoot();
  Status checkOrphans();
  void checkOrphanNames();
  Status checkAttributes();
  static std::string whyWrong(const ParsedKey& key, std::string_view value, const Node& node,
                              size_t listed);
  void checkAttribute(const ParsedKey& key, std::string_view value, Node& node, size_t listed);
  void checkCounts();
  void checkNode(uint64_t ino, const Node& node);
  Status checkSettings();
  Status checkInodeCount();

  Status checkNames();
  void checkBucket(InodeNo dir, const Slots& slots);
  std::optional<DirentRecord> checkName(InodeNo dir, uint64_t cookie, const DirentRecord& record);
  bool checkDirectoryName(InodeNo dir, const DirentRecord& record, Node& node);
  void countName(InodeNo dir, Node& node);
  Status checkTree();
  std::vector<uint64_t> findLost(std::vector<uint64_t>& circles);

  Status checkExtents();
  void checkExtent(const ParsedKey& key, std::string_view value);
  void checkOverlap(const std::string& where, InodeNo ino, FileOffset offset,
                    const ExtentRecord& record);
  Status checkClaims();

  // ---- mending ----
  void rewrite(uint64_t ino, const std::function<void(InodeRecord&)>& change, Transaction& t);
  Status moveExtent(const Claim& claim);
  Result<BlockRun> copyBlocks(uint64_t from, uint64_t count, StoredExtentState state);
  Status moveNames();  // misplaced_ and surplus_
  Status reconnect(uint64_t ino);
  void enterName(uint64_t dir, Node& child, Transaction& t);
  Result<uint64_t> lostAndFound();
  Directory directory(uint64_t dir);
  Status commit(Transaction t);

  Volume& volume_;
  const bool mend_;
  CheckReport& report_;
  const std::function<void(const std::string&)>& tell_;
  Progress& progress_;
  const ByteCount memoryLimit_;       // of nodes_ and claims_; 0: none
  std::array<uint64_t, 256> keys_{};  // how many there are of each kind
  std::unordered_map<uint64_t, Node> nodes_;
  std::vector<Claim> claims_;
  std::vector<Surplus> misplaced_, surplus_;
  std::vector<Fix> fixes_;
  uint64_t lastInode_ = 0, lastEnd_ = 0;  // of the extent before
};

inline std::string inodeText(uint64_t ino) { return "inode " + std::to_string(ino); }

}  // namespace ourfs
