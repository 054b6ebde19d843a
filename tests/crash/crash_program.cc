#include "crash/crash_program.h"

#include <array>

#include "common/sync_point.h"
#include "crash/crash_exploration.h"

namespace ourfs::crash {

namespace {

constexpr std::array kPrograms{
    Program{"sqlite-rollback", runSqliteRollback},
    Program{"sqlite-wal", runSqliteWal},
    Program{"git-commit", runGitCommits},
    Program{"rsync", runRsync},
};

}  // namespace

std::span<const Program> programs() { return kPrograms; }

Status syncFor(CrashActor& actor, const std::string& path, bool dataOnly, const char* mutant) {
  return mutantEnabled(mutant) ? Status::ok() : actor.syncFile(path, dataOnly);
}

ExplorerResult explorePrograms(const ExplorerOptions& options) {
  HistorySource source;
  source.prefix = "p";
  source.first = options.seed;
  source.count = static_cast<uint64_t>(options.workloads);
  source.statesPerWindow = static_cast<uint64_t>(options.statesPerWorkload);
  source.record = [&](const MemoryDevice& base, uint64_t seed) {
    const Program& program = kPrograms[seed % kPrograms.size()];
    return recordHistory(
        options, base,
        [&](Filesystem& filesystem, RecordDevice& device, History& history) -> Status {
          CrashActor actor(filesystem, device, history.model);
          Stage stage{actor, history.model, seed};
          history.status = program.run(stage);
          history.windows.push_back({1, device.mark(), program.name});
          return history.status;
        });
  };
  return exploreHistories(options, source);
}

}  // namespace ourfs::crash
