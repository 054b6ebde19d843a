// TableState: what the file table says: which blocks the index owns, and which files they hold.
//
// It changes by operations only, which are at once the bytes of a delta: what was applied in memory
// and what a later mount reads back go through the same code. No thread safety of its own.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "index/index.h"

namespace ourfs {

struct TableFile {
  uint64_t id = 0;
  std::string name;
  bool isInline = false;
  std::string bytes;               // inline: the contents
  std::vector<uint64_t> segments;  // blocks: bytes that each Sync added; each begins a new unit
  std::vector<BlockRun> runs;      // blocks: in file order
  uint64_t size() const;
  uint64_t units(uint64_t unitSize) const;
};

class TableState {
 public:
  explicit TableState(const IndexGeometry& geometry) : geometry_(geometry) {}

  // Each appends its bytes to `ops` and changes the state, or fails and changes neither.
  Status addPool(std::string& ops, const BlockRun& run);
  // REQUIRES: no file has blocks there; validate() would say so.
  Status removePool(std::string& ops, const BlockRun& run);
  Status create(std::string& ops, uint64_t id, const std::string& name);
  Status append(std::string& ops, uint64_t id, uint64_t bytes, const std::vector<BlockRun>& runs);
  Status setInline(std::string& ops, uint64_t id, const std::string& name, std::string_view bytes);
  Status rename(std::string& ops, uint64_t id,
                const std::string& name);  // replaces a file of that name
  Status remove(std::string& ops, uint64_t id);
  static void close(std::string& ops, uint64_t nextSequence);

  Status replay(std::string_view ops);  // EUCLEAN; REQUIRES validate() afterwards
  std::string encode() const;           // the body of a snapshot
  uint64_t encodedBound() const;        // no body is larger; cheap
  static Result<TableState> decode(const IndexGeometry& geometry, uint64_t nextId,
                                   std::string_view body);
  // Everything that one operation alone cannot see: overlaps, sizes that do not fit their blocks.
  Status validate() const;

  // Runs that lost their file since the last call.
  std::vector<BlockRun> takeDropped();

  uint64_t nextId() const { return nextId_; }
  void setNextId(uint64_t id) { nextId_ = id; }
  uint64_t takenOverBy() const { return takenOverBy_; }  // sequence, or 0
  const std::map<uint64_t, TableFile>& files() const { return files_; }
  std::vector<BlockRun> pool() const;
  std::vector<BlockRun> usedRuns() const;  // of all files
  // True if all of it is pool.
  bool owns(const BlockRun& run) const;

 private:
  class Reader;
  Status applyOne(Reader& in);
  Status step(std::string& ops, const std::string& op);
  Status insertPool(const BlockRun& run);
  Status erasePool(const BlockRun& run);
  Status insertFile(TableFile file);
  void dropFile(uint64_t id);
  Status appendTo(uint64_t id, uint64_t bytes, const std::vector<BlockRun>& runs);
  Status renameTo(uint64_t id, const std::string& name);
  uint64_t lastEnd(uint64_t id) const;

  IndexGeometry geometry_;
  uint64_t nextId_ = 1;
  uint64_t takenOverBy_ = 0;
  std::map<uint64_t, uint64_t> pool_;  // start -> count; never adjacent
  std::map<uint64_t, TableFile> files_;
  std::map<std::string, uint64_t> byName_;
  std::vector<BlockRun> dropped_;
};

}  // namespace ourfs
