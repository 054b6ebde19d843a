// FsckReport: what a run of fsck.ourfs tells: lines and a progress bar while it goes on, or JSON at
// its end. It knows the work by the lines of the child only (fsck_child.h).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "fs/check.h"
#include "fs/salvage.h"
#include "fsck_child.h"

namespace ourfs {

// fsck(8)
enum FsckExit {
  kFsckClean = 0,
  kFsckMended = 1,
  kFsckProblemsLeft = 4,
  kFsckOperational = 8,
  kFsckUsage = 16
};

class FsckReport {
 public:
  static constexpr const char* kWayOut = "; --salvage DIR copies out what can be read";
  static constexpr int kNoProgress = -1, kBar = 0;
  enum class Mode { Look, Mend, Salvage };
  struct Style {
    std::string command, source, salvage;
    Mode mode = Mode::Look;
    bool json = false, verbose = false;
    int progress = kNoProgress;  // kBar: on stdout; above: lines to this file descriptor
  };
  explicit FsckReport(Style style) : style_(std::move(style)) {}

  void receive(char kind, std::string_view text);
  // Says how it ended. The exit code of fsck.
  int finish(const ChildEnd& end);
  int finish(const Status& noChild);

  // ---- what the child sends ----
  struct Progress {
    unsigned phase, phases;
    uint64_t done, total;
    const char* name;
  };
  static std::string progressLine(const Progress& progress);
  static std::string resultLine(const CheckReport& report, uint32_t blockSize);
  static std::string resultLine(const SalvageReport& report);

 private:
  void print(std::string_view line);
  void showProgress(std::string_view text);
  void clearBar();
  std::string deathLine(const ChildEnd& end) const;
  void printSummary() const;
  void printSalvage() const;
  void printJson(int exitCode) const;

  const Style style_;
  std::vector<std::string> problems_, notes_;
  nlohmann::ordered_json result_;
  std::string error_, phase_, bar_;
  int errorCode_ = 0;
};

}  // namespace ourfs
