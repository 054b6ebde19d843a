// Sync points: named places where a test can park a thread, force an error, delay or count.
//
// Always compiled in. Idle, SYNC_POINT costs one load of a global and one branch that is predicted.
// They are how races are shown without sleeps: a test arms a point, waits until a thread has
// arrived there, does something else, and lets it go on. The names are listed in docs/testing.md.
//
// Mutants use the same registry: `mutantEnabled("x")` switches one rule off, in tests only.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/result.h"

namespace ourfs {

class SyncPoints {
 public:
  static SyncPoints& instance();

  // --- For code under test ---
  static bool anyArmed() { return armed_.load(std::memory_order_relaxed) != 0; }
  // Called through SYNC_POINT when anything is armed. Counts, parks, delays; the status is an error
  // that a test has forced, to be returned as if the operation had failed.
  Status hit(std::string_view name);

  // --- For tests; safe from any thread ---
  // The next `times` threads that reach `name` stop there until release(name).
  void park(const std::string& name, int times = 1);
  // Waits until `count` threads are parked at `name`. False when `limit` passed first.
  bool awaitParked(const std::string& name, int count = 1,
                   std::chrono::milliseconds limit = std::chrono::seconds(20));
  int parked(const std::string& name) const;  // how many threads stand there now
  void release(const std::string& name);      // lets all parked there go on, and disarms parking
  void forceError(const std::string& name, int errnum, int times = 1);
  void delay(const std::string& name, std::chrono::microseconds d);
  void call(const std::string& name, std::function<void()> f);  // runs f in the arriving thread
  void count(const std::string& name);                          // starts counting
  uint64_t hits(const std::string& name) const;                 // since it was armed
  void reset();  // disarms everything, releases everyone, switches all mutants off

  void setMutant(const std::string& name, bool on);
  bool mutant(std::string_view name) const;

 private:
  SyncPoints() = default;
  static std::atomic<uint32_t> armed_;  // points armed + mutants switched on
};

// For places that cannot fail: a forced error there is ignored.
#define SYNC_POINT(name)                               \
  do {                                                 \
    if (::ourfs::SyncPoints::anyArmed()) [[unlikely]]  \
      (void)::ourfs::SyncPoints::instance().hit(name); \
  } while (0)

// For places that can fail: leaves the function with the forced error.
#define SYNC_POINT_TRY(name)                          \
  do {                                                \
    if (::ourfs::SyncPoints::anyArmed()) [[unlikely]] \
      TRY(::ourfs::SyncPoints::instance().hit(name)); \
  } while (0)

inline bool mutantEnabled(std::string_view name) {
  return SyncPoints::anyArmed() && SyncPoints::instance().mutant(name);
}

// What a mutant leaves in memory that was given back too early.
inline constexpr std::byte kFreedByMutant{0xdd};

// Switches one rule off for the time of a scope.
class ScopedMutant {
 public:
  explicit ScopedMutant(std::string name) : name_(std::move(name)) {
    SyncPoints::instance().setMutant(name_, true);
  }
  ~ScopedMutant() { SyncPoints::instance().setMutant(name_, false); }
  ScopedMutant(const ScopedMutant&) = delete;
  ScopedMutant& operator=(const ScopedMutant&) = delete;

 private:
  std::string name_;
};

}  // namespace ourfs
