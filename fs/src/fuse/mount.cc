// Mounting through libfuse, which also knows how to do it for users without privileges.
#define FUSE_USE_VERSION 314
#include <fuse3/fuse_lowlevel.h>
#include <fuse3/fuse_opt.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <fstream>

#include "common/mutex.h"
#include "common/units.h"
#include "fs/fuse_mount.h"

namespace ourfs {

namespace {

Mutex logMutex;
std::string lastLogLine GUARDED_BY(logMutex);  // of libfuse

__attribute__((format(printf, 2, 0))) void keepLogLine(fuse_log_level, const char* format,
                                                       va_list arguments) {
  char line[512];
  int length = vsnprintf(line, sizeof(line), format, arguments);
  if (length <= 0) return;
  std::string text(line);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  MutexLock l(logMutex);
  if (!text.empty()) lastLogLine = text;
}

Status mountError(int error) {
  MutexLock l(logMutex);
  return Status::error(error ? error : EIO, lastLogLine.empty() ? "mounting failed" : lastLogLine);
}

// A comma or a backslash in a name would end the option.
std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == ',' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string optionsOf(const FuseMountRequest& r) {
  // libfuse's own defaults are nosuid,nodev.
  std::string o = "default_permissions,subtype=ourfs,fsname=" + escaped(r.source);
  o += r.readOnly ? ",ro" : ",rw";
  bool privileged = geteuid() == 0;
  if (privileged) o += r.nodev ? ",nodev" : ",dev";
  if (privileged) o += r.nosuid ? ",nosuid" : ",suid";
  if (r.noexec) o += ",noexec";
  if (r.sync) o += ",sync";
  if (r.dirsync) o += ",dirsync";
  if (r.noatime) o += ",noatime";
  if (r.allowOther) o += ",allow_other";
  if (r.block) o += ",blkdev,blksize=4096";
  return o;
}

class Mounted : public FuseMount {
 public:
  Mounted(fuse_session* session, std::string mountPoint)
      : session_(session), mountPoint_(std::move(mountPoint)) {}
  ~Mounted() override { fuse_session_destroy(session_); }
  int fd() const override { return fuse_session_fd(session_); }
  void detach(dev_t device) override {
    struct stat now {};
    if (device && (stat(mountPoint_.c_str(), &now) != 0 || now.st_dev != device)) return;
    if (geteuid() == 0) {
      umount2(mountPoint_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    } else {
      fuse_session_unmount(session_);
    }
  }

 private:
  fuse_session* const session_;
  const std::string mountPoint_;
};

void writeSetting(const std::string& path, const char* value) {
  std::ofstream out(path);
  if (out) out << value << std::flush;
}

}  // namespace

Result<std::unique_ptr<FuseMount>> FuseMount::mount(const FuseMountRequest& request) {
  fuse_set_log_func(keepLogLine);
  fuse_args arguments = FUSE_ARGS_INIT(0, nullptr);
  std::string options = optionsOf(request);
  if (fuse_opt_add_arg(&arguments, "ourfs") != 0 || fuse_opt_add_arg(&arguments, "-o") != 0 ||
      fuse_opt_add_arg(&arguments, options.c_str()) != 0)
    return Status::error(ENOMEM);
  fuse_lowlevel_ops none{};  // requests are read from the descriptor, not by libfuse
  fuse_session* session = fuse_session_new(&arguments, &none, sizeof(none), nullptr);
  fuse_opt_free_args(&arguments);
  if (!session) return mountError(EINVAL);
  errno = 0;
  if (fuse_session_mount(session, request.mountPoint.c_str()) != 0) {
    int error = errno;
    fuse_session_destroy(session);
    return mountError(error);
  }
  return std::unique_ptr<FuseMount>(new Mounted(session, request.mountPoint));
}

std::string backingDeviceDirectory(dev_t device) {
  std::string base =
      "/sys/class/bdi/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  for (const std::string& path : {base + "-fuseblk", base}) {
    struct stat found {};
    if (stat(path.c_str(), &found) == 0) return path;
  }
  return "";
}

void tuneBackingDevice(dev_t device, bool writebackCache) {
  std::string directory = backingDeviceDirectory(device);
  if (directory.empty()) return;
  writeSetting(directory + "/read_ahead_kb", "1024");
  if (!writebackCache) return;
  // Otherwise a writer is throttled at about 48 MB dirty (docs/adr/0002-fuse-session.md).
  writeSetting(directory + "/strict_limit", "0");
  writeSetting(directory + "/max_ratio", "100");
}

}  // namespace ourfs
