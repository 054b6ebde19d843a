// Which states of a history are looked at: those that should show something new.
//
// What a replay makes of a journal is learned by looking at one state with it. With the tree that
// came out, and with where its files are, the Forecast tells for every other state with that
// journal which bytes it will show, and so whether they were seen before. It only saves time: it
// decides what is looked at, and nothing about what is right.
//
// One thread.
#pragma once

#include <cstdint>
#include <random>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "crash/crash_history.h"
#include "crash/crash_states.h"

namespace ourfs::crash {

using Random = std::mt19937_64;

struct Candidate {
  uint64_t point = 0, choice = 0;
  Phase phase = Phase::Settled;
  CrashStates::Signature signature;
};

class Forecast {
 public:
  // A state with this journal was looked at.
  bool knows(uint64_t log) const { return known_.contains(log); }
  // REQUIRES: `states` is at the candidate's point, in all three.
  void learn(const CrashStates& states, const Candidate& candidate,
             const CrashModel::Verdict& verdict);
  // Equal for states that should show the same. REQUIRES: knows(candidate.signature.log).
  uint64_t contentOf(const CrashStates& states, const Candidate& candidate) const;
  bool seen(uint64_t content) const { return seen_.contains(content); }

 private:
  struct Known {
    uint64_t shape = 0;
    std::vector<uint32_t> sectors;  // contested ones that files show
  };
  std::unordered_map<uint64_t, Known> known_;  // by the journal
  std::unordered_set<uint64_t> seen_;
};

// States of a window, in random order, no image twice. With `exhaustive` all subsets of what is
// volatile where they are few, at every request; else some more than `wanted`, at any moment or at
// a request of a phase, each phase as often as the others.
std::vector<Candidate> candidatesOf(CrashStates& states, const History& history,
                                    const History::Window& window, bool exhaustive, uint64_t wanted,
                                    Random& random);

// Takes states whose journal is not known yet out of `candidates`, one of each, by point; `wanted`
// at most, and one in eight with a record that is there in part.
std::vector<Candidate> takeUnknown(std::vector<Candidate>& candidates, const Forecast& forecast,
                                   uint64_t wanted, Random& random);

// Of the others `wanted` at most, by point: those that should show something new, each phase in its
// turn; one in ten shows what was seen before, for what the index or the file table had on disk
// changes how a state is recovered, not what.
std::vector<Candidate> pickStates(std::vector<Candidate> candidates, CrashStates& states,
                                  const Forecast& forecast, uint64_t wanted, Random& random);

}  // namespace ourfs::crash
