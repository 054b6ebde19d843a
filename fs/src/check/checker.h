// Checker: one pass over all keys of an open volume, with or without mending.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "fs/check.h"

namespace ourfs {

class Checker {
 public:
  // `mend` needs a volume that is open for writing.
  Checker(Volume& volume, bool mend, CheckReport& report,
          const std::function<void(const std::string&)>& tell)
      : volume_(volume), mend_(mend), report_(report), tell_(tell) {}
  // An error only if the volume cannot be read or written any more.
  Status run();

 private:
  struct Node {
    uint32_t mode = 0, nlink = 0, flags = 0;
    uint64_t size = 0, blocks = 0, entries = 0, parent = 0;
    uint64_t names = 0;  // names that lead here
    uint64_t subdirectories = 0, foundEntries = 0, foundBlocks = 0;
    uint64_t namedBy = 0;  // directories: the directory with the name
    bool orphan = false, hasXattr = false;
    bool isDirectory() const;
    bool isRegular() const;
  };
  struct Claim {  // of blocks, by an extent or by the index itself (inode 0)
    uint64_t start = 0, end = 0, inode = 0, fileOffset = 0;
  };
  using Fix = std::function<void(Transaction&)>;

  void problem(const std::string& line, Fix fix = nullptr);
  Status applyFixes();
  Status scanPrefix(char kind, const std::function<void(const ParsedKey&, std::string_view)>& each);

  Status checkKinds();
  Status checkInodes();
  Status checkOrphans();
  Status checkNames();
  void checkBucket(InodeNo dir, const std::vector<std::pair<uint64_t, DirentRecord>>& slots);
  void checkName(InodeNo dir, uint64_t cookie, const DirentRecord& record);
  Status checkExtents();
  Status checkClaims();
  Status checkAttributes();
  Status checkTree();
  Status checkCounts();
  Status checkSettings();

  // ---- mending ----
  void rewrite(uint64_t ino, std::function<void(InodeRecord&)> change, Transaction& t);
  Status moveExtent(const Claim& claim);
  Status reconnect(uint64_t ino);
  Result<uint64_t> lostAndFound();
  // Adds a name to a directory in `t` and to the counts of this pass.
  Status addName(uint64_t dir, const std::string& name, uint64_t ino, Transaction& t);

  Volume& volume_;
  const bool mend_;
  CheckReport& report_;
  const std::function<void(const std::string&)>& tell_;
  std::unordered_map<uint64_t, Node> nodes_;
  std::vector<Claim> claims_;
  std::vector<Fix> fixes_;
};

}  // namespace ourfs
