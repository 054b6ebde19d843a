#include "iomap/mapping.h"

namespace ourfs {

namespace {
constexpr uint64_t kErrnoBits = 16;
constexpr uint64_t kErrnoMask = (uint64_t{1} << kErrnoBits) - 1;
}  // namespace

void ErrSeq::set(int errnum) {
  uint64_t old = value_.load(std::memory_order_relaxed);
  uint64_t next = 0;
  do {
    next = ((old >> kErrnoBits) + 1) << kErrnoBits | (static_cast<uint64_t>(errnum) & kErrnoMask);
  } while (!value_.compare_exchange_weak(old, next, std::memory_order_acq_rel));
}

int ErrSeq::checkAndAdvance(Cursor& cursor) const {
  const uint64_t now = sample();
  if (now == cursor) return 0;
  cursor = now;
  return static_cast<int>(now & kErrnoMask);
}

}  // namespace ourfs
