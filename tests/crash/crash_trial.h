// One crash image on trial: it is checked, mounted and compared with the model.
#pragma once

#include <memory>
#include <random>
#include <string>

#include "block/memory_device.h"
#include "crash/crash_explorer.h"
#include "crash/crash_model.h"
#include "fs/check.h"

namespace ourfs::crash {

// fsck -n; mount, with replay; statfs against fsck; the oracle; no orphan is left. With `unmount`
// also a clean unmount and fsck -n again; else the mount ends as in a crash.
CrashModel::Verdict judgeImage(MemoryDevice& image, const ExplorerOptions& options,
                               const CrashModel& model, uint64_t point, bool unmount);

// Its parts, after a mount: no orphan is left, the oracle, statfs against what fsck reported
// before.
CrashModel::Verdict judgeMounted(Filesystem& filesystem, const CheckReport& report,
                                 const CrashModel& model, uint64_t point);
// What statfs tells right after a mount is what fsck has counted, but for the unlinked files that
// the mount has freed meanwhile. Empty, or what is wrong.
std::string compareSpace(const StatfsReply& reply, const CheckReport& report);

// Crashes while the image is being recovered: a mount is recorded, and cut somewhere. An error is
// that of the mount, or of the unmount after it: as wrong as one of judgeImage.
Result<std::unique_ptr<MemoryDevice>> crashInRecovery(std::unique_ptr<MemoryDevice> image,
                                                      const ExplorerOptions& options,
                                                      std::mt19937_64& random);

}  // namespace ourfs::crash
