// Checks that guard the disk: on in release too.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace ourfs {

// Ends the process when a caller broke a contract whose breach would reach the disk.
inline void require(bool holds, const char* what) {
  if (holds) [[likely]]
    return;
  std::fprintf(stderr, "ourfs: iomap: broken contract: %s\n", what);
  std::abort();
}

}  // namespace ourfs
