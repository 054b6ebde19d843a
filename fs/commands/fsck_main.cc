// fsck.ourfs: checks a volume, and mends it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "command.h"
#include "common/log.h"
#include "fs/byte_text.h"
#include "fs/check.h"

namespace ourfs {
namespace {

// fsck(8)
enum ExitCode { kClean = 0, kMended = 1, kProblemsLeft = 4, kOperational = 8, kUsage = 16 };
const std::string kName = "fsck.ourfs";

struct Arguments {
  std::string source;
  bool look = false, yes = false, preen = false, automatic = false, force = false, verbose = false;
  bool version = false;
};

std::optional<int> readArguments(int argc, char** argv, Arguments& a) {
  CLI::App app("Checks an ourfs volume that is not mounted, and mends it.", kName);
  std::string progress, type;
  app.set_version_flag("-V,--version", "fsck.ourfs " OURFS_VERSION);
  app.add_option("DEVICE-OR-IMAGE", a.source, "block device or image file")->required();
  app.add_flag("-n,--no", a.look, "look only, write nothing");
  app.add_flag("-y,--yes", a.yes, "mend everything (the default)");
  app.add_flag("-p", a.preen, "mend without questions, as at boot; a clean volume is not checked");
  app.add_flag("-a", a.automatic, "same as -p");
  app.add_flag("-f,--force", a.force, "with -p: check a clean volume too");
  app.add_flag("-v,--verbose", a.verbose, "print what was counted");
  app.add_option("-C", progress, "ignored, for fsck(8)");
  app.add_option("-t", type, "ignored, for fsck(8)");
  return parseArguments(app, argc, argv, kUsage);
}

// 4 if the volume itself is at fault, 8 if it could not be looked at.
int exitCodeOf(const Status& why) { return why.errnum() == EUCLEAN ? kProblemsLeft : kOperational; }

void printCounts(const CheckReport& r, uint32_t blockSize) {
  std::printf(
      "  %llu inodes: %llu files, %llu directories, %llu symbolic links, %llu others; %llu "
      "orphans\n",
      static_cast<unsigned long long>(r.inodes), static_cast<unsigned long long>(r.files),
      static_cast<unsigned long long>(r.directories), static_cast<unsigned long long>(r.symlinks),
      static_cast<unsigned long long>(r.others), static_cast<unsigned long long>(r.orphans));
  std::printf("  %llu names, %llu extents, %llu attributes; %s used, %s free\n",
              static_cast<unsigned long long>(r.names), static_cast<unsigned long long>(r.extents),
              static_cast<unsigned long long>(r.attributes),
              bytesText(ByteCount(r.usedBlocks.v * blockSize)).c_str(),
              bytesText(ByteCount(r.freeBlocks.v * blockSize)).c_str());
}

int printReport(const Arguments& a, const CheckReport& r, uint32_t blockSize) {
  if (!r.mount.wasClean)
    std::printf("%s: was not unmounted; %llu journal records replayed%s\n", a.source.c_str(),
                static_cast<unsigned long long>(r.mount.replay.records),
                a.look ? " in memory" : "");
  if (r.clean()) {
    std::printf("%s: clean\n", a.source.c_str());
  } else {
    std::printf("%s: %llu problems, %llu of them mended%s\n", a.source.c_str(),
                static_cast<unsigned long long>(r.problemCount),
                static_cast<unsigned long long>(r.repaired),
                a.look ? "; run without -n to mend" : "");
  }
  if (a.verbose) printCounts(r, blockSize);
  return r.exitCode();
}

int check(const Arguments& a) {
  if (!a.look) {
    Status free = checkNotMounted(a.source);
    if (!free) return complain(kName, a.source, free, kOperational);
  }
  auto device = openDevice(a.source, a.look);
  if (!device) return complain(kName, a.source, device.status(), kOperational);
  auto superblock = SuperblockStore(**device).load();
  if (!superblock)
    return complain(kName, a.source, superblock.status(), exitCodeOf(superblock.status()));
  if ((a.preen || a.automatic) && !a.force && superblock->clean) {
    std::printf("%s: clean\n", a.source.c_str());
    return kClean;
  }
  CheckOptions options;
  options.repair = !a.look;
  options.report = [&](const std::string& line) {
    std::printf("%s: %s\n", a.source.c_str(), line.c_str());
  };
  auto report = checkVolume(**device, options);
  if (!report) return complain(kName, a.source, report.status(), exitCodeOf(report.status()));
  return printReport(a, *report, superblock->blockSize);
}

int run(int argc, char** argv) {
  Arguments a;
  if (auto code = readArguments(argc, argv, a)) return *code;
  if (a.look && (a.yes || a.preen || a.automatic))
    return complain(kName, "",
                    Status::error(EINVAL, "-n looks only; it does not go with -y, -p or -a"),
                    kUsage);
  Status logging = initLogging(LogSink::Stderr, "off");
  return logging ? check(a) : complain(kName, "", logging, kOperational);
}

}  // namespace
}  // namespace ourfs

int main(int argc, char** argv) { return ourfs::run(argc, argv); }
