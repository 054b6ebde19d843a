#include "crash/crash_explorer.h"

#include "crash/crash_exploration.h"
#include "crash/crash_workload.h"

namespace ourfs::crash {

ExplorerResult explore(const ExplorerOptions& options) {
  HistorySource source;
  source.first = options.seed;
  source.count = static_cast<uint64_t>(options.workloads);
  source.statesPerWindow = static_cast<uint64_t>(options.statesPerWorkload);
  source.record = [&](const MemoryDevice& base, uint64_t seed) {
    WorkloadOptions work;
    work.seed = seed;
    work.operations = options.operations;
    work.ballast = options.ballast;
    work.roundTheRing = options.roundTheRing;
    return recordHistory(options, base,
                         [&](Filesystem& filesystem, RecordDevice& device, History& history) {
                           return CrashWorkload(filesystem, device, history.model, work).run();
                         });
  };
  return exploreHistories(options, source);
}

}  // namespace ourfs::crash
