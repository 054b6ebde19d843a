// ourfs: looks at volumes and at live mounts.
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>

#include "command.h"
#include "common/log.h"
#include "control.h"
#include "fs/extents.h"
#include "fs/volume.h"
#include "volume_text.h"

namespace ourfs {
namespace {

const std::string kName = "ourfs";

int print(const std::string& subject, const Result<std::string>& text) {
  if (!text) return complain(kName, subject, text.status(), 1);
  std::fputs(text->c_str(), stdout);
  return std::fflush(stdout) == 0 ? 0 : 1;
}

Result<struct stat> statOf(const std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0)
    return Status::error(errno, path + ": " + Status::error(errno).message());
  return st;
}

// On a live mount, or else the volume in this file or device.
Result<std::string> info(const std::string& path) {
  TRY_ASSIGN(struct stat st, statOf(path));
  auto live = askDaemon(st.st_dev, "info");
  if (live || S_ISDIR(st.st_mode)) return live;
  std::string where = daemonMountOf(st.st_dev, st.st_ino);
  if (!where.empty()) return info(where);
  UringOptions options;
  options.readOnly = true;
  options.exclusiveLock = false;  // two sectors are read, each with its checksum
  TRY_ASSIGN(auto device, UringDevice::open(path, options));
  TRY_ASSIGN(Superblock superblock, SuperblockStore(*device).load());
  return volumeText(superblock, false);
}

Result<std::string> stats(const std::string& path, bool json) {
  TRY_ASSIGN(struct stat st, statOf(path));
  return askDaemon(st.st_dev, json ? "stats json" : "stats");
}

Result<std::string> extentsOfVolume(const std::string& source, InodeNo inode) {
  TRY_ASSIGN(auto device, openDevice(source, true));
  OpenOptions options;
  options.readOnly = true;
  TRY_ASSIGN(auto volume, Volume::open(*device, options));
  TRY_ASSIGN(auto list, extentsOf(*volume, inode));
  return extentsText(list, volume->blockSize());
}

Result<std::string> debug(const std::string& path, const std::vector<std::string>& words) {
  TRY_ASSIGN(struct stat st, statOf(path));
  std::string line = "debug";
  for (const std::string& word : words) line += " " + word;
  return askDaemon(st.st_dev, line);
}

// A file of a live mount; or an inode by number, of a live mount or of a volume.
Result<std::string> extents(const std::string& path, const std::string& number) {
  TRY_ASSIGN(struct stat st, statOf(path));
  uint64_t inode = st.st_ino;
  if (number.empty()) return askDaemon(st.st_dev, "extents " + std::to_string(inode));
  auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), inode);
  if (error != std::errc() || end != number.data() + number.size())
    return Status::error(EINVAL, "'" + number + "' is not an inode number");
  std::string where = S_ISDIR(st.st_mode) ? path : daemonMountOf(st.st_dev, st.st_ino);
  if (where.empty()) return extentsOfVolume(path, InodeNo(inode));
  TRY_ASSIGN(struct stat root, statOf(where));
  return askDaemon(root.st_dev, "extents " + std::to_string(inode));
}

int run(int argc, char** argv) {
  CLI::App app("Looks at ourfs volumes and mounts.", kName);
  app.set_version_flag("-V,--version", "ourfs " OURFS_VERSION);
  app.require_subcommand(1);
  std::string path, number;
  bool json = false;
  CLI::App* infoCommand =
      app.add_subcommand("info", "what a volume is: superblock, features, state");
  infoCommand->add_option("SOURCE-OR-MOUNTPOINT", path)->required();
  CLI::App* extentsCommand = app.add_subcommand("extents", "where a file's data lies");
  extentsCommand
      ->add_option("FILE", path,
                   "a file on a mount; or a mount point or volume, with an inode number")
      ->required();
  extentsCommand->add_option("INODE", number);
  CLI::App* statsCommand = app.add_subcommand("stats", "counters of a live mount");
  statsCommand->add_option("MOUNTPOINT", path)->required();
  statsCommand->add_flag("--json", json, "as JSON");
  std::vector<std::string> words;
  CLI::App* debugCommand = app.add_subcommand("debug", "sync points of a mount with debug_points");
  debugCommand->group("");  // for our tests: not shown
  debugCommand->add_option("MOUNTPOINT", path)->required();
  debugCommand->add_option("COMMAND", words)->required();
  if (auto code = parseArguments(app, argc, argv, 1)) return *code;
  Status logging = initLogging(LogSink::Stderr, "off");
  if (!logging) return complain(kName, "", logging, 1);
  if (infoCommand->parsed()) return print(path, info(path));
  if (extentsCommand->parsed()) return print(path, extents(path, number));
  if (debugCommand->parsed()) return print(path, debug(path, words));
  return print(path, stats(path, json));
}

}  // namespace
}  // namespace ourfs

int main(int argc, char** argv) { return ourfs::run(argc, argv); }
