// CrashWorkload: random operations on a live filesystem.
#pragma once

#include <optional>
#include <random>
#include <string>

#include "crash/crash_actor.h"

namespace ourfs::crash {

struct WorkloadOptions {
  uint64_t seed = 1;
  int operations = 120;
  // Everything is synced after every operation and nobody asks for a checkpoint, so that the log
  // goes round the ring.
  bool roundTheRing = false;
  ByteCount ballast{0};  // filled before: space is tight, freed blocks are used again at once
};

class CrashWorkload {
 public:
  CrashWorkload(Filesystem& filesystem, RecordDevice& device, CrashModel& model,
                const WorkloadOptions& options);
  // Runs all operations. An error is a failure of the filesystem (ENOSPC is not).
  Status run();

 private:
  Status step();
  Status makeBallast();
  Status changeNames(uint64_t dice);
  Status changeData(uint64_t dice);
  Status linkSome();
  Status unlinkSome();
  Status renameSome();
  Status writeSome(Writing how);
  Status truncateSome();
  Status punchSome();
  Status allocateSome();
  Status overwriteInPlace();
  Status syncSome(uint64_t dice);

  uint64_t pick(uint64_t n) { return n == 0 ? 0 : random_() % n; }
  // Whole sectors half of the time, so that more than one fits into a block; any byte else.
  uint64_t place(uint64_t at) { return pick(2) == 0 ? roundDown(at, kSector) : at; }
  std::optional<std::string> pickNode(char kind);  // a path; '*': of any kind
  std::string freshName();

  CrashActor actor_;
  CrashModel& model_;
  const WorkloadOptions options_;
  std::mt19937_64 random_;
  uint64_t nextName_ = 1;
};

}  // namespace ourfs::crash
