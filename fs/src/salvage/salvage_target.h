// SalvageTarget: makes files in the directory that salvage copies to. Everything is made anew and
// relative to an open directory: no link on the way is followed.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/result.h"
#include "index/schema.h"

namespace ourfs {

// An open file descriptor.
class OwnedFd {
 public:
  explicit OwnedFd(int fd = -1) : fd_(fd) {}
  ~OwnedFd();
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

struct TargetDirectory {
  OwnedFd fd;
  std::string path;  // for messages, from the directory that is copied to
};

class SalvageTarget {
 public:
  using Note = std::function<void(const std::string&)>;
  explicit SalvageTarget(Note note) : note_(std::move(note)) {}

  Result<TargetDirectory> openRoot(const std::string& directory);
  // A name that is not taken: `name`, or with a number behind it.
  Result<std::string> freeName(const TargetDirectory& dir, const std::string& name);
  Result<TargetDirectory> makeDirectory(const TargetDirectory& dir, const std::string& name);
  Result<OwnedFd> makeFile(const TargetDirectory& dir, const std::string& name);
  Status makeOther(const TargetDirectory& dir, const std::string& name, const InodeRecord& record);
  // A further name of what was made at `path`, from the root.
  Status link(const std::string& path, const TargetDirectory& dir, const std::string& name);

  using Attributes = std::vector<std::pair<std::string, std::string>>;
  // Owner, permissions, attributes and times, in that order. What cannot be kept is noted, once for
  // each reason. An empty name: of the directory itself.
  void setAttributes(const TargetDirectory& dir, const std::string& name, const InodeRecord& record,
                     const Attributes& attributes);
  uint64_t notKept() const { return notKept_; }  // of what setAttributes should have set

 private:
  void failed(const char* what, const std::string& where);

  const Note note_;
  OwnedFd root_;
  std::map<std::pair<std::string, int>, uint64_t> failures_;
  uint64_t notKept_ = 0;
};

}  // namespace ourfs
