// The judge: crash states of random workloads. The mutants that it must catch are in
// crash_mutant_test.cc.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

#include "crash/crash_explorer.h"
#include "rounds.h"

namespace ourfs::crash {
namespace {

uint64_t seedFromEnvironment() {
  if (const char* given = std::getenv("OURFS_SEED")) return std::strtoull(given, nullptr, 10);
  return static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) %
         1000000007;
}

void report(const char* what, uint64_t seed, const ExplorerResult& result) {
  std::printf(
      "%s: OURFS_SEED=%lu: %lu states, %lu images, %lu distinct recovered contents, %lu "
      "violations\n",
      what, seed, result.states, result.images, result.distinct, result.violations);
}

TEST(CrashTest, EveryStateOfRandomWorkloadsKeepsThePromises) {
  ExplorerOptions options;
  options.seed = seedFromEnvironment();
  options.workloads = test::sanitized() ? 2 : test::fullRun() ? 400 : 24;
  options.statesPerWorkload = test::sanitized() ? 20 : 100;
  ExplorerResult result = explore(options);
  report("states", options.seed, result);
  EXPECT_EQ(result.violations, 0u) << result.first;
  EXPECT_EQ(result.images, result.states);
  EXPECT_GT(result.states, test::sanitized() ? 30u : 2000u);
}

TEST(CrashTest, SmallAndLargeBlocksKeepThePromises) {
  for (uint32_t blockSize : {1024u, 16384u, 65536u}) {
    ExplorerOptions options;
    options.seed = seedFromEnvironment();
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
  options.seed = seedFromEnvironment();
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
  options.seed = seedFromEnvironment();
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
