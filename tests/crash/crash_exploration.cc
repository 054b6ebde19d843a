#include "crash/crash_exploration.h"

#include <malloc.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <optional>
#include <random>
#include <thread>

#include "common/mutex.h"
#include "crash/crash_selection.h"
#include "crash/crash_trial.h"

namespace ourfs::crash {

namespace {

struct OneState {
  uint64_t number = 0;
  Candidate state;
};

// Of names that begin with this, or with a digit.
std::optional<OneState> stateFromEnvironment(const std::string& prefix) {
  const char* given = std::getenv("OURFS_CRASH");
  if (given == nullptr || !std::string_view(given).starts_with(prefix)) return std::nullopt;
  OneState one;
  const int read = std::sscanf(given + prefix.size(), "%lu:%lu:%lu", &one.number, &one.state.point,
                               &one.state.choice);
  return read == 3 ? std::optional(one) : std::nullopt;
}

// ---- looking at them ----

class Exploration {
 public:
  Exploration(const ExplorerOptions& options, const HistorySource& source, const MemoryDevice& base,
              std::optional<OneState> only)
      : options_(options), source_(source), base_(base), only_(only) {}

  ExplorerResult run() {
    const unsigned threads = only_ ? 1 : std::max(1u, options_.threads);
    std::vector<std::thread> workers;
    for (unsigned i = 1; i < threads; ++i) workers.emplace_back([this] { work(); });
    work();
    for (std::thread& worker : workers) worker.join();
    MutexLock lock(mutex_);
    return std::move(result_);
  }

 private:
  void work() {
    const uint64_t count = only_ ? 1 : source_.count;
    for (uint64_t n; !stopped_ && (n = next_.fetch_add(1)) < count;) {
      const ExplorerResult one = exploreOne(only_ ? only_->number : source_.first + n);
      MutexLock lock(mutex_);
      result_.add(one);
      if (result_.violations >= options_.stopAfterViolations) stopped_ = true;
    }
  }

  ExplorerResult exploreOne(uint64_t number) {
    ExplorerResult result;
    const History history = source_.record(base_, number);
    if (!history.status.isOk()) {
      result.violations = 1;
      result.first = "workload " + source_.prefix + std::to_string(number) +
                     " failed: " + history.status.message();
      return result;
    }
    result.discards = history.discards();
    Looking looking{number,
                    history,
                    {*history.base, history.log},
                    {*history.base, history.log},
                    {},
                    Random(number * 7919)};
    for (const History::Window& window : history.windows) {
      if (!lookInto(window, looking, result) || only_) break;
    }
    return result;
  }

  // One history. Two walk through it forwards: the first looks at a state of each journal, the
  // second at what should be new by then.
  struct Looking {
    uint64_t number;
    const History& history;
    CrashStates first, second;
    Forecast forecast;
    Random random;
  };

  // Whether to go on.
  bool lookInto(const History::Window& window, Looking& looking, ExplorerResult& result) {
    if (only_) return lookAtAll({only_->state}, window, looking, looking.first, result);
    // So many of them tell the journals; most of the others then show something new.
    constexpr uint64_t kJournalsOneIn = 2;
    const uint64_t wanted = source_.statesPerWindow;
    auto candidates = candidatesOf(looking.first, looking.history, window, source_.exhaustive,
                                   wanted, looking.random);
    const auto unknown =
        takeUnknown(candidates, looking.forecast, (wanted + kJournalsOneIn - 1) / kJournalsOneIn,
                    looking.random);
    if (!lookAtAll(unknown, window, looking, looking.first, result)) return false;
    const auto others = pickStates(std::move(candidates), looking.second, looking.forecast,
                                   wanted - unknown.size(), looking.random);
    return lookAtAll(others, window, looking, looking.second, result);
  }

  bool lookAtAll(const std::vector<Candidate>& candidates, const History::Window& window,
                 Looking& looking, CrashStates& states, ExplorerResult& result) {
    for (const Candidate& state : candidates) {
      if (stopped_) return false;
      const auto verdict = lookAt(states, looking.history, state, result);
      if (verdict.wrong.empty()) {
        if (!only_) looking.forecast.learn(states, state, verdict);
        continue;
      }
      ++result.violations;
      if (result.first.empty())
        result.first = "state " + source_.prefix + std::to_string(looking.number) + ":" +
                       std::to_string(state.point) + ":" + std::to_string(state.choice) + " " +
                       window.what + ": " + verdict.wrong +
                       requestsBefore(looking.history.log, state.point);
      if (result.violations >= options_.stopAfterViolations) return false;
    }
    return true;
  }

  CrashModel::Verdict lookAt(CrashStates& states, const History& history, const Candidate& state,
                             ExplorerResult& result) {
    constexpr int kDepth = 3;
    states.seek(state.point);
    Phase phase = states.phase();
    auto image = states.image(state.choice);
    Random nested(state.choice ^ state.point << 32);
    for (int depth = 0; options_.recoveryCrashes && depth < kDepth && nested() % 10 == 0; ++depth) {
      phase = Phase::Replay;
      ++result.recoveries;
      auto crashed = crashInRecovery(std::move(image), options_, nested);
      if (!crashed) return {"recovery: " + crashed.status().message(), 0};
      image = std::move(*crashed);
    }
    const bool unmount = nested() % options_.unmountOneIn == 0;
    const auto verdict = judgeImage(*image, options_, history.model, state.point, unmount);
    ++result.states;
    result.unmounted += unmount ? 1 : 0;
    PhaseCount& count = result.phases[static_cast<size_t>(phase)];
    ++count.states;
    if (!verdict.wrong.empty()) return verdict;
    count.contents.insert(verdict.content);
    result.contents.insert(verdict.content);
    return verdict;
  }

  const ExplorerOptions& options_;
  const HistorySource& source_;
  const MemoryDevice& base_;
  const std::optional<OneState> only_;
  std::atomic<uint64_t> next_{0};
  std::atomic<bool> stopped_{false};
  Mutex mutex_;
  ExplorerResult result_ GUARDED_BY(mutex_);
};

}  // namespace

void ExplorerResult::add(const ExplorerResult& other) {
  states += other.states;
  unmounted += other.unmounted;
  recoveries += other.recoveries;
  violations += other.violations;
  discards += other.discards;
  if (first.empty()) first = other.first;
  contents.insert(other.contents.begin(), other.contents.end());
  distinct = contents.size();
  for (size_t i = 0; i < kPhases; ++i) {
    phases[i].states += other.phases[i].states;
    phases[i].contents.insert(other.phases[i].contents.begin(), other.phases[i].contents.end());
  }
}

ExplorerResult exploreHistories(const ExplorerOptions& options, const HistorySource& source) {
  // Every mount takes and gives back some MiB: a tenth of the time went to the kernel for that.
  constexpr int kKept = 512 << 20, kLargest = 32 << 20;
  mallopt(M_TRIM_THRESHOLD, kKept);
  mallopt(M_MMAP_THRESHOLD, kLargest);
  spdlog::set_level(spdlog::level::warn);  // each mount tells of unlinked files
  const auto only = stateFromEnvironment(source.prefix);
  if (!only && std::getenv("OURFS_CRASH") != nullptr) return {};
  const auto base = makeBase(options);
  if (!base) {
    ExplorerResult failed;
    failed.violations = 1;
    failed.first = "mkfs: " + base.status().message();
    return failed;
  }
  return Exploration(options, source, **base, only).run();
}

}  // namespace ourfs::crash
