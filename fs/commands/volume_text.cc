#include "volume_text.h"

#include <fmt/format.h>

#include <ctime>

#include "fs/byte_text.h"

namespace ourfs {

namespace {

std::string timeText(const Timestamp& t) {
  if (t.sec == 0) return "never";
  time_t seconds = t.sec;
  tm parts{};
  localtime_r(&seconds, &parts);
  char text[64];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %z", &parts);
  return text;
}

std::string line(const std::string& name, const std::string& value) {
  return fmt::format("{:<16}{}\n", name + ":", value);
}

}  // namespace

std::string volumeText(const Superblock& s, bool live) {
  return line("label", s.label.empty() ? "(none)" : s.label) + line("uuid", s.uuidText()) +
         line("format version", std::to_string(s.version)) + line("size", bytesText(s.volumeSize)) +
         line("block size", bytesText(ByteCount(s.blockSize))) +
         line("blocks", std::to_string(s.blocks().v)) +
         line("journal",
              bytesText(s.journalSize) + " at byte " + std::to_string(s.journalStart.v)) +
         line("file table",
              "2 x " + bytesText(s.tableSlotSize) + " at byte " + std::to_string(s.tableStart.v)) +
         line("data from", "byte " + std::to_string(s.dataStart.v)) +
         line("features", fmt::format("compat {:#x}, ro-compat {:#x}, incompat {:#x}", s.compat,
                                      s.roCompat, s.incompat)) +
         line("state", live      ? "mounted"
                       : s.clean ? "clean"
                                 : "not unmounted; the next mount replays the journal") +
         line("generation", std::to_string(s.generation)) + line("created", timeText(s.created)) +
         line("last mounted", timeText(s.lastMounted)) +
         line("mount count", std::to_string(s.mountCount)) +
         line("last checked", timeText(s.lastChecked));
}

}  // namespace ourfs
