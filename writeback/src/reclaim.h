// Reclaim: evicts clean folios, in turn over all files, with a second chance for those used lately.
// Takes folio locks only where it need not wait for them; safe from any thread that holds none.
#pragma once

#include <atomic>

#include "file_list.h"
#include "iomap/page_cache.h"

namespace ourfs {

class Reclaim {
 public:
  Reclaim(FileList& files, FolioPool& pool) : files_(files), pool_(pool) {}

  // Until the pool is below its limit by `want`, or two rounds have found nothing more.
  void run(ByteCount want);
  // The same, unless another thread is at it and keeps up, or nothing seems to be clean.
  void tryRun(ByteCount want);

 private:
  bool enough(ByteCount want) const { return pool_.used() + want <= pool_.limit(); }
  bool scan(DirtyFile& file, ByteCount want);
  bool evictAt(Mapping& mapping, uint64_t index, bool& bumped);

  FileList& files_;
  FolioPool& pool_;
  std::atomic<bool> busy_{false};
};

}  // namespace ourfs
