// Programs: what real ones do to keep their files whole over a crash, call by call, and what they
// promise for it. Each tells its promise to the model, so that every state is judged by it, too.
//
// The calls are those that strace shows (sqlite 3.40, git 2.39, rsync 3.2), without what is no
// change of a file; sqlite's files are described in https://www.sqlite.org/fileformat2.html, but
// here their checksums are CRC-32C.
//   sqlite-rollback  journal_mode=delete, synchronous=extra: a transaction is there or not, and is
//                    there once the directory without the journal was synced
//   sqlite-wal       journal_mode=wal, synchronous=full: is there once the log was synced;
//                    checkpoints that restart or cut the log
//   git-commit       core.fsync=all: a ref and the index name only objects that are whole, and so
//                    do these
//   rsync            --fsync: each file has one of its versions, whole
#pragma once

#include <cstdint>
#include <span>

#include "crash/crash_actor.h"
#include "crash/crash_explorer.h"

namespace ourfs::crash {

// What a program runs on. The random numbers say how much it does each time.
struct Stage {
  CrashActor& actor;
  CrashModel& model;
  uint64_t seed = 1;
};

struct Program {
  const char* name;
  Status (*run)(Stage& stage);
};
std::span<const Program> programs();

// options.workloads histories, each of the programs in its turn, begin with the seed. Their states
// are named "p", the number, the point and the choice.
ExplorerResult explorePrograms(const ExplorerOptions& options);

// An fsync (or fdatasync) on which the promise rests. The mutant of that name leaves it out, and
// the explorer has to notice.
Status syncFor(CrashActor& actor, const std::string& path, bool dataOnly, const char* mutant);

// The programs.
Status runSqliteRollback(Stage& stage);
Status runSqliteWal(Stage& stage);
Status runGitCommits(Stage& stage);
Status runRsync(Stage& stage);

}  // namespace ourfs::crash
