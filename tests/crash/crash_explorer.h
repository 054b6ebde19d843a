// CrashExplorer: runs a workload on the real stack over a recording device, then builds states that
// a crash could have left, and judges each: replay, fsck, the model's oracle. A tenth of them crash
// again while they are being recovered.
//
// A state is named by (workload seed, crash point, choice seed); OURFS_CRASH=seed:point:choice
// looks at one alone. Background threads make the log of a workload differ a little from run to
// run, so a name finds its state again nearly always, not always; the failing image's history is
// printed with it.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>

#include "crash/crash_model.h"
#include "crash/crash_workload.h"

namespace ourfs::crash {

struct ExplorerOptions {
  uint64_t seed = 1;
  int workloads = 10;
  int statesPerWorkload = 100;
  int operations = 120;
  bool roundTheRing = false;  // see WorkloadOptions; wants 500 operations or more
  uint32_t blockSize = 4096;
  ByteCount volumeSize{32 * MiB};
  ByteCount ballast{0};
  bool discard = false;  // every mount has the option
  bool recoveryCrashes = true;
  uint64_t stopAfterViolations = 1;
};

struct ExplorerResult {
  uint64_t states = 0;    // looked at
  uint64_t distinct = 0;  // by a hash of the recovered content
  uint64_t images = 0;    // distinct by a hash of the crash image's volatile choice
  uint64_t violations = 0;
  uint64_t discards = 0;  // in the histories
  std::string first;      // the first violation, with its name
};

ExplorerResult explore(const ExplorerOptions& options);

}  // namespace ourfs::crash
