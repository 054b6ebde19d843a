// CrashWorkload: random operations on a live filesystem over a recording device, told to the model.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "block/record_device.h"
#include "crash/crash_model.h"
#include "fs/filesystem.h"

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
  struct Target {
    std::string path, parent, name;
    uint64_t id = 0, parentId = 0;
  };
  Status step();
  Status makeBallast();
  Status createFile();
  Status makeDirectory();
  Status makeSymlink();
  Status linkFile();
  Status unlinkFile();
  Status removeDirectory();
  Status renameNode();
  Status setAttribute();
  Status writeFile(bool direct);
  Status truncateFile();
  Status punchFile();
  Status syncOne(bool dataOnly);
  Status syncDirectory();
  Status syncAll();

  uint64_t pick(uint64_t n) { return n == 0 ? 0 : random_() % n; }
  std::optional<Target> pickNode(char kind);
  Target freshName();
  Target targetOf(const std::string& path);
  Result<InodeNo> inodeOf(const std::string& path);
  Status finish(Span span, const Status& done, const std::vector<uint64_t>& touched);
  uint64_t mark() { return device_.mark(); }

  Filesystem& filesystem_;
  RecordDevice& device_;
  CrashModel& model_;
  const WorkloadOptions options_;
  std::mt19937_64 random_;
  uint64_t nextId_ = 2, nextName_ = 1, nextVersion_ = 1;
  std::vector<OpenFilePtr> ballast_;
};

}  // namespace ourfs::crash
