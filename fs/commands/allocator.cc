#include "allocator.h"

#ifdef OURFS_JEMALLOC
#include <jemalloc/jemalloc.h>

// Few arenas: there are as many threads as requests that wait, but few of them run.
const char* malloc_conf = "narenas:4,dirty_decay_ms:2000,muzzy_decay_ms:0";
#endif

namespace ourfs {

void returnFreedMemory() {
#ifdef OURFS_JEMALLOC
  bool on = true;
  (void)mallctl("background_thread", nullptr, nullptr, &on, sizeof(on));
#endif
}

}  // namespace ourfs
