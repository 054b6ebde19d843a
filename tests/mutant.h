// How a test tells that it has noticed a rule that was switched off. The table of docs/testing.md
// ("The rules of a crash") has these lines.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace ourfs::test {

// `states`: crash states, or states of a volume, that were looked at until then. `invariant`: what
// was broken.
inline void reportCaught(const std::string& mutant, uint64_t states, const std::string& invariant) {
  std::printf("mutant %s: caught after %lu state%s: %s\n", mutant.c_str(), states,
              states == 1 ? "" : "s", invariant.c_str());
}

}  // namespace ourfs::test
