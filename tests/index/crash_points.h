// Crash images of a recorded run: at any point, with any subset of what was not yet durable.
#pragma once

#include "block/record_device.h"
#include "random.h"

namespace ourfs::test {

// Sectors of volatile writes are there or not, at random; sometimes all, sometimes none.
inline std::unique_ptr<MemoryDevice> randomCrash(const MemoryDevice& base,
                                                 const std::vector<RecordedIo>& log, uint64_t point,
                                                 Random& random) {
  const uint64_t mode = random.below(4);
  return crashImage(base, log, point, [&](size_t, size_t) {
    return mode == 0 ? false : mode == 1 ? true : random.oneIn(2);
  });
}

}  // namespace ourfs::test
