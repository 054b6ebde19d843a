// The judge: crash states of random workloads. The mutants that it must catch are in
// crash_mutant_test.cc.
#include <gtest/gtest.h>

#include <cstdlib>

#include "crash/crash_explorer.h"
#include "crash/crash_program.h"
#include "crash/crash_sequence.h"
#include "random_seed.h"
#include "rounds.h"

namespace ourfs::crash {
namespace {

void report(const char* what, uint64_t seed, const ExplorerResult& result) {
  std::printf(
      "%s: OURFS_SEED=%lu: %lu states, %lu distinct recovered contents, %lu crashes during "
      "recovery, %lu unmounted and checked again, %lu violations\n",
      what, seed, result.states, result.distinct, result.recoveries, result.unmounted,
      result.violations);
  std::fflush(stdout);  // the next part takes its time
}

void reportPhases(const ExplorerResult& result) {
  for (size_t i = 0; i < kPhases; ++i)
    std::printf("  %-16s %8lu states %8zu distinct contents\n", nameOf(static_cast<Phase>(i)),
                result.phases[i].states, result.phases[i].contents.size());
}

std::vector<Sequence> sequencesOf(uint64_t seed) {
  std::vector<Sequence> sequences = shortSequences();
  if (test::sanitized()) {
    sequences.resize(48);
    return sequences;
  }
  if (test::fullRun()) {
    const auto more = longSequences();
    sequences.insert(sequences.end(), more.begin(), more.end());
  }
  const auto sampled = sampledSequences(test::fullRun() ? 4000 : 240, seed);
  sequences.insert(sequences.end(), sampled.begin(), sampled.end());
  return sequences;
}

// So many states that differ in what was recovered, in every phase, and none that breaks a promise.
// Random workloads go on until there are enough.
TEST(CrashTest, EveryStateOfSequencesProgramsAndRandomWorkloadsKeepsThePromises) {
  constexpr int kRound = 16;
  const bool small = test::sanitized(), full = test::fullRun();
  const bool one = std::getenv("OURFS_CRASH") != nullptr;
  const uint64_t wanted = small ? 40 : full ? 500'000 : 20'000;
  ExplorerOptions options;
  options.seed = test::randomSeed("states");
  const std::vector<Sequence> sequences = sequencesOf(options.seed);
  options.statesPerWorkload = small ? 1 : full ? 20 : 4;
  ExplorerResult total = exploreSequences(options, sequences);
  report("sequences", options.seed, total);
  std::printf("  %zu sequences of %zu operations\n", sequences.size(), operationCount());

  options.workloads = small ? 4 : full ? 400 : 16;
  options.statesPerWorkload = small ? 3 : 60;
  const ExplorerResult programs = explorePrograms(options);
  report("programs", options.seed, programs);
  total.add(programs);

  options.workloads = small ? 2 : kRound;
  options.statesPerWorkload = small ? 20 : 150;
  ExplorerResult random;
  const uint64_t begin = options.seed, mostRounds = one ? 1 : 1 + wanted / 100;
  for (uint64_t round = 0; round < mostRounds && total.violations == 0; ++round) {
    if (round > 0 && total.distinct >= wanted) break;
    const ExplorerResult some = explore(options);
    options.seed += static_cast<uint64_t>(options.workloads);
    random.add(some);
    total.add(some);
  }
  report("random workloads", begin, random);
  report("all", begin, total);
  reportPhases(total);
  EXPECT_EQ(total.violations, 0u) << total.first;
  if (one) return;
  EXPECT_GE(total.distinct, wanted);
  for (size_t i = 0; i < kPhases && !small; ++i)
    EXPECT_GT(total.phases[i].contents.size(), 0u) << nameOf(static_cast<Phase>(i));
}

TEST(CrashTest, SmallAndLargeBlocksKeepThePromises) {
  for (uint32_t blockSize : {1024u, 16384u, 65536u}) {
    ExplorerOptions options;
    options.seed = test::randomSeed("block size");
    options.blockSize = blockSize;
    options.workloads = test::sanitized() ? 1 : 3;
    options.statesPerWorkload = test::sanitized() ? 10 : 50;
    ExplorerResult result = explore(options);
    report("block size", options.seed, result);
    EXPECT_EQ(result.violations, 0u) << "block size " << blockSize << ": " << result.first;
  }
}

TEST(CrashTest, ALogThatGoesRoundTheRingKeepsThePromises) {
  ExplorerOptions options;
  options.seed = test::randomSeed("round the ring");
  options.roundTheRing = true;
  options.operations = 700;
  options.workloads = test::sanitized() ? 1 : 3;
  options.statesPerWorkload = test::sanitized() ? 5 : 50;
  ExplorerResult result = explore(options);
  report("round the ring", options.seed, result);
  EXPECT_EQ(result.violations, 0u) << result.first;
}

// What is discarded reads as poison.
TEST(CrashTest, DiscardedSpaceKeepsThePromises) {
  ExplorerOptions options;
  options.seed = test::randomSeed("discard");
  options.discard = true;
  options.workloads = test::sanitized() ? 1 : 6;
  options.statesPerWorkload = test::sanitized() ? 10 : 50;
  ExplorerResult result = explore(options);
  report("discard", options.seed, result);
  EXPECT_EQ(result.violations, 0u) << result.first;
  if (!test::sanitized()) {
    EXPECT_GT(result.discards, 10u);
  }
}

}  // namespace
}  // namespace ourfs::crash
