#include "daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <thread>

#include "block/fault_device.h"
#include "block/uring_device.h"
#include "command.h"
#include "common/sync_point.h"
#include "debug_points.h"
#include "fs/byte_text.h"
#include "fs/extents.h"
#include "volume_text.h"

namespace ourfs {

namespace {

constexpr std::chrono::seconds kInitWait{60};
// After a lazy unmount, what is still open keeps the connection; it gets so long to go.
constexpr std::chrono::milliseconds kDetachWait{1000};

sigset_t endSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  return set;
}

std::string joined(const std::string& a, const std::string& b) {
  return a.empty() ? b : a + "\n" + b;
}

}  // namespace

Daemon::Daemon(std::string source, std::string mountPoint, const MountOptions& options)
    : source_(std::move(source)),
      mountPoint_(std::move(mountPoint)),
      options_(options),
      readOnly_(options.readOnly) {}

Daemon::~Daemon() {
  session_.reset();
  closeAll();
}

Result<std::unique_ptr<Daemon>> Daemon::start(const std::string& source,
                                              const std::string& mountPoint,
                                              const MountOptions& options) {
  sigset_t signals = endSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // inherited by every thread that starts later
  signal(SIGPIPE, SIG_IGN);
  std::unique_ptr<Daemon> daemon(new Daemon(source, mountPoint, options));
  TRY(daemon->open());
  TRY(daemon->mount());
  return daemon;
}

void Daemon::note(const std::string& line) {
  spdlog::warn("{}: {}", source_, line);
  notes_ = joined(notes_, line);
}

Status Daemon::open() {
  struct stat st {};
  if (stat(source_.c_str(), &st) != 0) return Status::error(errno);
  sourceDevice_ = st.st_dev, sourceInode_ = st.st_ino;
  TRY_ASSIGN(device_, openDevice(source_, readOnly_));
  // The kernel would show the other mount again, instead of starting one with this daemon.
  if (device_->isBlockSpecial()) TRY(checkNotMounted(source_));
  OpenOptions open;
  open.readOnly = readOnly_;
  open.noRecovery = options_.noRecovery;
  open.discard = options_.discard;
  BlockDevice* device = device_.get();
  if (options_.debugPoints) {
    faults_ = FaultDevice::wrap(*device_);
    device = faults_.get();
  }
  TRY_ASSIGN(volume_, Volume::open(*device, open));
  summary_ = volume_->summary();
  // The log has these two already.
  if (summary_.oneSuperblock) {
    notes_ = joined(notes_,
                    "one of the two superblocks is damaged or was being written; a mount "
                    "that writes makes it anew");
  }
  if (!summary_.replay.lost.empty()) {
    notes_ = joined(notes_, summary_.replay.lost + "; what was written last is missing");
  }
  if (volume_->readOnly() && !readOnly_) {
    readOnly_ = true;
    note("mounted read-only: the volume has features that this version may only read");
  }
  TRY_ASSIGN(filesystem_, Filesystem::start(*volume_, filesystemOptions()));
  return Status::ok();
}

FilesystemOptions Daemon::filesystemOptions() const {
  FilesystemOptions o;
  o.atime = readOnly_ ? AtimeMode::None : options_.atime;
  o.sync = options_.sync;
  o.dirsync = options_.dirsync;
  o.posixAcl = options_.posixAcl;
  o.kernelWritebackCache = options_.writebackCache;
  o.commitInterval = options_.commit;
  o.data.cacheLimit = options_.cacheSize;
  o.data.writeback.dirtyLimit = options_.dirtyLimit;
  o.data.writeback.backgroundDirty = options_.dirtyBackground;
  return o;
}

FuseMountRequest Daemon::mountRequest() {
  FuseMountRequest r;
  r.source = source_;
  r.block = device_->isBlockSpecial();
  r.mountPoint = mountPoint_;
  r.readOnly = readOnly_;
  r.sync = options_.sync;
  r.dirsync = options_.dirsync;
  r.nodev = options_.nodev;
  r.nosuid = options_.nosuid;
  r.noexec = options_.noexec;
  r.noatime = options_.atime == AtimeMode::None;
  r.allowOther = options_.allowOther;
  return r;
}

Status Daemon::mount() {
  FuseMountRequest request = mountRequest();
  std::unique_ptr<SourceDevice> source;  // the mount keeps it, once there is one
  if (!request.block) {
    auto attached = SourceDevice::attach(source_);
    if (attached) {
      source = std::move(*attached);
      request.source = source->path();
      request.block = true;
    } else {
      note("no loop device (" + attached.status().message() +
           "): mounted as plain fuse, so umount does not wait and sync(2) does not reach the "
           "volume");
    }
  }
  block_ = request.block;
  mountSource_ = request.source;
  TRY_ASSIGN(mount_, FuseMount::mount(request));
  Status served = startSession();
  if (!served) undoMount();
  return served;
}

Status Daemon::startSession() {
  FuseSessionOptions o;
  o.idleThreads = options_.threads;
  o.writebackCache = options_.writebackCache;
  o.posixAcl = options_.posixAcl;
  o.cacheSymlinks = options_.atime != AtimeMode::Strict;
  session_ = FuseSession::start(mount_->fd(), *filesystem_, o, [this] { closeAll(); });
  if (!session_->awaitInit(kInitWait))
    return Status::error(EIO,
                         "the kernel did not start the connection; is the device mounted already?");
  struct stat root {};
  if (stat(mountPoint_.c_str(), &root) != 0)
    return Status::error(errno).withContext("the new mount does not answer");
  mountDevice_ = root.st_dev;
  tuneBackingDevice(mountDevice_, options_.writebackCache);
  startControl();
  return Status::ok();
}

void Daemon::startControl() {
  MutexLock l(closeMutex_);
  if (closed_) return;  // unmounted already
  auto control =
      ControlServer::start(mountDevice_, [this](const std::string& line) { return answer(line); });
  if (control) {
    control_ = std::move(*control);
  } else {
    spdlog::warn("{}: no control socket: {}; ourfs stats will not find this mount", source_,
                 control.status().message());
  }
}

// What fails between mount(2) and readiness must not leave a mount behind.
void Daemon::undoMount() {
  mount_->detach();
  session_->stop();
}

Status Daemon::serve() {
  sigset_t signals = endSignals();
  int signalFd = signalfd(-1, &signals, SFD_CLOEXEC);
  int endFd = eventfd(0, EFD_CLOEXEC);
  if (signalFd < 0 || endFd < 0) return Status::error(errno);
  std::thread watcher([&] {
    session_->awaitEnd();
    eventfd_write(endFd, 1);
  });
  for (bool ended = false; !ended;) {
    pollfd waiting[2] = {{signalFd, POLLIN, 0}, {endFd, POLLIN, 0}};
    if (poll(waiting, 2, -1) < 0 && errno != EINTR) break;
    ended = waiting[1].revents != 0;
    signalfd_siginfo info{};
    if (ended || !waiting[0].revents || read(signalFd, &info, sizeof(info)) != sizeof(info))
      continue;
    if (info.ssi_signo == SIGHUP) {
      spdlog::default_logger()->flush();
    } else {
      endOnSignal();
      ended = true;
    }
  }
  watcher.join();
  close(signalFd), close(endFd);
  closeAll();
  MutexLock l(closeMutex_);
  return closeStatus_;
}

void Daemon::endOnSignal() {
  spdlog::info("{}: asked to end; syncing and unmounting {}", source_, mountPoint_);
  // Through the kernel, so that what it holds dirty comes too. Other threads serve this.
  int fd = ::open(mountPoint_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat st {};
  if (fd >= 0) {
    if (fstat(fd, &st) == 0 && st.st_dev == mountDevice_) syncfs(fd);
    close(fd);
  }
  mount_->detach(mountDevice_);
  if (!session_->awaitEndFor(kDetachWait)) {
    spdlog::warn("{}: files on {} are still open; their users get errors from now on", source_,
                 mountPoint_);
    session_->stop();
  }
}

void Daemon::closeAll() {
  MutexLock l(closeMutex_);
  if (closed_) return;
  closed_ = true;
  control_.reset();
  if (options_.debugPoints) SyncPoints::instance().reset();  // nobody can let them go any more
  Status status;
  if (filesystem_) status = filesystem_->stop();
  filesystem_.reset();
  if (volume_ && status) status = volume_->close();
  volume_.reset();
  faults_.reset();
  device_.reset();  // and with it the lock: the next command finds the volume free
  closeStatus_ = status;
  if (status) {
    spdlog::info("{}: closed", source_);
  } else {
    spdlog::error("{}: not closed cleanly: {}; the next mount replays the journal", source_,
                  status.message());
  }
  spdlog::default_logger()->flush();
}

std::string Daemon::info() {
  std::string text = fmt::format("source:         {}\nmount point:    {}\nmounted as:     {}{}\n",
                                 source_, mountPoint_, block_ ? "fuseblk, " + mountSource_ : "fuse",
                                 volume_->readOnly() ? ", read-only" : "");
  StatfsReply s = filesystem_->statfs();
  return text + volumeText(volume_->superblock(), true) +
         fmt::format("free:           {}\n", bytesText(ByteCount(s.free * s.blockSize)));
}

Result<std::string> Daemon::answer(const std::string& line) {
  if (line == "source") return fmt::format("{} {} {}\n", sourceDevice_, sourceInode_, mountPoint_);
  if (line == "info") return info();
  if (line == "stats") return filesystem_->stats(false);
  if (line == "stats json") return filesystem_->stats(true);
  const std::string extents = "extents ";
  uint64_t inode = 0;
  if (line.rfind(extents, 0) == 0 &&
      std::from_chars(line.data() + extents.size(), line.data() + line.size(), inode).ec ==
          std::errc()) {
    TRY_ASSIGN(auto list, extentsOf(*filesystem_, InodeNo(inode)));
    return extentsText(list, volume_->blockSize());
  }
  const std::string debug = "debug ";
  if (line.rfind(debug, 0) == 0) {
    if (!faults_) return Status::error(EPERM, "mount with -o debug_points to use this");
    return debugCommand(*filesystem_, *faults_, line.substr(debug.size()));
  }
  return Status::error(EINVAL, "the daemon does not know this command");
}

}  // namespace ourfs
