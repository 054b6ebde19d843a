// The time of day, as it is stored.
#pragma once

#include <time.h>

#include "index/schema.h"

namespace ourfs {

inline Timestamp wallClock() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return {t.tv_sec, static_cast<uint32_t>(t.tv_nsec)};
}

}  // namespace ourfs
