// The options of a mount: the comma-separated list behind -o, as mount(8) and fstab hand it over.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "common/result.h"
#include "common/units.h"
#include "fs/filesystem.h"

namespace ourfs {

struct MountOptions {
  // Of every filesystem.
  bool readOnly = false, sync = false, dirsync = false, nodev = false, nosuid = false,
       noexec = false;
  AtimeMode atime = AtimeMode::Relative;
  bool remount = false;
  bool sloppy = false;  // mount -s: unknown options are left out
  // Ours.
  bool allowOther = true, posixAcl = true, writebackCache = false, noRecovery = false,
       discard = false, debugPoints = false;
  ByteCount cacheSize{256 * MiB};
  ByteCount dirtyLimit{0}, dirtyBackground{0};  // 0: a share of the cache
  std::chrono::seconds commit{5};
  std::string logLevel = "info", logFile;  // no file: syslog, or stderr in the foreground
  bool foreground = false;
  unsigned threads = 2;

  // Reads one list into this; later options win over earlier ones. EINVAL with a line that names
  // the option and, where it can, says what would do.
  Status add(const std::string& list);
  // What only the whole tells: a limit above the cache, norecovery without ro. Called once, at the
  // end.
  Status check() const;
};

}  // namespace ourfs
