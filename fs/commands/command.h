// What the commands share: how they fail, and how they wait for a volume that is still being
// closed.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "block/uring_device.h"
#include "common/result.h"

namespace CLI {
class App;
}

namespace ourfs {

// How long a command waits for the lock of a volume whose daemon may still be closing.
inline constexpr std::chrono::seconds kLockWait{10};

// Prints "command: subject: why; what to do" on stderr, one line, and answers `code`. The subject
// is left out where the line begins with it, the advice where there is none.
int complain(const std::string& command, const std::string& subject, const Status& why, int code);
// The same line, without printing.
std::string complaint(const std::string& command, const std::string& subject, const Status& why);

// Reads the command line. A number: exit with it; errors are one line on stderr and `usageCode`.
std::optional<int> parseArguments(CLI::App& app, int argc, char** argv, int usageCode);

// The absolute path, with every link resolved.
Result<std::string> absolutePath(const std::string& path);

// EBUSY with the mount point, if `source` is mounted: by one of our daemons, or by any filesystem.
Status checkNotMounted(const std::string& source);

// Opens and locks a volume's device. Waits for a daemon that is closing, not for one that serves.
Result<std::unique_ptr<UringDevice>> openDevice(const std::string& source, bool readOnly);

}  // namespace ourfs
