// Each of these rules, switched off, must be noticed by the explorer: its workloads, its oracle.
// The directed tests of the layers catch the same mutants in a state or a few (docs/testing.md);
// this shows that the explorer would have found them by itself.
#include <gtest/gtest.h>

#include "common/sync_point.h"
#include "crash/crash_explorer.h"
#include "crash/crash_program.h"
#include "mutant.h"
#include "random_seed.h"
#include "rounds.h"

namespace ourfs::crash {
namespace {

struct Mutant {
  const char* name;
  bool roundTheRing = false;
  bool discard = false;
};
class CrashMutantTest : public testing::TestWithParam<Mutant> {};

TEST_P(CrashMutantTest, IsCaught) {
  if (test::sanitized()) GTEST_SKIP() << "mutants are judged in the plain build";
  const Mutant& rule = GetParam();
  ScopedMutant mutant(rule.name);
  ExplorerOptions options;
  options.seed = test::randomSeed(rule.name);
  options.workloads = 300;  // most are caught in the first ten
  options.statesPerWorkload = 40;
  options.roundTheRing = rule.roundTheRing;
  options.discard = rule.discard;
  if (rule.roundTheRing) options.operations = 700;
  const ExplorerResult result = explore(options);
  ASSERT_GT(result.violations, 0u)
      << "in " << result.states
      << " states a filesystem without this rule was not told from one with it";
  test::reportCaught(rule.name, result.states, result.first.substr(0, result.first.find('\n')));
}

void PrintTo(const Mutant& mutant, std::ostream* to) { *to << mutant.name; }

INSTANTIATE_TEST_SUITE_P(
    Rules, CrashMutantTest,
    testing::Values(Mutant{"index.no_persist_hook"}, Mutant{"journal.one_flush"},
                    Mutant{"journal.flush_after_commit"}, Mutant{"journal.acknowledge_early"},
                    Mutant{"journal.advance_tail_early", true}, Mutant{"data.fsync_without_flush"},
                    Mutant{"space.reuse_freed_early"}, Mutant{"space.discard_early", false, true}),
    [](const auto& param) {
      std::string name = param.param.name;
      for (char& c : name)
        if (!isalnum(c)) c = '_';
      return name;
    });

// A program that leaves out an fsync breaks its promise in some state, on a filesystem that keeps
// its own: the promise is really judged.
class CrashProgramMutantTest : public testing::TestWithParam<std::pair<const char*, const char*>> {
};

TEST_P(CrashProgramMutantTest, IsCaught) {
  if (test::sanitized()) GTEST_SKIP() << "mutants are judged in the plain build";
  const auto& [name, broken] = GetParam();
  ScopedMutant mutant(name);
  ExplorerOptions options;
  options.seed = test::randomSeed(name);
  options.workloads = 80;
  options.statesPerWorkload = 40;
  const ExplorerResult result = explorePrograms(options);
  ASSERT_GT(result.violations, 0u) << "in " << result.states << " states";
  EXPECT_NE(result.first.find(broken), std::string::npos) << result.first;
  test::reportCaught(name, result.states, result.first.substr(0, result.first.find('\n')));
}

INSTANTIATE_TEST_SUITE_P(
    Programs, CrashProgramMutantTest,
    testing::Values(std::pair("program.unsynced_journal", "the database is none of those"),
                    std::pair("program.unsynced_wal", "the database is none of those"),
                    std::pair("program.unsynced_object", "is not whole"),
                    std::pair("program.unsynced_copy", "none of its versions")),
    [](const auto& param) { return std::string(param.param.first).substr(sizeof "program"); });

}  // namespace
}  // namespace ourfs::crash
