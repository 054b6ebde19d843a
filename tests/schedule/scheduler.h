// Scheduler: runs the real code of iomap and writeback as fibers of one thread, one step at a time,
// in an order that a test decides.
//
// Scheduling points are the locks and the waits (threads/common/mutex.h) and the sync points; what
// is between two of them is one step. At each point where more than one fiber could go on, a
// chooser says which: the schedule is the list of its answers, and the same list gives the same
// run. That is how a race is searched for instead of hoped for, and how one that was found comes
// back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ourfs::test {

class Fiber;

// What the shadowed headers are made of. Outside of a run nothing waits and nothing happens.
void schedulingPoint(const char* what);
bool blockOn(const void* what, bool timed = false);  // false: its time ran out
void wakeOne(const void* what);
void wakeAll(const void* what);
Fiber* startFiber(std::string name, std::function<void()> body);
void joinFiber(Fiber* fiber);
const Fiber* currentFiber();
// Lets all others go on until they wait.
void letOthersFinish();

// From now on the chooser is asked; before, and after `false`, everybody goes on while he can.
void explore(bool on);

using Schedule = std::vector<uint8_t>;  // answers of the chooser

struct ScheduledRun {
  Schedule schedule;             // without the zeros at its end
  std::vector<uint8_t> options;  // how many there were at each decision
  bool stuck = false;            // nobody could go on, though not all had ended
  bool endless = false;          // too many steps
  std::string trace() const;     // the last steps, a line each

  struct Step {
    size_t fiber;
    const char* what;
  };
  std::vector<Step> steps;  // the last ones
  std::vector<std::string> fibers;
};

// Runs `body` as the first fiber until all have ended. `choose` answers below `options`; 0: whoever
// runs goes on, or if he waits the next in turn. What was left by a run that got stuck leaks.
ScheduledRun runScheduled(const std::function<void()>& body,
                          const std::function<size_t(size_t options)>& choose);

// The schedules with at most `bound` answers other than 0, each once, in depth-first order.
class BoundedSearch {
 public:
  explicit BoundedSearch(size_t bound) : bound_(bound) {}
  size_t choose(size_t options);
  // After a run. False: that was the last one.
  bool next();

 private:
  struct Decision {
    uint8_t chosen, options;
  };
  const size_t bound_;
  std::vector<Decision> decisions_;
  size_t at_ = 0;
};

// A schedule as text, and back: "3=1 17=2" are the answers that are not 0.
std::string scheduleText(const Schedule& schedule);
Schedule parseSchedule(const std::string& text);

}  // namespace ourfs::test
