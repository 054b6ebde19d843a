#include "reclaim.h"

#include "common/sync_point.h"

namespace ourfs {

void Reclaim::run(ByteCount want) {
  size_t idle = 0;  // files in a row that gave nothing
  while (!enough(want) && idle < 2 * files_.inRound()) {
    const std::shared_ptr<DirtyFile> file = files_.useNextForReclaim();
    if (!file) return;
    idle = scan(*file, want) ? 0 : idle + 1;
    files_.unuse(file);
  }
}

void Reclaim::tryRun(ByteCount want) {
  const uint64_t busy = pool_.dirty.load() + pool_.writeback.load();
  if (enough(want) || pool_.used().v <= busy) return;
  if (busy_.exchange(true)) {
    // The other one is too slow for those who write: help it.
    if (pool_.used().v > pool_.limit().v / 16 * 17) run(ByteCount(0));
    return;
  }
  run(want);
  busy_.store(false);
}

bool Reclaim::scan(DirtyFile& file, ByteCount want) {
  Mapping& mapping = *file.mapping;
  if (mapping.pages.folios() <= mapping.pages.dirtyFolios()) return false;
  const uint64_t start = file.reclaimIndex.load();
  bool any = false, bumped = false;
  const auto sweep = [&](uint64_t from, uint64_t to) {
    for (uint64_t index = from; index < to && !enough(want); ++index) {
      const auto next = mapping.pages.nextCached(index, to);
      if (!next) return;
      index = *next;
      if (evictAt(mapping, index, bumped)) any = true;
      file.reclaimIndex.store(index + 1);
    }
  };
  sweep(start, UINT64_MAX);
  if (!enough(want)) sweep(0, start);
  return any;
}

bool Reclaim::evictAt(Mapping& mapping, uint64_t index, bool& bumped) {
  LockedFolio folio = mapping.pages.tryLock(index);
  if (!folio || folio->anyDirty() || folio->inWriteback()) return false;
  if (folio->testAndClearReferenced()) return false;
  if (!bumped) {
    // Whoever decided by a map from before that this folio need not be read must look again. The
    // conversion at the ioend made such a map stale already; this covers what is not written back.
    folio.unlock();
    {
      MutexLock lock(mapping.extents.mutex());
      mapping.extents.bump();
    }
    bumped = true;
    folio = mapping.pages.tryLock(index);
    if (!folio) return false;
  }
  SYNC_POINT("reclaim.before_evict");
  if (!mapping.pages.evict(std::move(folio))) return false;
  ++mapping.counters.foliosReclaimed;
  return true;
}

}  // namespace ourfs
