#include "command.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "control.h"

namespace ourfs {

namespace {

std::string advice(const Status& why) {
  if (why.message().find(';') != std::string::npos) return "";
  switch (why.errnum()) {
    case EBUSY:
      return "unmount it, or wait until it is free";
    case EROFS:
      return "mount it with -o ro, or make it writable";
    case EACCES:
    case EPERM:
      return "run this as root";
    case ENOENT:
      return "check the path";
    default:
      return "";
  }
}

std::string errnoText(int error) { return Status::error(error).message(); }

// The mount point of a block device, as the kernel has it.
std::string kernelMountOf(dev_t device) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  while (std::getline(mounts, line)) {
    std::istringstream fields(line);
    std::string id, parent, numbers, root, target;
    fields >> id >> parent >> numbers >> root >> target;
    if (numbers == std::to_string(major(device)) + ":" + std::to_string(minor(device)))
      return target;
  }
  return "";
}

}  // namespace

std::string complaint(const std::string& command, const std::string& subject, const Status& why) {
  std::string line = why.message();
  if (!subject.empty() && line.rfind(subject, 0) != 0) line = subject + ": " + line;
  std::string what = advice(why);
  if (!what.empty()) line += "; " + what;
  return command + ": " + line;
}

int complain(const std::string& command, const std::string& subject, const Status& why, int code) {
  std::fprintf(stderr, "%s\n", complaint(command, subject, why).c_str());
  return code;
}

std::optional<int> parseArguments(CLI::App& app, int argc, char** argv, int usageCode) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& e) {
    return app.exit(e);
  } catch (const CLI::CallForVersion& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    std::fprintf(stderr, "%s: %s; see %s --help\n", app.get_name().c_str(), e.what(),
                 app.get_name().c_str());
    return usageCode;
  }
  return std::nullopt;
}

Result<std::string> absolutePath(const std::string& path) {
  std::unique_ptr<char, decltype(&std::free)> resolved(realpath(path.c_str(), nullptr), &std::free);
  if (!resolved) return Status::error(errno, path + ": " + errnoText(errno));
  return std::string(resolved.get());
}

Status checkNotMounted(const std::string& source) {
  struct stat st {};
  if (stat(source.c_str(), &st) != 0) return Status::error(errno, source + ": " + errnoText(errno));
  std::string where = S_ISBLK(st.st_mode) ? kernelMountOf(st.st_rdev) : "";
  if (where.empty()) {
    where = daemonMountOf(st.st_dev, st.st_ino);
    // A daemon whose mount is gone (or in another namespace, which umount does not wait for) is
    // about to close the volume: whoever opens it waits for the lock.
    struct stat point {
    }, parent{};
    if (!where.empty() && stat(where.c_str(), &point) == 0 &&
        stat((where + "/..").c_str(), &parent) == 0 && point.st_dev == parent.st_dev)
      where.clear();
  }
  if (where.empty()) return Status::ok();
  return Status::error(EBUSY, source + " is in use: mounted on " + where + "; unmount it first");
}

Result<std::unique_ptr<UringDevice>> openDevice(const std::string& source, bool readOnly) {
  UringOptions options;
  options.readOnly = readOnly;
  auto device = UringDevice::open(source, options);
  if (device || device.errnum() != EBUSY) return device;
  TRY(checkNotMounted(source));
  options.lockWait = kLockWait;
  return UringDevice::open(source, options);
}

}  // namespace ourfs
