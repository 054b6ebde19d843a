// SalvageSource: what is left of a volume: its geometry, its keys with the journal on top, its
// data.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fs/superblock.h"
#include "index/salvage.h"

namespace ourfs {

struct SalvagedExtent {
  FileOffset offset;
  ExtentRecord record;
};

class SalvageSource {
 public:
  using Note = std::function<void(const std::string&)>;
  using Tell = std::function<void(uint64_t done, uint64_t total)>;

  static Result<std::unique_ptr<SalvageSource>> open(BlockDevice& device, const Note& note,
                                                     const Tell& tell);
  void replayJournal();  // in memory

  // The record; or one made of what hangs on the inode, and then `why` says so; or nothing.
  std::optional<InodeRecord> inode(InodeNo ino, std::string& why) const;
  // Those that can be read; with TellOthers::Yes, the others are noted.
  enum class TellOthers { No, Yes };
  std::vector<DirentRecord> names(InodeNo dir, TellOthers tell) const;
  std::vector<SalvagedExtent> extents(InodeNo ino, TellOthers tell) const;
  std::vector<std::pair<std::string, std::string>> attributes(InodeNo ino) const;
  std::vector<uint64_t> allInodes() const;  // that anything tells of, in order

  uint32_t blockSize() const { return superblock_.blockSize; }
  // EUCLEAN if no file can have these blocks.
  Status read(uint64_t block, std::span<std::byte> into);

 private:
  SalvageSource(BlockDevice& device, const Note& note) : device_(device), note_(note) {}
  Status findSuperblock(const Tell& tell);
  Status guessSuperblock(const Tell& tell);
  Status guessFromKeys(const Tell& tell);
  void guessBlockSize();
  Status readKeys(const Note& note, const Tell& tell);
  void placeData();
  void replayFrom(const AppliedPosition& tail);
  void replayWithoutTail();

  BlockDevice& device_;
  const Note note_;
  Superblock superblock_;
  bool guessed_ = false;         // the superblock is made of what the file table says, or the keys
  bool guessBlockSize_ = false;  // when the keys are complete
  std::unique_ptr<IndexSalvage> keys_;
  std::vector<BlockRun> owned_;  // by the index, in order; none if the file table is lost
};

}  // namespace ourfs
