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
#include "crash/crash_trial.h"

namespace ourfs::crash {

namespace {

struct Candidate {
  uint64_t point = 0, choice = 0;
  CrashStates::Signature signature;
};
struct OneState {
  uint64_t number = 0;
  Candidate state;
};

std::optional<OneState> stateFromEnvironment(bool sequences) {
  const char* given = std::getenv("OURFS_CRASH");
  if (given == nullptr || (*given == 's') != sequences) return std::nullopt;
  OneState one;
  const int read = std::sscanf(given + (sequences ? 1 : 0), "%lu:%lu:%lu", &one.number,
                               &one.state.point, &one.state.choice);
  return read == 3 ? std::optional(one) : std::nullopt;
}

// ---- which states ----

using Random = std::mt19937_64;

// All choices at a point where they are few, else a sample of each kind.
std::vector<uint64_t> choicesAt(const CrashStates& states, Random& random) {
  constexpr size_t kAllOf = 6;
  std::vector<uint64_t> choices;
  const size_t sectors = states.volatileSectors(), writes = states.volatileWrites();
  if (sectors <= kAllOf) {
    for (uint64_t mask = 0; mask < uint64_t{1} << sectors; ++mask)
      choices.push_back(choice::ofMask(choice::kSectorMask, mask));
    return choices;
  }
  if (writes <= kAllOf) {
    for (uint64_t mask = 0; mask < uint64_t{1} << writes; ++mask)
      choices.push_back(choice::ofMask(choice::kWriteMask, mask));
  } else {
    choices = {choice::kNothing, choice::kEverything};
  }
  constexpr int kTorn = 8;
  for (int i = 0; i < kTorn; ++i) choices.push_back(random());
  return choices;
}

std::vector<Candidate> allCandidates(CrashStates& states, const History& history,
                                     const History::Window& window, Random& random) {
  std::vector<Candidate> candidates;
  auto at = [&](uint64_t point) {
    if (point < window.from || point > window.to) return;
    states.seek(point);
    for (uint64_t chosen : choicesAt(states, random))
      candidates.push_back({point, chosen, states.signatureOf(chosen)});
  };
  at(window.from);
  for (const RecordedIo& io : history.log) {
    at(io.submitted);
    at(io.completed);
  }
  at(window.to);
  return candidates;
}

// Points of the window: any moment, or one at which a request of a phase is under way, each phase
// as often as the others.
std::vector<Candidate> someCandidates(CrashStates& states, const History& history,
                                      const History::Window& window, uint64_t wanted,
                                      Random& random) {
  std::array<std::vector<uint64_t>, kPhases> points;
  for (const RecordedIo& io : history.log)
    if (io.submitted >= window.from && io.submitted <= window.to)
      points[static_cast<size_t>(phaseOf(io))].push_back(io.submitted);
  std::vector<Candidate> candidates;
  while (candidates.size() < wanted) {
    const auto& phase = points[random() % kPhases];
    const bool any = phase.empty() || random() % 3 == 0;
    const uint64_t point = any ? window.from + random() % (window.to - window.from + 1)
                               : phase[random() % phase.size()];
    const uint64_t chosen = random();
    states.seek(point);
    candidates.push_back({point, chosen, states.signatureOf(chosen)});
  }
  return candidates;
}

// No image twice; and first those whose content should differ from all others, for what the index
// or the file table had on disk changes how a state is recovered, not what.
std::vector<Candidate> pickStates(std::vector<Candidate> candidates, uint64_t wanted,
                                  Random& random) {
  std::ranges::shuffle(candidates, random);
  std::unordered_set<uint64_t> images, contents;
  std::vector<Candidate> fresh, others;
  for (const Candidate& candidate : candidates) {
    if (!images.insert(candidate.signature.image).second) continue;
    (contents.insert(candidate.signature.content).second ? fresh : others).push_back(candidate);
  }
  const size_t spared = std::min<size_t>((wanted + 4) / 5, others.size());
  if (fresh.size() > wanted - spared) fresh.resize(wanted - spared);
  others.resize(spared);
  fresh.insert(fresh.end(), others.begin(), others.end());
  std::ranges::sort(fresh, {}, &Candidate::point);
  return fresh;
}

// ---- looking at them ----

class Exploration {
 public:
  Exploration(const ExplorerOptions& options, const HistorySource& source,
              std::optional<OneState> only)
      : options_(options), source_(source), only_(only) {}

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
    const History history = source_.record(number);
    if (!history.status.isOk()) {
      result.violations = 1;
      result.first = "workload " + source_.prefix + std::to_string(number) +
                     " failed: " + history.status.message();
      return result;
    }
    result.discards = history.discards();
    CrashStates states(*history.base, history.log);
    Random random(number * 7919);
    for (const History::Window& window : history.windows) {
      for (const Candidate& state : statesOf(states, history, window, random)) {
        if (stopped_) return result;
        const std::string wrong = lookAt(states, history, state, result);
        if (wrong.empty()) continue;
        ++result.violations;
        if (result.first.empty())
          result.first = "state " + source_.prefix + std::to_string(number) + ":" +
                         std::to_string(state.point) + ":" + std::to_string(state.choice) + " " +
                         window.what + ": " + wrong + requestsBefore(history.log, state.point);
        if (result.violations >= options_.stopAfterViolations) return result;
      }
      if (only_) break;
    }
    return result;
  }

  std::vector<Candidate> statesOf(CrashStates& states, const History& history,
                                  const History::Window& window, Random& random) {
    if (only_) return {only_->state};
    constexpr uint64_t kTries = 5;
    const uint64_t wanted = source_.statesPerWindow;
    auto candidates = source_.exhaustive
                          ? allCandidates(states, history, window, random)
                          : someCandidates(states, history, window, wanted * kTries, random);
    return pickStates(std::move(candidates), wanted, random);
  }

  std::string lookAt(CrashStates& states, const History& history, const Candidate& state,
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
      if (!crashed) return "recovery: " + crashed.status().message();
      image = std::move(*crashed);
    }
    const bool unmount = nested() % options_.unmountOneIn == 0;
    const auto verdict = judgeImage(*image, options_, history.model, state.point, unmount);
    ++result.states;
    ++result.images;
    result.unmounted += unmount ? 1 : 0;
    PhaseCount& count = result.phases[static_cast<size_t>(phase)];
    ++count.states;
    if (!verdict.wrong.empty()) return verdict.wrong;
    count.contents.insert(verdict.content);
    result.contents.insert(verdict.content);
    return "";
  }

  const ExplorerOptions& options_;
  const HistorySource& source_;
  const std::optional<OneState> only_;
  std::atomic<uint64_t> next_{0};
  std::atomic<bool> stopped_{false};
  Mutex mutex_;
  ExplorerResult result_ GUARDED_BY(mutex_);
};

}  // namespace

void ExplorerResult::add(const ExplorerResult& other) {
  states += other.states;
  images += other.images;
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

bool onlyOtherKind(bool sequences) {
  return std::getenv("OURFS_CRASH") != nullptr && !stateFromEnvironment(sequences);
}

ExplorerResult exploreHistories(const ExplorerOptions& options, const HistorySource& source) {
  // Every mount takes and gives back some MiB: a tenth of the time went to the kernel for that.
  constexpr int kKept = 512 << 20, kLargest = 32 << 20;
  mallopt(M_TRIM_THRESHOLD, kKept);
  mallopt(M_MMAP_THRESHOLD, kLargest);
  spdlog::set_level(spdlog::level::warn);  // each mount tells of unlinked files
  const auto only = stateFromEnvironment(!source.prefix.empty());
  if (!only && std::getenv("OURFS_CRASH") != nullptr) return {};
  return Exploration(options, source, only).run();
}

}  // namespace ourfs::crash
