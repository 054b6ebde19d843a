#include "crash/crash_explorer.h"

#include <algorithm>
#include <cstdlib>

#include "fs/check.h"

namespace ourfs::crash {

namespace {

FilesystemOptions quietOptions() {
  FilesystemOptions options;
  options.commitInterval =
      std::chrono::seconds(3600);  // the workload decides when something is written
  options.data.cacheLimit = ByteCount(8 * MiB);
  options.data.writeback.expire = std::chrono::hours(1);
  options.data.writeback.interval = std::chrono::hours(1);
  return options;
}

OpenOptions openOptions(const ExplorerOptions& options) {
  OpenOptions open;
  open.discard = options.discard;
  return open;
}

// One recorded history: where it began, what was written, what the model knows.
struct History {
  std::unique_ptr<MemoryDevice> base;
  std::vector<RecordedIo> log;
  uint64_t end = 0;
  CrashModel model;
  Status status;
};

History record(const ExplorerOptions& options, uint64_t seed) {
  History history;
  auto memory = MemoryDevice::create(options.volumeSize, 512, 4096);
  memory->setFill(kPoison);
  FormatOptions format;
  format.blockSize = options.blockSize;
  history.status = formatVolume(*memory, format);
  if (!history.status.isOk()) return history;
  history.base = memory->clone();

  auto device = RecordDevice::wrap(*memory);
  auto volume = Volume::open(*device, openOptions(options));
  if (!volume) {
    history.status = volume.status();
    return history;
  }
  auto filesystem = Filesystem::start(**volume, quietOptions());
  if (!filesystem) {
    history.status = filesystem.status();
    return history;
  }
  WorkloadOptions work;
  work.seed = seed;
  work.operations = options.operations;
  work.ballast = options.ballast;
  work.roundTheRing = options.roundTheRing;
  history.status = CrashWorkload(**filesystem, *device, history.model, work).run();
  history.end = device->mark();
  history.log = device->log();
  return history;
}

// How the volatile sectors fall: all lost, all there, or by chance, by write or by sector.
std::function<bool(size_t, size_t)> chooser(uint64_t choice) {
  std::mt19937_64 random(choice);
  uint64_t mode = random() % 6, salt = random();
  return [mode, salt](size_t write, size_t sector) {
    auto coin = [&](uint64_t a, uint64_t b) {
      std::mt19937_64 r(salt ^ a * 0x9e3779b97f4a7c15ull ^ b * 0xc2b2ae3d27d4eb4full);
      return r();
    };
    switch (mode) {
      case 0:
        return false;
      case 1:
        return true;
      case 2:
        return coin(write, sector) % 2 == 0;
      case 3:
        return coin(write, 0) % 2 == 0;
      case 4:
        return coin(write, 0) % 8 != 0;
      default:
        return coin(write, sector) % 16 != 0;
    }
  };
}

// The last requests before the crash, for the message of a failure.
std::string requestsBefore(const std::vector<RecordedIo>& log, uint64_t point) {
  static const char* const ops[] = {"read", "write", "flush", "discard"};
  static const char* const classes[] = {"data", "journal", "index", "table", "superblock", "other"};
  std::string text = "\n  requests before it:";
  size_t end = 0;
  while (end < log.size() && log[end].submitted < point) ++end;
  for (size_t i = end > 24 ? end - 24 : 0; i < end; ++i) {
    const RecordedIo& io = log[i];
    text += "\n    [" + std::to_string(io.submitted) + "," + std::to_string(io.completed) + "] " +
            ops[static_cast<int>(io.op)] + (io.fua ? " fua " : " ") +
            classes[static_cast<int>(io.cls)] + " " + std::to_string(io.offset.v) + "+" +
            std::to_string(io.bytes.size());
  }
  return text;
}

// Replays, serves, and compares with the model. Empty or what is wrong.
std::string judgeImage(MemoryDevice& image, const ExplorerOptions& options, const CrashModel& model,
                       uint64_t point, uint64_t& content) {
  CheckOptions look;
  std::string problem;
  look.report = [&](const std::string& line) { problem += (problem.empty() ? "" : "; ") + line; };
  auto checked = checkVolume(image, look);
  if (!checked) return "fsck -n before mounting: " + checked.status().message();
  if (!checked->clean()) return "fsck -n before mounting: " + problem;

  auto volume = Volume::open(image, openOptions(options));
  if (!volume) return "mount: " + volume.status().message();
  {
    auto filesystem = Filesystem::start(**volume, quietOptions());
    if (!filesystem) return "start: " + filesystem.status().message();
    std::string wrong = model.judge(**filesystem, point);
    if (!wrong.empty()) return wrong;
    content = model.contentHash;
    Status stopped = (*filesystem)->stop();
    if (!stopped.isOk()) return "stop: " + stopped.message();
  }
  Status closed = (*volume)->close();
  if (!closed.isOk()) return "close: " + closed.message();
  volume->reset();
  auto again = checkVolume(image, look);
  if (!again) return "fsck -n after unmounting: " + again.status().message();
  if (!again->clean()) return "fsck -n after unmounting: " + problem;
  if (again->orphans != 0) return "orphans are left after a clean unmount";
  return "";
}

// Crashes while the image is being recovered: a mount is recorded, and cut at a random point.
std::unique_ptr<MemoryDevice> crashInRecovery(std::unique_ptr<MemoryDevice> image,
                                              const ExplorerOptions& options,
                                              std::mt19937_64& random) {
  auto base = image->clone();
  std::vector<RecordedIo> log;
  uint64_t end = 0;
  {
    auto device = RecordDevice::wrap(*image);
    auto volume = Volume::open(*device, openOptions(options));
    if (volume) {
      auto filesystem = Filesystem::start(**volume, quietOptions());
      if (filesystem && random() % 2 == 0) (void)(*filesystem)->stop();
    }
    end = device->mark();
    log = device->log();
  }
  return crashImage(*base, log, random() % (end + 1), chooser(random()));
}

}  // namespace

ExplorerResult explore(const ExplorerOptions& options) {
  ExplorerResult result;
  std::unordered_set<uint64_t> contents, images;
  uint64_t onlySeed = 0, onlyPoint = 0, onlyChoice = 0;
  const char* only = std::getenv("OURFS_CRASH");
  if (only && std::sscanf(only, "%lu:%lu:%lu", &onlySeed, &onlyPoint, &onlyChoice) != 3)
    only = nullptr;

  for (int w = 0; w < (only ? 1 : options.workloads); ++w) {
    uint64_t seed = only ? onlySeed : options.seed + static_cast<uint64_t>(w);
    History history = record(options, seed);
    if (!history.status.isOk()) {
      ++result.violations;
      if (result.first.empty())
        result.first = "workload " + std::to_string(seed) + " failed: " + history.status.message();
      if (result.violations >= options.stopAfterViolations) return result;
      continue;
    }
    result.discards += static_cast<uint64_t>(
        std::count_if(history.log.begin(), history.log.end(),
                      [](const RecordedIo& io) { return io.op == IoOp::Discard; }));
    std::mt19937_64 random(seed * 7919);
    for (int s = 0; s < (only ? 1 : options.statesPerWorkload); ++s) {
      uint64_t point = only ? onlyPoint : 1 + random() % history.end;
      uint64_t choice = only ? onlyChoice : random();
      auto image = crashImage(*history.base, history.log, point, chooser(choice));
      std::mt19937_64 nested(choice);
      for (int depth = 0; options.recoveryCrashes && depth < 3 && nested() % 10 == 0; ++depth)
        image = crashInRecovery(std::move(image), options, nested);
      ++result.states;
      images.insert(point * 0x9e3779b97f4a7c15ull ^ choice);
      uint64_t content = 0;
      std::string wrong = judgeImage(*image, options, history.model, point, content);
      contents.insert(content);
      if (!wrong.empty()) {
        ++result.violations;
        if (result.first.empty())
          result.first = "state " + std::to_string(seed) + ":" + std::to_string(point) + ":" +
                         std::to_string(choice) + ": " + wrong + requestsBefore(history.log, point);
        if (result.violations >= options.stopAfterViolations) break;
      }
    }
    result.distinct = contents.size();
    result.images = images.size();
    if (result.violations >= options.stopAfterViolations) break;
  }
  return result;
}

}  // namespace ourfs::crash
