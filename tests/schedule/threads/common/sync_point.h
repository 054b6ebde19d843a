// Sync points under the scheduler of tests/schedule: each is a scheduling point. See mutex.h here.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "common/result.h"
#include "schedule/scheduler.h"

namespace ourfs {

class SyncPoints {
 public:
  static SyncPoints& instance() {
    static SyncPoints points;
    return points;
  }
  void setMutant(const std::string& name, bool on) {
    if (on) {
      mutants_.insert(name);
    } else {
      mutants_.erase(name);
    }
  }
  bool mutant(std::string_view name) const { return !mutants_.empty() && mutants_.contains(name); }
  // The `nth` time from now (0: the next) that this fiber comes to SYNC_POINT_TRY(point), it fails.
  void failAfter(std::string point, int nth, int errnum) {
    failing_ = std::move(point);
    whom_ = test::currentFiber();
    left_ = nth;
    errnum_ = errnum;
  }
  void reset() { failing_.clear(); }
  Status forced(std::string_view point) {
    if (failing_.empty() || test::currentFiber() != whom_) return Status::ok();
    if (point != failing_ || left_-- > 0) return Status::ok();
    return Status::error(errnum_, "forced at " + std::exchange(failing_, {}));
  }

 private:
  std::string failing_;
  const test::Fiber* whom_ = nullptr;
  int left_ = 0, errnum_ = 0;
  std::set<std::string, std::less<>> mutants_;
};

#define SYNC_POINT(name) ::ourfs::test::schedulingPoint(name)
#define SYNC_POINT_TRY(name)                           \
  do {                                                 \
    ::ourfs::test::schedulingPoint(name);              \
    TRY(::ourfs::SyncPoints::instance().forced(name)); \
  } while (0)

inline bool mutantEnabled(std::string_view name) { return SyncPoints::instance().mutant(name); }

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
