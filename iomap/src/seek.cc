// SEEK_DATA and SEEK_HOLE.
#include <algorithm>

#include "folio_fill.h"
#include "iomap/operations.h"

namespace ourfs {

namespace {

struct Run {
  bool data = false;
  FileOffset end;
};

// The run of data, or of no data, that begins at `pos`. Looks for busy folios before it samples the
// map: what is clean then was converted before, so the map cannot miss it.
class RunFinder {
 public:
  RunFinder(Mapping& mapping, IoContext& io) : mapping_(mapping), io_(io) {}

  Result<Run> at(FileOffset pos, FileOffset size) {
    for (;;) {
      const uint64_t first = folioIndex(mapping_, pos);
      const auto busy = mapping_.pages.nextBusy(first, folioIndexUp(mapping_, size));
      TRY_ASSIGN(const Iomap map, sample(pos, size));
      const FileOffset end = std::min(map.end(), size);
      if (map.type == IomapType::Mapped) return Run{true, end};
      if (map.type == IomapType::Hole || !busy) return Run{false, end};
      if (*busy > first)
        return Run{false, std::min(end, FileOffset(*busy * mapping_.pages.folioSize()))};
      LockedFolio folio = mapping_.pages.lock(first);
      if (folio && (folio->anyDirty() || folio->inWriteback())) return inFolio(*folio, pos, end);
      // Written back meanwhile: the map knows now.
    }
  }

 private:
  Result<Iomap> sample(FileOffset pos, FileOffset size) {
    IomapIter iter(mapping_, io_.ops, pos, size - pos, IomapIntent::Report);
    TRY(iter.next());
    return iter.map();
  }

  static Run inFolio(Folio& folio, FileOffset pos, FileOffset end) {
    const uint32_t size = folio.blockSize();
    const auto isData = [&](uint32_t b) {
      return folio.dirty(b) || (folio.inWriteback() && folio.uptodate(b));
    };
    auto b = static_cast<uint32_t>((pos - folio.offset()).v / size);
    const bool data = isData(b);
    while (b < folio.blocks() && isData(b) == data) ++b;
    return Run{data, std::min(end, folio.offset() + ByteCount(uint64_t{b} * size))};
  }

  Mapping& mapping_;
  IoContext& io_;
};

// The first position in [from, size) that is data, or is not; `size` if there is none.
Result<FileOffset> seek(Mapping& mapping, IoContext& io, FileOffset from, FileOffset size,
                        bool data) {
  if (from >= size) return Status::error(ENXIO);
  RunFinder runs(mapping, io);
  for (FileOffset pos = from; pos < size;) {
    TRY_ASSIGN(const Run run, runs.at(pos, size));
    if (run.data == data) return pos;
    pos = run.end;
  }
  return size;
}

}  // namespace

Result<FileOffset> seekData(Mapping& mapping, IoContext& io, FileOffset from) {
  const FileOffset size(mapping.size.load());
  TRY_ASSIGN(const FileOffset found, seek(mapping, io, from, size, true));
  if (found == size) return Status::error(ENXIO);
  return found;
}

Result<FileOffset> seekHole(Mapping& mapping, IoContext& io, FileOffset from) {
  return seek(mapping, io, from, FileOffset(mapping.size.load()), false);
}

}  // namespace ourfs
