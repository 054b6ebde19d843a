// One crash image on trial: it is checked, mounted and compared with the model.
#pragma once

#include <memory>
#include <random>
#include <string>

#include "block/memory_device.h"
#include "crash/crash_explorer.h"
#include "crash/crash_model.h"

namespace ourfs::crash {

// fsck -n; mount, with replay; statfs against fsck; the oracle; no orphan is left. With `unmount`
// also a clean unmount and fsck -n again; else the mount ends as in a crash.
CrashModel::Verdict judgeImage(MemoryDevice& image, const ExplorerOptions& options,
                               const CrashModel& model, uint64_t point, bool unmount);

// Crashes while the image is being recovered: a mount is recorded, and cut somewhere. An error is
// that of the mount, or of the unmount after it: as wrong as one of judgeImage.
Result<std::unique_ptr<MemoryDevice>> crashInRecovery(std::unique_ptr<MemoryDevice> image,
                                                      const ExplorerOptions& options,
                                                      std::mt19937_64& random);

}  // namespace ourfs::crash
