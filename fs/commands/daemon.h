// Daemon: one mounted volume, from opening its device to closing it.
//
// It ends in one of three ways, each leaving the volume clean: the kernel unmounts (DESTROY on
// fuseblk, the end of the connection on plain fuse), a signal asks for it (SIGTERM, SIGINT: sync,
// lazy unmount), or somebody aborts the connection.
#pragma once

#include <memory>
#include <string>

#include "common/mutex.h"
#include "control.h"
#include "fs/filesystem.h"
#include "fs/fuse_mount.h"
#include "fs/fuse_session.h"
#include "fs/mount_options.h"
#include "fs/volume.h"

namespace ourfs {

class FaultDevice;
class UringDevice;

class Daemon {
 public:
  // Opens, mounts and serves. `source` and `mountPoint` are absolute. Blocks the signals that
  // serve() waits for. After an error nothing is mounted and the volume is as after a crash, or
  // clean.
  static Result<std::unique_ptr<Daemon>> start(const std::string& source,
                                               const std::string& mountPoint,
                                               const MountOptions& options);
  ~Daemon();

  // What the person who mounts should be told: lines without the command's name.
  const std::string& notes() const { return notes_; }
  const MountSummary& summary() const { return summary_; }
  // Returns when the mount has ended and the volume is closed.
  Status serve();

 private:
  Daemon(std::string source, std::string mountPoint, const MountOptions& options);
  Status open();
  Status mount();
  FuseMountRequest mountRequest();
  FilesystemOptions filesystemOptions() const;
  Status startSession();
  void startControl();
  void undoMount();
  void endOnSignal();
  void closeAll();
  void note(const std::string& line);
  Result<std::string> answer(const std::string& line);
  std::string info();

  const std::string source_, mountPoint_;
  const MountOptions options_;
  bool readOnly_;
  bool block_ = false;  // fuseblk
  std::string notes_, mountSource_;
  MountSummary summary_;
  dev_t mountDevice_ = 0;
  dev_t sourceDevice_ = 0;  // of the file or device node, for those who ask whether it is mounted
  ino_t sourceInode_ = 0;

  std::unique_ptr<UringDevice> device_;
  std::unique_ptr<FaultDevice> faults_;  // around it, with the option debug_points
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<Filesystem> filesystem_;
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<FuseMount> mount_;
  std::unique_ptr<FuseSession> session_;

  Mutex closeMutex_;
  bool closed_ GUARDED_BY(closeMutex_) = false;
  Status closeStatus_ GUARDED_BY(closeMutex_);
};

}  // namespace ourfs
