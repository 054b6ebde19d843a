// OURFS_MUTANT=RULE switches a rule off: tests/fuzz/run makes sure that a target notices.
#include <cstdlib>

#include "common/sync_point.h"

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  if (const char* rule = std::getenv("OURFS_MUTANT")) {
    ourfs::SyncPoints::instance().setMutant(rule, true);
  }
  return 0;
}
