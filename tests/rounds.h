// How often a test repeats itself. The sanitizers make everything five to fifteen times slower, and
// judge the code rather than the odds: under them (OURFS_SANITIZED) an eighth is done, but all of
// it with OURFS_FULL=1.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace ourfs::test {

inline bool fullRun() {
  const char* full = std::getenv("OURFS_FULL");
  return full != nullptr && std::string_view(full) == "1";
}
inline bool sanitized() { return std::getenv("OURFS_SANITIZED") != nullptr; }
inline bool shortened() { return sanitized() && !fullRun(); }

// Whether to leave out what is one thread's work. The thread sanitizer has nothing to say to it.
inline bool onlyThreadsCount() {
#if defined(__SANITIZE_THREAD__)
  return !fullRun();
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
  return !fullRun();
#endif
#endif
  return false;
}

template <class Count>
Count rounds(Count plain) {
  return shortened() ? std::max(plain / 8, Count{1}) : plain;
}

}  // namespace ourfs::test
