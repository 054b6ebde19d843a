// A state is found again by its name.
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <set>

#include "crash/crash_program.h"
#include "crash/crash_sequence.h"

namespace ourfs::crash {
namespace {

class CrashReplayTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const char* given = std::getenv("OURFS_CRASH")) given_ = given;
    unsetenv("OURFS_CRASH");
  }
  void TearDown() override {
    unsetenv("OURFS_CRASH");
    if (given_) setenv("OURFS_CRASH", given_->c_str(), 1);
  }
  ExplorerResult sequences() {
    // So few that no background thread of the index has a say: the history is always the same.
    std::vector<Sequence> some = shortSequences();
    some.resize(3);
    return exploreSequences(options_, some);
  }
  static void name(const std::string& state) { setenv("OURFS_CRASH", state.c_str(), 1); }

  ExplorerOptions options_;
  std::optional<std::string> given_;
};

TEST_F(CrashReplayTest, ANameOfASequenceAlwaysLeadsToTheSameContent) {
  std::set<uint64_t> different;
  for (int point = 30; point <= 150; point += 15) {
    for (const int choice : {0, 1, 2}) {
      name("s0:" + std::to_string(point) + ":" + std::to_string(choice));
      const ExplorerResult once = sequences(), again = sequences();
      ASSERT_EQ("", once.first + again.first);
      ASSERT_EQ(once.states, 1u);
      ASSERT_EQ(again.states, 1u);
      ASSERT_EQ(once.contents, again.contents) << point << ":" << choice;
      different.insert(once.contents.begin(), once.contents.end());
    }
  }
  EXPECT_GT(different.size(), 5u);
}

TEST_F(CrashReplayTest, OtherKindsOfStatesAreLeftAlone) {
  options_.workloads = 1;
  options_.statesPerWorkload = 1;
  for (const char* state : {"1:50:1", "p1:50:1"}) {
    name(state);
    EXPECT_EQ(sequences().states, 0u) << state;
  }
  name("s0:50:1");
  EXPECT_EQ(explore(options_).states, 0u);
  EXPECT_EQ(explorePrograms(options_).states, 0u);
  name("p3:50:1");
  EXPECT_EQ(explore(options_).states, 0u);
  EXPECT_EQ(explorePrograms(options_).states, 1u);
}

}  // namespace
}  // namespace ourfs::crash
