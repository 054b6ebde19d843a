// The promises of the programs: each holds at the end of a run, and each way to break it is seen.
#include "crash/crash_program.h"

#include <gtest/gtest.h>

#include <array>

#include "crash/crash_history.h"

namespace ourfs::crash {
namespace {

struct Breakage {
  const char* name;
  Status (*program)(Stage&);
  const char* noticed;  // a part of what the promise says; empty: it holds
  void (*happen)(CrashModel::Files&);
};

// The first file whose path begins so.
std::string& fileOf(CrashModel::Files& files, const std::string& prefix) {
  return files.lower_bound(prefix)->second;
}
std::string& headCommit(CrashModel::Files& files) {
  const std::string& name = files.at("refs/heads/main");
  return files.at("objects/" + name.substr(0, 2) + "/" + name.substr(2, 14));
}

constexpr std::array kBreakages{
    Breakage{"RollbackWhole", runSqliteRollback, "", [](auto&) {}},
    Breakage{"RollbackAByte", runSqliteRollback, "none of those after commits 12 to 12",
             [](auto& files) { files.at("db")[5000] ^= 1; }},
    Breakage{"RollbackNoDatabase", runSqliteRollback, "none of those",
             [](auto& files) { files.erase("db"); }},
    Breakage{"RollbackColdJournal", runSqliteRollback, "",
             [](auto& files) { files["db-journal"] = std::string(512, '\0'); }},
    Breakage{"WalWhole", runSqliteWal, "", [](auto&) {}},
    Breakage{"WalLost", runSqliteWal, "none of those after commits 24 to 24",
             [](auto& files) { files.at("db-wal").clear(); }},
    Breakage{"WalTorn", runSqliteWal, "none of those after commits 24 to 24",
             [](auto& files) { files.at("db-wal")[32 + 24 + 700] ^= 1; }},
    Breakage{"WalWithGarbageBehind", runSqliteWal, "",
             [](auto& files) { files.at("db-wal") += std::string(4120, 'x'); }},
    Breakage{"GitWhole", runGitCommits, "", [](auto&) {}},
    Breakage{"GitHalfARef", runGitCommits, "half of refs/heads/main",
             [](auto& files) { files.at("refs/heads/main").resize(9); }},
    Breakage{"GitHalfAnIndex", runGitCommits, "half of index",
             [](auto& files) { files.at("index").clear(); }},
    Breakage{"GitAnObjectIsMissing", runGitCommits, "is missing",
             [](auto& files) { files.erase(files.lower_bound("objects/")); }},
    Breakage{"GitAnObjectIsEmpty", runGitCommits, "is not whole",
             [](auto& files) { fileOf(files, "objects/").clear(); }},
    Breakage{"GitTheCommitOfTheHeadIsEmpty", runGitCommits, "is not whole",
             [](auto& files) { headCommit(files).clear(); }},
    Breakage{"RsyncWhole", runRsync, "", [](auto&) {}},
    Breakage{"RsyncHalfAFile", runRsync, "has none of its versions",
             [](auto& files) { fileOf(files, "to/f").pop_back(); }},
    Breakage{"RsyncAnotherFile", runRsync, "has none of its versions",
             [](auto& files) { files.at("to/f0") = files.at("to/f1"); }},
};

class CrashProgramTest : public testing::TestWithParam<Breakage> {};

TEST_P(CrashProgramTest, IsNoticed) {
  const ExplorerOptions options;
  auto base = makeBase(options);
  ASSERT_TRUE(base.isOk());
  const History history = recordHistory(
      options, **base, [&](Filesystem& filesystem, RecordDevice& device, History& h) -> Status {
        CrashActor actor(filesystem, device, h.model);
        Stage stage{actor, h.model, 3};
        TRY(GetParam().program(stage));
        CrashModel::Files files;
        for (const auto& [path, node] : h.model.tree().nodes)
          if (node.kind == 'f') files[path] = h.model.contentOf(node.id);
        GetParam().happen(files);
        const std::string wrong = h.model.judgePromise(files, device.mark());
        const std::string expected = GetParam().noticed;
        EXPECT_EQ(wrong.empty(), expected.empty()) << wrong;
        EXPECT_NE(wrong.find(expected), std::string::npos) << wrong;
        return Status::ok();
      });
  EXPECT_TRUE(history.status.isOk()) << history.status.message();
}

INSTANTIATE_TEST_SUITE_P(Breakages, CrashProgramTest, testing::ValuesIn(kBreakages),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace ourfs::crash
