#include "salvage/salvage_target.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>

#include "quoted.h"

namespace ourfs {

namespace {

constexpr uint32_t kModeMask = 07777;

Status systemError(const std::string& what) {
  return Status::error(errno, what + ": " + Status::error(errno).message());
}

timespec asTimespec(const Timestamp& t) { return {t.sec, static_cast<long>(t.nsec)}; }

// The kernel's 32-bit encoding, as the index has it.
dev_t deviceOf(uint32_t rdev) {
  return ::makedev((rdev & 0xfff00) >> 8, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
}

Result<bool> isEmpty(int directory) {
  const int copy = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* stream = copy < 0 ? nullptr : ::fdopendir(copy);
  if (stream == nullptr) return systemError("directory");
  bool empty = true;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view name(entry->d_name);
    empty = empty && (name == "." || name == "..");
  }
  ::closedir(stream);
  return empty;
}

}  // namespace

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) ::close(fd_);
}

Result<TargetDirectory> SalvageTarget::openRoot(const std::string& directory) {
  OwnedFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return systemError(directory);
  TRY_ASSIGN(const bool empty, isEmpty(fd.get()));
  if (!empty) return Status::error(ENOTEMPTY, directory + " is not empty: name a new directory");
  root_ = OwnedFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (root_.get() < 0) return systemError(directory);
  return TargetDirectory{std::move(fd), ""};
}

Result<std::string> SalvageTarget::freeName(const TargetDirectory& dir, const std::string& name) {
  std::string candidate = name;
  struct stat st {};
  for (int i = 1; ::fstatat(dir.fd.get(), candidate.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0; ++i)
    candidate = name + "." + std::to_string(i);
  if (errno != ENOENT) return systemError(quoted(dir.path + name));
  return candidate;
}

Result<TargetDirectory> SalvageTarget::makeDirectory(const TargetDirectory& dir,
                                                     const std::string& name) {
  TargetDirectory made;
  made.path = dir.path + name + "/";
  if (::mkdirat(dir.fd.get(), name.c_str(), 0700) != 0) return systemError(quoted(dir.path + name));
  made.fd = OwnedFd(
      ::openat(dir.fd.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (made.fd.get() < 0) return systemError(quoted(dir.path + name));
  return made;
}

Result<OwnedFd> SalvageTarget::makeFile(const TargetDirectory& dir, const std::string& name) {
  OwnedFd fd(::openat(dir.fd.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd.get() < 0) return systemError(quoted(dir.path + name));
  return fd;
}

Status SalvageTarget::makeOther(const TargetDirectory& dir, const std::string& name,
                                const InodeRecord& record) {
  const int at = dir.fd.get();
  const int made = S_ISLNK(record.mode) ? ::symlinkat(record.symlink.c_str(), at, name.c_str())
                                        : ::mknodat(at, name.c_str(), (record.mode & S_IFMT) | 0600,
                                                    deviceOf(record.rdev));
  return made == 0 ? Status::ok() : systemError(quoted(dir.path + name));
}

Status SalvageTarget::link(const std::string& path, const TargetDirectory& dir,
                           const std::string& name) {
  if (::linkat(root_.get(), path.c_str(), dir.fd.get(), name.c_str(), 0) == 0) return Status::ok();
  return systemError(quoted(dir.path + name));
}

void SalvageTarget::setAttributes(const TargetDirectory& dir, const std::string& name,
                                  const InodeRecord& record, const Attributes& attributes) {
  const int at = dir.fd.get();
  const char* path = name.empty() ? "." : name.c_str();
  const std::string where = dir.path + name;
  if (::fchownat(at, path, record.uid, record.gid, AT_SYMLINK_NOFOLLOW) != 0)
    failed("owner", where);
  if (!S_ISLNK(record.mode) && ::fchmodat(at, path, record.mode & kModeMask, 0) != 0)
    failed("permissions", where);
  // There is no setxattrat(2).
  const std::string full = "/proc/self/fd/" + std::to_string(at) + "/" + path;
  for (const auto& [key, value] : attributes) {
    if (::lsetxattr(full.c_str(), key.c_str(), value.data(), value.size(), 0) != 0)
      failed("an extended attribute", where);
  }
  const timespec times[] = {asTimespec(record.atime), asTimespec(record.mtime)};
  if (::utimensat(at, path, times, AT_SYMLINK_NOFOLLOW) != 0) failed("times", where);
}

void SalvageTarget::failed(const char* what, const std::string& where) {
  const int error = errno;
  ++notKept_;
  if (failures_[{what, error}]++ > 0) return;
  note_(quoted(where) + ": " + what + " cannot be kept: " + Status::error(error).message() +
        " (told once)");
}

}  // namespace ourfs
