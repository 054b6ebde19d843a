#include "crash/crash_selection.h"

#include <algorithm>
#include <array>

namespace ourfs::crash {

namespace {

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

void addCandidates(CrashStates& states, uint64_t point, const std::vector<uint64_t>& choices,
                   std::vector<Candidate>& candidates) {
  states.seek(point);
  const Phase phase = states.phase();
  for (uint64_t chosen : choices)
    candidates.push_back({point, chosen, phase, states.signatureOf(chosen)});
}

std::vector<Candidate> allCandidates(CrashStates& states, const History& history,
                                     const History::Window& window, Random& random) {
  std::vector<Candidate> candidates;
  auto at = [&](uint64_t point) {
    if (point < window.from || point > window.to) return;
    states.seek(point);
    addCandidates(states, point, choicesAt(states, random), candidates);
  };
  at(window.from);
  for (const RecordedIo& io : history.log) {
    at(io.submitted);
    at(io.completed);
  }
  at(window.to);
  return candidates;
}

std::vector<Candidate> someCandidates(CrashStates& states, const History& history,
                                      const History::Window& window, uint64_t count,
                                      Random& random) {
  constexpr int kChoices = 4;  // of each point
  std::array<std::vector<uint64_t>, kPhases> points;
  for (const RecordedIo& io : history.log)
    if (io.submitted >= window.from && io.submitted <= window.to)
      points[static_cast<size_t>(phaseOf(io))].push_back(io.submitted);
  std::vector<Candidate> candidates;
  while (candidates.size() < count) {
    const auto& phase = points[random() % kPhases];
    const bool any = phase.empty() || random() % 3 == 0;
    const uint64_t point = any ? window.from + random() % (window.to - window.from + 1)
                               : phase[random() % phase.size()];
    std::vector<uint64_t> choices(kChoices);
    for (uint64_t& chosen : choices) chosen = random();
    addCandidates(states, point, choices, candidates);
  }
  return candidates;
}

// The first of each phase, then the second of each, and so on.
std::vector<Candidate> inTurn(const std::vector<Candidate>& candidates, uint64_t wanted) {
  std::array<std::vector<Candidate>, kPhases> phases;
  for (const Candidate& candidate : candidates)
    phases[static_cast<size_t>(candidate.phase)].push_back(candidate);
  const uint64_t count = std::min<uint64_t>(wanted, candidates.size());
  std::vector<Candidate> taken;
  for (size_t turn = 0; taken.size() < count; ++turn)
    for (const auto& phase : phases)
      if (turn < phase.size() && taken.size() < count) taken.push_back(phase[turn]);
  return taken;
}

uint64_t mixTwo(uint64_t a, uint64_t b) {
  const uint64_t mixed = (a ^ b * 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
  return mixed ^ mixed >> 29;
}

}  // namespace

uint64_t Forecast::contentOf(const CrashStates& states, const Candidate& candidate) const {
  const Known& known = known_.at(candidate.signature.log);
  return mixTwo(known.shape, states.bytesOf(candidate.choice, known.sectors));
}

void Forecast::learn(const CrashStates& states, const Candidate& candidate,
                     const CrashModel::Verdict& verdict) {
  const auto [at, fresh] = known_.try_emplace(candidate.signature.log);
  if (fresh) {
    at->second.shape = verdict.shape;
    for (const Extent& extent : verdict.shown) {
      const auto sectors = states.contested(extent.address, extent.length);
      at->second.sectors.insert(at->second.sectors.end(), sectors.begin(), sectors.end());
    }
  }
  seen_.insert(contentOf(states, candidate));
}

std::vector<Candidate> candidatesOf(CrashStates& states, const History& history,
                                    const History::Window& window, bool exhaustive, uint64_t wanted,
                                    Random& random) {
  constexpr uint64_t kMore = 10;
  auto candidates = exhaustive ? allCandidates(states, history, window, random)
                               : someCandidates(states, history, window, kMore * wanted, random);
  std::ranges::shuffle(candidates, random);
  std::unordered_set<uint64_t> images;
  std::erase_if(candidates,
                [&](const Candidate& c) { return !images.insert(c.signature.image).second; });
  return candidates;
}

std::vector<Candidate> takeUnknown(std::vector<Candidate>& candidates, const Forecast& forecast,
                                   uint64_t wanted, Random& random) {
  constexpr uint64_t kTornOneIn = 8;
  std::vector<Candidate> taken;
  uint64_t torn = (wanted + random() % kTornOneIn) / kTornOneIn;
  std::unordered_set<uint64_t> logs;
  std::erase_if(candidates, [&](const Candidate& c) {
    if (taken.size() >= wanted || forecast.knows(c.signature.log)) return false;
    if (c.signature.torn && torn == 0) return false;
    if (!logs.insert(c.signature.log).second) return false;
    torn -= c.signature.torn ? 1 : 0;
    taken.push_back(c);
    return true;
  });
  std::ranges::sort(taken, {}, &Candidate::point);
  return taken;
}

std::vector<Candidate> pickStates(std::vector<Candidate> candidates, CrashStates& states,
                                  const Forecast& forecast, uint64_t wanted, Random& random) {
  constexpr uint64_t kSeenOneIn = 10;
  std::ranges::sort(candidates, {}, &Candidate::point);
  std::vector<Candidate> fresh, others;
  std::unordered_set<uint64_t> contents, logs;
  uint64_t point = kNever;
  for (const Candidate& candidate : candidates) {
    if (candidate.point != point) states.seek(point = candidate.point);
    bool isNew = !candidate.signature.torn && !logs.contains(candidate.signature.log);
    if (forecast.knows(candidate.signature.log)) {
      const uint64_t content = forecast.contentOf(states, candidate);
      isNew = !forecast.seen(content) && contents.insert(content).second;
    } else {
      logs.insert(candidate.signature.log);
    }
    (isNew ? fresh : others).push_back(candidate);
  }
  std::ranges::shuffle(fresh, random);
  std::ranges::shuffle(others, random);
  const uint64_t seen =
      std::min<uint64_t>((wanted + random() % kSeenOneIn) / kSeenOneIn, others.size());
  auto picked = inTurn(fresh, wanted - seen);
  const auto more = inTurn(others, seen);
  picked.insert(picked.end(), more.begin(), more.end());
  std::ranges::sort(picked, {}, &Candidate::point);
  return picked;
}

}  // namespace ourfs::crash
