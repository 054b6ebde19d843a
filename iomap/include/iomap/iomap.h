// Iomap, IomapOps and IomapIter: the one loop through which every file operation sees its mappings.
//
//   IomapIter iter(mapping, ops, pos, length, intent);
//   while (true) {
//     TRY_ASSIGN(bool more, iter.next());      // ends the last map, begins the next
//     if (!more) break;
//     … lock a folio, then iter.valid()? else iter.markStale(); copy; iter.advance(n) …
//   }
//
// The names are Linux iomap's (Documentation/filesystems/iomap/design.rst). The protocol for stale
// maps is docs/design.md, "The stale cached map".
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "common/result.h"
#include "common/units.h"

namespace ourfs {

class Mapping;

enum class IomapType : uint8_t { Hole, Delalloc, Mapped, Unwritten, Inline };

enum IomapFlag : uint32_t {
  // set by the filesystem
  kIomapNew = 1u << 0,    // reserved by this very operation; uninitialised
  kIomapDirty = 1u << 1,  // fdatasync must commit metadata
  kIomapShared = 1u << 2,
  kIomapBoundary = 1u << 3,  // an ioend must not be merged across its start
  // set by the iterator
  kIomapSizeChanged = 1u << 8,
  kIomapStale = 1u << 9,
};

struct Iomap {
  FileOffset offset;
  ByteCount length;
  DeviceOffset address;  // of `offset`; Mapped and Unwritten
  IomapType type = IomapType::Hole;
  uint32_t flags = 0;
  uint64_t cookie = 0;  // ExtentMap::sequence() of the same mutex section
  FileOffset end() const { return offset + length; }
  DeviceOffset addressOf(FileOffset pos) const { return address + (pos - offset); }
};

enum class IomapIntent : uint8_t {
  Read,         // may see holes
  Write,        // buffered: reserves space behind holes as Delalloc (NEW); ENOSPC, EDQUOT, EFBIG
  Zero,         // zero range and tails: reserves nothing, may see holes
  DirectWrite,  // allocates real, Unwritten space behind holes and Delalloc
  Report,       // seek and fiemap
};

// What a filesystem answers to the iterator. Implemented by fs/ and by test doubles.
class IomapOps {
 public:
  virtual ~IomapOps() = default;
  // A map that covers at least the byte at `pos`; may cover more or less than `length`; whole
  // blocks. Samples map and cookie in one section of the extent map's mutex. Takes no folio lock. A
  // map with kIomapNew covers nothing but what this very call reserved.
  virtual Result<Iomap> begin(Mapping& mapping, FileOffset pos, ByteCount length,
                              IomapIntent intent) = 0;
  // Always called, once per begin, also when nothing was done. `done`: bytes from `pos` that were
  // used.
  virtual Status end(Mapping& mapping, const Iomap& map, FileOffset pos, ByteCount done,
                     IomapIntent intent) = 0;
  // Gives back the Delalloc reservation in the range (nothing else in it is touched).
  // Called with the invalidate lock held exclusively, for ranges that no dirty folio covers.
  virtual void punchDelalloc(Mapping& mapping, FileOffset from, FileOffset to) = 0;
};

class IomapIter {
 public:
  IomapIter(Mapping& mapping, IomapOps& ops, FileOffset pos, ByteCount length, IomapIntent intent);
  ~IomapIter();  // ends an open map
  IomapIter(const IomapIter&) = delete;
  IomapIter& operator=(const IomapIter&) = delete;

  // True: map() covers pos(). False: finished. Checks what the provider returns (covers the
  // position, not empty, not stale): EUCLEAN otherwise. After two rounds that were STALE without
  // progress, lockFirst() becomes true: the caller locks the folio, then calls resampleLocked().
  Result<bool> next();
  FileOffset pos() const { return pos_; }
  ByteCount remaining() const { return remaining_; }  // of the whole operation
  ByteCount length() const;  // bytes from pos() that map() covers and are wanted
  const Iomap& map() const { return map_; }

  // One load, one compare. REQUIRES: the folio that the caller decides about is locked.
  bool valid() const;
  void markStale();  // the next next() begins again at pos()
  void advance(ByteCount done);
  void setSizeChanged() { map_.flags |= kIomapSizeChanged; }  // end() is told
  bool lockFirst() const { return lockFirst_; }
  // Samples the map again while the caller holds the folio lock (begin takes no folio lock): then
  // it cannot be stale for this folio: whatever changes a block that is not uptodate in the folio
  // needs the folio lock, the inode lock or the invalidate lock.
  Status resampleLocked();

  // The parts at or behind pos() of what this operation itself reserved and did not use.
  std::vector<std::pair<FileOffset, FileOffset>> unusedNew() const;

 private:
  Status endMap();
  Result<Iomap> beginAt();
  Status begin();
  Status check(const Iomap& map) const;
  void trackNew(Iomap& map);
  Mapping& mapping_;
  IomapOps& ops_;
  const FileOffset start_;
  FileOffset pos_;
  ByteCount remaining_;
  const IomapIntent intent_;
  Iomap map_;
  FileOffset mapStart_;
  bool open_ = false, lockFirst_ = false;
  int staleRounds_ = 0;
  std::vector<std::pair<FileOffset, FileOffset>> newRanges_;  // reserved by this operation, sorted
};

}  // namespace ourfs
