// Progress: tells how far a check has got, about a hundred times a phase.
#pragma once

#include <functional>

#include "fs/check.h"

namespace ourfs {

class Progress {
 public:
  using Tell = std::function<void(const CheckProgress&)>;
  explicit Progress(const Tell& tell) : tell_(tell) {}

  // `total`: steps that are to come; 0 if nobody knows.
  void begin(CheckPhase phase, uint64_t total = 0) {
    now_.phase = phase;
    now_.done = told_ = 0;
    now_.total = total;
    if (tell_) tell_(now_);
  }
  void at(uint64_t done, uint64_t total) {
    now_.done = done;
    now_.total = total;
    if (!tell_ || done - told_ <= total / 100) return;
    told_ = done;
    tell_(now_);
  }
  void step() { at(now_.done + 1, now_.total); }

 private:
  const Tell tell_;
  CheckProgress now_;
  uint64_t told_ = 0;
};

}  // namespace ourfs
