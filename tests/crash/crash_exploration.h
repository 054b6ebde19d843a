// Explores numbered histories, some at a time in threads of their own.
#pragma once

#include <functional>

#include "crash/crash_history.h"

namespace ourfs::crash {

struct HistorySource {
  std::string prefix;  // of the names of states
  uint64_t first = 1, count = 1;
  // With it, a window's states are all subsets where they are few, at every request; else some of
  // them at random.
  bool exhaustive = false;
  uint64_t statesPerWindow = 100;
  // `base`: an empty volume, the same for all.
  std::function<History(const MemoryDevice& base, uint64_t number)> record;
};

// A volume that cannot be made counts as a violation.
ExplorerResult exploreHistories(const ExplorerOptions& options, const HistorySource& source);

}  // namespace ourfs::crash
