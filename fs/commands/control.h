// The control socket of a live mount: one line asks, text answers.
//
// /run/ourfs/MAJOR:MINOR.sock, named after the mount's st_dev; only root may use it. Commands:
//   source          device and inode number of the volume's file or device, and the mount point
//   info            what `ourfs info` shows
//   stats           the counters, as text
//   stats json      the counters, as JSON
//   extents INODE   the extents of a regular file
//   debug COMMAND   debug_points.h
// An answer begins with "ok" or "error" on a line of its own.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "common/result.h"

namespace ourfs {

class ControlServer {
 public:
  using Answer = std::function<Result<std::string>(const std::string& line)>;
  // `answer` runs in the server's thread.
  static Result<std::unique_ptr<ControlServer>> start(dev_t device, Answer answer);
  ~ControlServer();  // ends the thread and removes the socket
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

 private:
  ControlServer(int listener, int wake, std::string path, Answer answer);
  void run();
  void serve(int client);

  const int listener_, wake_;
  const std::string path_;
  const Answer answer_;
  std::thread thread_;
};

// ENOENT: no daemon serves a mount with this device number.
Result<std::string> askDaemon(dev_t device, const std::string& line);
// The mount point of the live mount whose volume lies in this file (or device node); empty: none.
std::string daemonMountOf(dev_t sourceDevice, ino_t sourceInode);

}  // namespace ourfs
