// Watchdog: ends the program if one piece of work takes too long, and says which; so that a hang is
// a failure with a name. The name is told also if the work ends the program itself.
#pragma once

#include <chrono>
#include <string>
#include <thread>

#include "common/mutex.h"

namespace ourfs::faults {

class Watchdog {
 public:
  explicit Watchdog(std::chrono::seconds limit);
  ~Watchdog();
  void begin(const std::string& work);

 private:
  void watch();

  const std::chrono::seconds limit_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::string work_ GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point since_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace ourfs::faults
