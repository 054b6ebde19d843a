#include "schedule/scheduler.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <memory>
#include <sstream>
#include <utility>

namespace ourfs::test {

namespace {
constexpr size_t kStack = 512 * 1024;
constexpr size_t kMostSteps = 50000;
constexpr size_t kStepsKept = 400;
}  // namespace

class Fiber {
 public:
  size_t number = 0;
  std::function<void()> body;
  ucontext_t context{};
  void* stack = nullptr;
  enum class State { Ready, Blocked, Ended } state = State::Ready;
  const void* blockedOn = nullptr;
  bool timed = false, timedOut = false;
};

namespace {

class Scheduler {
 public:
  ScheduledRun run(const std::function<void()>& body, const std::function<size_t(size_t)>& choose) {
    ScheduledRun result;
    run_ = &result;
    choose_ = &choose;
    exploring_ = false;
    fibers_.clear();
    start("main", body);
    current_ = nullptr;
    steps_ = 0;
    while (Fiber* next = pick()) {
      current_ = next;
      swapcontext(&home_, &next->context);
      if (result.endless) break;
    }
    for (auto& fiber : fibers_) {
      if (fiber->state == Fiber::State::Ended) {
        stacks_.push_back(fiber->stack);
      } else {
        result.stuck = !result.endless;
        (void)fiber.release();  // somebody may still have its address
      }
    }
    current_ = nullptr;
    run_ = nullptr;
    while (!result.schedule.empty() && result.schedule.back() == 0) result.schedule.pop_back();
    return result;
  }

  Fiber* start(std::string name, std::function<void()> body) {
    auto fiber = std::make_unique<Fiber>();
    fiber->number = fibers_.size();
    run_->fibers.push_back(std::move(name) + " " + std::to_string(fiber->number));
    fiber->body = std::move(body);
    fiber->stack = takeStack();
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = kStack;
    fiber->context.uc_link = &home_;
    makecontext(&fiber->context, &Scheduler::enter, 0);
    fibers_.push_back(std::move(fiber));
    return fibers_.back().get();
  }

  bool running() const { return current_ != nullptr; }
  void explore(bool on) { exploring_ = on; }

  void point(const char* what) {
    note(what);
    if (++steps_ > kMostSteps) {
      run_->endless = true;
      leave();
    }
    if (!exploring_) return;
    const std::vector<Fiber*> ready = readyFrom(current_);
    if (Fiber* next = decide(ready); next != current_) {
      preferred_ = next;
      leave();
    }
  }

  bool block(const void* what, bool timed) {
    Fiber* const self = current_;
    note("waits");
    self->state = Fiber::State::Blocked;
    self->blockedOn = what;
    self->timed = timed;
    self->timedOut = false;
    leave();
    return !self->timedOut;
  }

  void wake(const void* what, bool all) {
    for (const auto& fiber : fibers_) {
      if (fiber->state != Fiber::State::Blocked || fiber->blockedOn != what) continue;
      fiber->state = Fiber::State::Ready;
      if (!all) return;
    }
  }

 private:
  static void enter();

  void note(const char* what) {
    if (run_->steps.size() == kStepsKept) {
      run_->steps.erase(run_->steps.begin(), run_->steps.begin() + kStepsKept / 2);
    }
    run_->steps.push_back({current_->number, what});
  }
  void leave() { swapcontext(&current_->context, &home_); }

  // Those who can go on, `first` in front, the others in turn behind it.
  std::vector<Fiber*> readyFrom(const Fiber* first) const {
    std::vector<Fiber*> ready;
    size_t at = 0;
    while (at < fibers_.size() && fibers_[at].get() != first) ++at;
    for (size_t i = 0; i < fibers_.size(); ++i) {
      Fiber* const fiber = fibers_[(at + i) % fibers_.size()].get();
      if (fiber->state == Fiber::State::Ready) ready.push_back(fiber);
    }
    return ready;
  }

  Fiber* decide(const std::vector<Fiber*>& ready) {
    if (ready.size() == 1 || !exploring_) return ready.front();
    const size_t chosen = (*choose_)(ready.size());
    run_->schedule.push_back(static_cast<uint8_t>(chosen));
    run_->options.push_back(static_cast<uint8_t>(ready.size()));
    return ready.at(chosen);
  }

  // Whom to go on with, when whoever ran has left. Null: all have ended, or nobody can.
  Fiber* pick() {
    if (preferred_) return std::exchange(preferred_, nullptr);
    const std::vector<Fiber*> ready = readyFrom(current_);
    if (!ready.empty()) return decide(ready);
    for (const auto& fiber : fibers_) {
      if (fiber->state != Fiber::State::Blocked || !fiber->timed) continue;
      fiber->timedOut = true;
      fiber->state = Fiber::State::Ready;
      if (++steps_ > kMostSteps) run_->endless = true;
      return run_->endless ? nullptr : fiber.get();
    }
    return nullptr;
  }

  void* takeStack() {
    if (stacks_.empty()) {
      void* const made = mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (made == MAP_FAILED) std::abort();
      return made;
    }
    void* const stack = stacks_.back();
    stacks_.pop_back();
    return stack;
  }

  ScheduledRun* run_ = nullptr;
  const std::function<size_t(size_t)>* choose_ = nullptr;
  bool exploring_ = false;
  size_t steps_ = 0;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  Fiber* current_ = nullptr;
  Fiber* preferred_ = nullptr;
  ucontext_t home_{};
  std::vector<void*> stacks_;

  friend Fiber* self();
};

Scheduler& scheduler() {
  static Scheduler s;
  return s;
}

Fiber* self() { return scheduler().current_; }

void Scheduler::enter() {
  Fiber* const fiber = self();
  fiber->body();
  fiber->body = nullptr;
  fiber->state = Fiber::State::Ended;
  wakeAll(fiber);
}

}  // namespace

void schedulingPoint(const char* what) {
  if (scheduler().running()) scheduler().point(what);
}
bool blockOn(const void* what, bool timed) {
  if (!scheduler().running()) std::abort();  // nobody is there who could end it
  return scheduler().block(what, timed);
}
void wakeOne(const void* what) {
  if (scheduler().running()) scheduler().wake(what, false);
}
void wakeAll(const void* what) {
  if (scheduler().running()) scheduler().wake(what, true);
}
Fiber* startFiber(std::string name, std::function<void()> body) {
  return scheduler().start(std::move(name), std::move(body));
}
void joinFiber(Fiber* fiber) {
  while (fiber->state != Fiber::State::Ended) (void)blockOn(fiber);
}
const Fiber* currentFiber() { return self(); }
void letOthersFinish() {
  const int nothing = 0;
  (void)blockOn(&nothing, true);
}
void explore(bool on) { scheduler().explore(on); }

ScheduledRun runScheduled(const std::function<void()>& body,
                          const std::function<size_t(size_t options)>& choose) {
  return scheduler().run(body, choose);
}

std::string ScheduledRun::trace() const {
  std::ostringstream text;
  const size_t first = steps.size() - std::min<size_t>(steps.size(), 80);
  for (size_t i = first; i < steps.size(); ++i) {
    text << "  " << fibers[steps[i].fiber] << ": " << steps[i].what << "\n";
  }
  return text.str();
}

size_t BoundedSearch::choose(size_t options) {
  if (at_ == decisions_.size()) decisions_.push_back({0, static_cast<uint8_t>(options)});
  return decisions_[at_++].chosen;
}

bool BoundedSearch::next() {
  decisions_.resize(at_);
  at_ = 0;
  while (!decisions_.empty()) {
    Decision& last = decisions_.back();
    const auto used = static_cast<size_t>(std::count_if(
        decisions_.begin(), decisions_.end() - 1, [](const Decision& d) { return d.chosen != 0; }));
    if (used < bound_ && last.chosen + 1 < last.options) {
      ++last.chosen;
      return true;
    }
    decisions_.pop_back();
  }
  return false;
}

std::string scheduleText(const Schedule& schedule) {
  std::ostringstream text;
  for (size_t i = 0; i < schedule.size(); ++i) {
    if (schedule[i] != 0) text << (text.tellp() > 0 ? " " : "") << i << "=" << int{schedule[i]};
  }
  return text.str();
}

Schedule parseSchedule(const std::string& text) {
  Schedule schedule;
  std::istringstream in(text);
  size_t at = 0;
  char equals = 0;
  int chosen = 0;
  while (in >> at >> equals >> chosen) {
    if (schedule.size() <= at) schedule.resize(at + 1);
    schedule[at] = static_cast<uint8_t>(chosen);
  }
  return schedule;
}

}  // namespace ourfs::test
