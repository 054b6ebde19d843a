// fsck.ourfs: checks a volume, and mends it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "command.h"
#include "common/log.h"
#include "fs/check.h"
#include "fs/salvage.h"
#include "fsck_child.h"
#include "fsck_report.h"

namespace ourfs {
namespace {

const std::string kName = "fsck.ourfs";

struct Arguments {
  std::string source, salvage;
  bool look = false, yes = false, preen = false, automatic = false, force = false, verbose = false;
  bool json = false;
  std::optional<int> progress;
  std::optional<uint64_t> memoryMiB;
  unsigned abortIn = 0, pauseIn = 0;  // the number of a phase
};

std::optional<int> readArguments(int argc, char** argv, Arguments& a) {
  CLI::App app("Checks an ourfs volume that is not mounted, and mends it.", kName);
  std::string type;
  app.set_version_flag("-V,--version", "fsck.ourfs " OURFS_VERSION);
  app.add_option("DEVICE-OR-IMAGE", a.source, "block device or image file")->required();
  app.add_flag("-n,--no", a.look, "look only, write nothing");
  app.add_flag("-y,--yes", a.yes, "mend everything (the default)");
  app.add_flag("-p", a.preen, "mend without questions, as at boot; a clean volume is not checked");
  app.add_flag("-a", a.automatic, "same as -p");
  app.add_flag("-f,--force", a.force, "with -p: check a clean volume too");
  app.add_flag("-v,--verbose", a.verbose, "print what was counted");
  app.add_option("--salvage", a.salvage, "copy what can be read into this new directory");
  app.add_flag("--json", a.json, "print the report as JSON");
  app.add_option("-C", a.progress, "progress to this file descriptor; 0: a bar, -1: none");
  app.add_option("--memory-limit", a.memoryMiB, "MiB for what is held of inodes and extents");
  app.add_option("-t", type, "ignored, for fsck(8)");
  app.add_option("--abort-in", a.abortIn)->group("");  // these two for our tests: not shown
  app.add_option("--pause-in", a.pauseIn)->group("");
  return parseArguments(app, argc, argv, kFsckUsage);
}

Status checkArguments(const Arguments& a) {
  if (a.look && (a.yes || a.preen || a.automatic))
    return Status::error(EINVAL, "-n looks only; it does not go with -y, -p or -a");
  if (!a.salvage.empty() && (a.yes || a.preen || a.automatic))
    return Status::error(EINVAL, "--salvage mends nothing; it does not go with -y, -p or -a");
  if (a.memoryMiB && (*a.memoryMiB == 0 || *a.memoryMiB > UINT64_MAX / MiB))
    return Status::error(EINVAL, "--memory-limit is in MiB, from 1");
  if (a.progress && *a.progress > 0 && fcntl(*a.progress, F_GETFD) < 0)
    return Status::error(EBADF, "-C " + std::to_string(*a.progress) + ": not an open descriptor");
  return Status::ok();
}

// Above it a check would live on swap, or not at all.
ByteCount usualMemoryLimit() {
  const auto pages = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES));
  return ByteCount(pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) / 4 * 3);
}

// 4 if the volume itself is at fault, 8 if it could not be looked at.
int sendError(const Arguments& a, const SendLine& send, const Status& why) {
  const bool damaged = why.errnum() == EUCLEAN;
  const int code = damaged ? kFsckProblemsLeft : kFsckOperational;
  // The advice that belongs to the error, which the parent does not know.
  send('E', std::to_string(code) + " " + complaint("", "", why).substr(2) +
                (damaged && a.salvage.empty() ? FsckReport::kWayOut : ""));
  return code;
}

// In the child.
int salvage(const Arguments& a, const SendLine& send) {
  auto device = openDevice(a.source, true);
  if (!device) return sendError(a, send, device.status());
  if (mkdir(a.salvage.c_str(), 0700) != 0 && errno != EEXIST)
    return sendError(a, send,
                     Status::error(errno, a.salvage + ": " + Status::error(errno).message()));
  SalvageOptions options;
  options.directory = a.salvage;
  options.report = [&](const std::string& line) { send('P', line); };
  options.progress = [&](const SalvageProgress& p) {
    send('G', FsckReport::progressLine({p.phase, kSalvagePhases, p.done, p.total, p.name}));
  };
  auto report = salvageVolume(**device, options);
  if (!report) return sendError(a, send, report.status());
  send('R', FsckReport::resultLine(*report));
  return report->problemCount == 0 ? kFsckClean : kFsckProblemsLeft;
}

// In the child.
int check(const Arguments& a, const SendLine& send) {
  if (!a.look) {
    if (Status free = checkNotMounted(a.source); !free) return sendError(a, send, free);
  }
  auto device = openDevice(a.source, a.look);
  if (!device) return sendError(a, send, device.status());
  auto superblock = SuperblockStore(**device).load();
  if (!superblock) return sendError(a, send, superblock.status());
  if ((a.preen || a.automatic) && !a.force && superblock->clean) {
    send('R', R"({"exit_code":0,"was_clean":true,"problem_count":0})");
    return kFsckClean;
  }
  CheckOptions options;
  options.repair = !a.look;
  options.memoryLimit = a.memoryMiB ? ByteCount(*a.memoryMiB * MiB) : usualMemoryLimit();
  options.report = [&](const std::string& line) { send('P', line); };
  options.note = [&](const std::string& line) { send('N', line); };
  options.progress = [&](const CheckProgress& progress) {
    send('G', FsckReport::progressLine({static_cast<unsigned>(progress.phase) + 1, kCheckPhases,
                                        progress.done, progress.total, nameOf(progress.phase)}));
    const unsigned phase = static_cast<unsigned>(progress.phase) + 1;
    if (phase == a.abortIn) std::abort();
    while (phase == a.pauseIn) pause();
  };
  auto report = checkVolume(**device, options);
  if (!report) return sendError(a, send, report.status());
  send('R', FsckReport::resultLine(*report, superblock->blockSize));
  return report->exitCode();
}

// In the child.
int work(const Arguments& a, const SendLine& send) {
  if (Status logging = initLogging(LogSink::Stderr, "off"); !logging)
    return sendError(a, send, logging);
  return a.salvage.empty() ? check(a, send) : salvage(a, send);
}

int run(int argc, char** argv) {
  Arguments a;
  if (auto code = readArguments(argc, argv, a)) return *code;
  if (Status good = checkArguments(a); !good) return complain(kName, "", good, kFsckUsage);
  const bool bar = !a.json && isatty(STDOUT_FILENO) == 1;
  const auto mode = !a.salvage.empty() ? FsckReport::Mode::Salvage
                    : a.look           ? FsckReport::Mode::Look
                                       : FsckReport::Mode::Mend;
  FsckReport report({kName, a.source, a.salvage, mode, a.json, a.verbose,
                     a.progress.value_or(bar ? FsckReport::kBar : FsckReport::kNoProgress)});
  auto end = runInChild([&](const SendLine& send) { return work(a, send); },
                        [&](char kind, std::string_view text) { report.receive(kind, text); });
  return end ? report.finish(*end) : report.finish(end.status());
}

}  // namespace
}  // namespace ourfs

int main(int argc, char** argv) { return ourfs::run(argc, argv); }
