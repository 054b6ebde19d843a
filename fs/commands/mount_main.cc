// mount.ourfs: mounts a volume and stays as its daemon.
//
// The process forks before anything is opened, because the volume's threads would not survive it.
// The parent returns when the child says that the mount is ready, or why it is not: one byte, then
// text, over a pipe.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "allocator.h"
#include "command.h"
#include "common/log.h"
#include "daemon.h"
#include "fs/byte_text.h"

namespace ourfs {
namespace {

// mount(8)
enum ExitCode { kSuccess = 0, kUsage = 1, kSystem = 2, kInterrupted = 8, kMountFailure = 32 };
constexpr char kReady = 'R', kFailed = 'F';
const std::string kName = "mount.ourfs";

struct Arguments {
  std::string source, mountPoint;
  MountOptions options;
  bool fake = false, verbose = false, abortInDaemon = false;
};

int exitCodeOf(const Status& why) {
  return why.errnum() == EPERM || why.errnum() == EACCES ? kUsage : kMountFailure;
}

Result<int> readArguments(int argc, char** argv, Arguments& a) {
  CLI::App app("Mounts an ourfs volume (a block device or an image file) on a directory.", kName);
  app.set_version_flag("-V,--version", "mount.ourfs " OURFS_VERSION);
  std::vector<std::string> lists;
  std::string type;
  bool readOnly = false, readWrite = false, noMtab = false, sloppy = false;
  app.add_option("SOURCE", a.source, "block device or image file")->required();
  app.add_option("DIR", a.mountPoint, "mount point")->required();
  app.add_option("-o", lists, "options, separated by commas; see mount.ourfs(8)");
  app.add_option("-t", type, "ignored, for mount(8)");
  app.add_flag("-r,--read-only", readOnly, "same as -o ro");
  app.add_flag("-w,--read-write", readWrite, "same as -o rw");
  app.add_flag("-n,--no-mtab", noMtab, "ignored, for mount(8)");
  app.add_flag("-s", sloppy, "tolerate unknown options");
  app.add_flag("-f,--fake", a.fake, "check everything, mount nothing");
  app.add_flag("-v,--verbose", a.verbose, "say what was done");
  app.add_flag("--abort-in-daemon", a.abortInDaemon)->group("");  // for our tests: not shown
  if (auto code = parseArguments(app, argc, argv, kUsage)) return *code;
  a.options.sloppy = sloppy;
  a.options.allowOther = geteuid() == 0;
  for (const std::string& list : lists) TRY(a.options.add(list));
  if (readOnly) a.options.readOnly = true;
  if (readWrite) a.options.readOnly = false;
  TRY(a.options.check());
  return -1;
}

Status checkMountPoint(std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0)
    return Status::error(
        errno, errno == ENOENT ? "the mount point " + path + " does not exist; make it with mkdir"
                               : "the mount point " + path + ": " + Status::error(errno).message());
  if (!S_ISDIR(st.st_mode))
    return Status::error(ENOTDIR,
                         "the mount point " + path + " is not a directory; give a directory");
  TRY_ASSIGN(path, absolutePath(path));
  return Status::ok();
}

// The daemon is in the way of memory reclaim: whoever writes pages back waits for it.
// PR_SET_IO_FLUSHER is inherited by the threads that start later.
void becomeIoDaemon() {
  prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  std::ofstream("/proc/self/oom_score_adj") << "-900" << std::flush;
}

std::string notesOf(const Daemon& daemon, const Arguments& a) {
  std::string text;
  if (!daemon.notes().empty()) text += fmt::format("{}: {}: {}\n", kName, a.source, daemon.notes());
  const MountSummary& s = daemon.summary();
  if (!s.wasClean)
    text += fmt::format(
        "{}: {}: was not unmounted; replayed {} journal records, {}, in {:.2f} s, ready after "
        "{:.2f} s\n",
        kName, a.source, s.replay.records, bytesText(ByteCount(s.replay.payloadBytes)),
        s.replaySeconds, s.totalSeconds);
  else if (a.verbose)
    text += fmt::format("{}: {} mounted on {} in {:.2f} s\n", kName, a.source, a.mountPoint,
                        s.totalSeconds);
  return text;
}

Status startLogging(const MountOptions& o) {
  LogSink sink = !o.logFile.empty() ? LogSink::File
                 : o.foreground     ? LogSink::Stderr
                                    : LogSink::Syslog;
  return initLogging(sink, o.logLevel, o.logFile);
}

// Text that arrived is all there was: the pipe is closed by the daemon's end, too.
void tell(int pipe, char verdict, const std::string& text) {
  std::string message = verdict + text;
  for (size_t sent = 0; sent < message.size();) {
    ssize_t n = write(pipe, message.data() + sent, message.size() - sent);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    sent += static_cast<size_t>(n);
  }
  close(pipe);
}

[[noreturn]] void abortWithoutCore() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  std::abort();
}

int runDaemon(const Arguments& a, int pipe) {
  becomeIoDaemon();
  returnFreedMemory();
  Status logging = startLogging(a.options);
  if (a.abortInDaemon) abortWithoutCore();
  auto daemon = logging ? Daemon::start(a.source, a.mountPoint, a.options)
                        : Result<std::unique_ptr<Daemon>>(logging);
  if (!daemon) {
    tell(pipe, kFailed,
         static_cast<char>(exitCodeOf(daemon.status())) +
             complaint(kName, a.source, daemon.status()) + "\n");
    return exitCodeOf(daemon.status());
  }
  tell(pipe, kReady, notesOf(**daemon, a));
  return (*daemon)->serve() ? kSuccess : kMountFailure;
}

int runInForeground(const Arguments& a) {
  becomeIoDaemon();
  Status logging = startLogging(a.options);
  if (!logging) return complain(kName, a.source, logging, kUsage);
  auto daemon = Daemon::start(a.source, a.mountPoint, a.options);
  if (!daemon) return complain(kName, a.source, daemon.status(), exitCodeOf(daemon.status()));
  std::fputs(notesOf(**daemon, a).c_str(), stderr);
  return (*daemon)->serve() ? kSuccess : kMountFailure;
}

// Away from the terminal, the working directory and every descriptor of the caller.
void detachFromCaller(int pipe) {
  setsid();
  if (chdir("/") != 0) _exit(kSystem);
  int null = open("/dev/null", O_RDWR);
  for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
  if (pipe > 3) close_range(3, static_cast<unsigned>(pipe) - 1, 0);
  close_range(static_cast<unsigned>(pipe) + 1, ~0U, 0);
}

volatile sig_atomic_t interrupted = 0;

// It said nothing any more. RocksDB aborts on some files that our checksums find in order.
int complainOfEnd(const Arguments& a, int status) {
  if (!WIFSIGNALED(status))
    return complain(kName, a.source,
                    Status::error(EIO, "the daemon ended before the mount was ready; see its log"),
                    kSystem);
  const int number = WTERMSIG(status);
  std::string why = fmt::format("the daemon was ended by signal {} ({}) before the mount was ready",
                                number, strsignal(number));
  if (number == SIGABRT) why += "; the index may be damaged, see fsck.ourfs -n";
  return complain(kName, a.source, Status::error(EIO, why), kSystem);
}

int awaitChild(const Arguments& a, pid_t child, int pipe) {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::string message;
  char piece[1024];
  for (;;) {
    ssize_t n = read(pipe, piece, sizeof(piece));
    if (n < 0 && errno == EINTR && interrupted) {
      kill(child, SIGTERM);  // it unmounts again, once it has come so far
      return complain(kName, "", Status::error(EINTR, "interrupted; nothing stays mounted"),
                      kInterrupted);
    }
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    message.append(piece, static_cast<size_t>(n));
  }
  if (!message.empty() && message[0] == kReady) {
    std::fputs(message.c_str() + 1, stderr);
    return kSuccess;
  }
  if (message.size() > 2 && message[0] == kFailed) {
    std::fputs(message.c_str() + 2, stderr);
    waitpid(child, nullptr, 0);  // so that the volume is free again
    return message[1];
  }
  int status = 0;
  waitpid(child, &status, 0);
  return complainOfEnd(a, status);
}

int runInBackground(const Arguments& a) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return complain(kName, a.source, Status::error(errno), kSystem);
  pid_t child = fork();
  if (child < 0) return complain(kName, a.source, Status::error(errno), kSystem);
  if (child == 0) {
    close(ends[0]);
    detachFromCaller(ends[1]);
    return runDaemon(a, ends[1]);
  }
  close(ends[1]);
  return awaitChild(a, child, ends[0]);
}

int run(int argc, char** argv) {
  Arguments a;
  auto parsed = readArguments(argc, argv, a);
  if (!parsed) return complain(kName, a.source, parsed.status(), kUsage);
  if (*parsed >= 0) return *parsed;
  if (a.options.remount)
    return complain(
        kName, a.source,
        Status::error(EINVAL,
                      "the options of a mount cannot be changed; unmount it and mount it again"),
        kUsage);
  Status usable = checkMountPoint(a.mountPoint);
  if (!usable) return complain(kName, a.source, usable, kMountFailure);
  auto source = absolutePath(a.source);
  if (!source) return complain(kName, a.source, source.status(), kMountFailure);
  a.source = *source;
  if (!a.options.logFile.empty() && a.options.logFile[0] != '/')
    a.options.logFile = (std::filesystem::current_path() / a.options.logFile).string();
  if (a.fake) return kSuccess;
  return a.options.foreground ? runInForeground(a) : runInBackground(a);
}

}  // namespace
}  // namespace ourfs

int main(int argc, char** argv) { return ourfs::run(argc, argv); }
