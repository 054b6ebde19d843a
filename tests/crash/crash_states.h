// CrashStates: the states that a crash at one point of a recorded history may leave, and what was
// going on there.
//
// The rules are those of crashImage (block/record_device.h), and crash_states_test.cc compares the
// two; this one walks a history forwards and so builds an image in the time of what is volatile.
//
// A choice is a number: its three lowest bits say how, the others are a salt or a mask.
//   0 nothing volatile is there        1 all of it
//   2 every second sector, by chance   3 every second write, by chance
//   4 seven writes of eight            5 fifteen sectors of sixteen
//   6 the writes whose bit is set      7 the sectors whose bit is set; counted from the oldest
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "block/record_device.h"

namespace ourfs::crash {

// What a crash interrupts.
enum class Phase : uint8_t {
  Commit,          // a journal write
  DataWrite,       // bytes of files, or a discard
  IndexFlush,      // a table that a memtable becomes
  ManifestSwitch,  // the MANIFEST that names it
  Compaction,      // tables made of tables
  FileTable,       // where the index's files are
  Replay,          // recovery itself
  Superblock,
  Settled,  // nothing is under way, and all is durable
};
inline constexpr size_t kPhases = 9;
const char* nameOf(Phase phase);

// For RecordDevice::wrap, so that the phases of the index can be told apart. Arms sync points.
RecordDevice::Tagger phaseTagger();
Phase phaseOf(const RecordedIo& io);

namespace choice {
inline constexpr uint64_t kNothing = 0, kEverything = 1, kWriteMask = 6, kSectorMask = 7;
inline constexpr uint64_t ofMask(uint64_t how, uint64_t mask) { return mask << 3 | how; }
}  // namespace choice

class CrashStates {
 public:
  // Both outlive it.
  CrashStates(const MemoryDevice& base, const std::vector<RecordedIo>& log);

  void seek(uint64_t point);  // any order
  Phase phase() const;
  size_t volatileWrites() const { return volatile_.size(); }
  size_t volatileSectors() const { return sectors_; }

  struct Signature {
    uint64_t image = 0;  // two states with the same one are the same image
    uint64_t log = 0;    // what of the journal a replay can use; the same one: the same tree
    bool torn = false;   // the last of it is a write that is there in part
  };
  Signature signatureOf(uint64_t choice) const;
  // What bytes of files are in these sectors: two states that agree hold the same ones. Only
  // sectors that were written more than once are asked about; the log says what the others hold.
  uint64_t bytesOf(uint64_t choice, std::span<const uint32_t> sectors) const;
  // Those of [at, at + length) that bytesOf wants to be asked about. Bytes of the device.
  std::vector<uint32_t> contested(DeviceOffset at, ByteCount length) const;
  // REQUIRES: no earlier call was for a later point.
  std::unique_ptr<MemoryDevice> image(uint64_t choice);

 private:
  bool keeps(uint64_t choice, size_t write, size_t sector, size_t ordinal) const;
  void rollForward();
  void applyFresh(MemoryDevice& image, size_t write, uint64_t from, uint64_t count);

  void hashContested();
  bool rewrites(size_t write) const { return !hashes_[write].empty(); }
  void ownContested(std::unordered_map<uint32_t, size_t>& owners, size_t write, uint64_t from,
                    uint64_t count) const;

  const std::vector<RecordedIo>& log_;
  const uint64_t sector_;
  std::vector<bool> contested_;  // by sector: two requests that are not the journal's change it
  // By number in the log, of those that change such a sector: a hash of each sector's bytes, for
  // one that is written again often has the same ones. Empty for all others.
  std::vector<std::vector<uint64_t>> hashes_;
  std::vector<bool> durable_;                    // at the point
  std::unordered_map<uint32_t, size_t> owners_;  // of contested sectors, durable at the point
  std::vector<size_t> volatile_;
  size_t sectors_ = 0;
  uint64_t point_ = 0;
  Signature settled_;  // of what is durable

  std::unique_ptr<MemoryDevice> rolled_;  // the base with all that is durable
  std::vector<bool> applied_;
  std::vector<uint32_t> owner_;  // by sector: 1 + the last durable write in it, by its number
};

}  // namespace ourfs::crash
