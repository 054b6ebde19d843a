#include "crash/crash_history.h"

#include <algorithm>

#include "crash/crash_states.h"

namespace ourfs::crash {

uint64_t History::discards() const {
  return static_cast<uint64_t>(std::count_if(
      log.begin(), log.end(), [](const RecordedIo& io) { return io.op == IoOp::Discard; }));
}

FilesystemOptions quietOptions() {
  FilesystemOptions options;
  options.commitInterval = std::chrono::seconds(3600);
  options.data.cacheLimit = ByteCount(8 * MiB);
  options.data.writeback.expire = std::chrono::hours(1);
  options.data.writeback.interval = std::chrono::hours(1);
  return options;
}

OpenOptions openOptions(const ExplorerOptions& options) {
  OpenOptions open;
  open.discard = options.discard;
  open.blockCache = ByteCount(1 * MiB);
  return open;
}

Result<std::unique_ptr<MemoryDevice>> makeBase(const ExplorerOptions& options) {
  auto memory = MemoryDevice::create(options.volumeSize, 512, 4096);
  memory->setFill(kPoison);
  FormatOptions format;
  format.blockSize = options.blockSize;
  TRY(formatVolume(*memory, format));
  return memory;
}

History recordHistory(const ExplorerOptions& options, const MemoryDevice& base,
                      const std::function<Status(Filesystem&, RecordDevice&, History&)>& work) {
  History history;
  history.base = base.clone();
  const auto memory = base.clone();
  const auto device = RecordDevice::wrap(*memory, phaseTagger());
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
  history.status = work(**filesystem, *device, history);
  if (history.windows.empty()) history.windows.push_back({1, device->mark(), ""});
  history.log = device->log();
  return history;
}

std::string requestsBefore(const std::vector<RecordedIo>& log, uint64_t point) {
  static const char* const ops[] = {"read", "write", "flush", "discard"};
  std::string text = "\n  requests before it:";
  size_t end = 0;
  while (end < log.size() && log[end].submitted <= point) ++end;
  for (size_t i = end > 24 ? end - 24 : 0; i < end; ++i) {
    const RecordedIo& io = log[i];
    text += "\n    [" + std::to_string(io.submitted) + "," + std::to_string(io.completed) + "] " +
            ops[static_cast<int>(io.op)] + (io.fua ? " fua, " : ", ") + nameOf(phaseOf(io)) + " " +
            std::to_string(io.offset.v) + "+" + std::to_string(io.length.v);
  }
  return text;
}

}  // namespace ourfs::crash
