// CrashExplorer: runs workloads on the real stack over a recording device, builds states that a
// crash could have left, and judges each: fsck, replay, the model's oracle. A tenth of them crash
// again while they are being recovered, up to three times.
//
// A state is named by its workload (a seed, "s" and the number of a batch of sequences, or "p" and
// the seed of a program), the crash point and the choice (crash_states.h).
// OURFS_CRASH=seed:point:choice, OURFS_CRASH=sbatch:point:choice or OURFS_CRASH=pseed:point:choice
// looks at one alone. Background threads make the log of a workload differ a little from run to
// run, so a name finds its state again nearly always, not always; the failing image's history is
// printed with it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_set>

#include "common/units.h"
#include "crash/crash_states.h"

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
  // One state in so many is unmounted after it was judged, and checked again.
  uint64_t unmountOneIn = 8;
  unsigned threads = 2;  // workloads at a time
};

struct PhaseCount {
  uint64_t states = 0;
  std::unordered_set<uint64_t> contents;
};

struct ExplorerResult {
  uint64_t states = 0;      // looked at
  uint64_t distinct = 0;    // by a hash of the recovered content: contents.size()
  uint64_t unmounted = 0;   // of the states; they were checked once more
  uint64_t recoveries = 0;  // crashes during recovery
  uint64_t violations = 0;
  uint64_t discards = 0;  // in the histories
  std::string first;      // the first violation, with its name
  std::unordered_set<uint64_t> contents;
  std::array<PhaseCount, kPhases> phases;
  void add(const ExplorerResult& other);
};

ExplorerResult explore(const ExplorerOptions& options);

}  // namespace ourfs::crash
