#include "iomap/mapping.h"

#include "common/sync_point.h"

namespace ourfs {

namespace {
constexpr uint64_t kErrnoBits = 16;
constexpr uint64_t kErrnoMask = (uint64_t{1} << kErrnoBits) - 1;
}  // namespace

void ErrSeq::set(int errnum) {
  const uint64_t step = mutantEnabled("iomap.error_without_counter") ? 0 : 1;
  uint64_t old = value_.load(std::memory_order_relaxed);
  uint64_t next = 0;
  do {
    next =
        ((old >> kErrnoBits) + step) << kErrnoBits | (static_cast<uint64_t>(errnum) & kErrnoMask);
  } while (!value_.compare_exchange_weak(old, next, std::memory_order_acq_rel));
}

int ErrSeq::checkAndAdvance(Cursor& cursor) {
  const uint64_t now = sample();
  if (now == cursor) return 0;
  if (mutantEnabled("iomap.error_told_to_one")) value_ = 0;
  if (!mutantEnabled("iomap.error_told_again")) cursor = now;
  return static_cast<int>(now & kErrnoMask);
}

}  // namespace ourfs
