// History: what one workload wrote, and what the model knows of it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "block/record_device.h"
#include "crash/crash_explorer.h"
#include "crash/crash_model.h"

namespace ourfs::crash {

struct History {
  std::unique_ptr<MemoryDevice> base;  // before it
  std::vector<RecordedIo> log;
  CrashModel model;
  Status status;
  // States are taken from each of these parts of the clock.
  struct Window {
    uint64_t from = 0, to = 0;
    std::string what;  // for the message of a failure
  };
  std::vector<Window> windows;
  uint64_t discards() const;
};

// Nothing happens but what the workload asks for.
FilesystemOptions quietOptions();
OpenOptions openOptions(const ExplorerOptions& options);

// An empty volume, on a device whose free space shows poison.
Result<std::unique_ptr<MemoryDevice>> makeBase(const ExplorerOptions& options);
// Mounts a copy of the base and lets `work` happen. What it leaves is not unmounted.
History recordHistory(const ExplorerOptions& options, const MemoryDevice& base,
                      const std::function<Status(Filesystem&, RecordDevice&, History&)>& work);

// The last requests before a crash, for the message of a failure.
std::string requestsBefore(const std::vector<RecordedIo>& log, uint64_t point);

}  // namespace ourfs::crash
