#include "crash/crash_trial.h"

#include "crash/crash_history.h"

namespace ourfs::crash {

namespace {

struct Looked {
  std::string wrong;
  CheckReport report;
};

Looked lookAt(MemoryDevice& image, const char* when) {
  CheckOptions look;
  std::string problems;
  look.report = [&](const std::string& line) { problems += (problems.empty() ? "" : "; ") + line; };
  auto checked = checkVolume(image, look);
  const std::string where = std::string("fsck -n ") + when + ": ";
  if (!checked) return {where + checked.status().message(), {}};
  if (!checked->clean()) return {where + problems, {}};
  return {"", std::move(*checked)};
}

uint64_t orphansOf(Volume& volume) {
  uint64_t orphans = 0;
  (void)volume.index().scan("O", prefixEnd("O"), [&](auto, auto) { return ++orphans != 0; });
  return orphans;
}

// The reclaimer has a thread of its own; statfs waits for it, a little.
StatfsReply statfsWithoutOrphans(Filesystem& filesystem) {
  constexpr int kTries = 100;
  StatfsReply reply = filesystem.statfs();
  for (int i = 0; i < kTries && orphansOf(filesystem.volume()) != 0; ++i)
    reply = filesystem.statfs();
  return reply;
}

}  // namespace

std::string compareSpace(const StatfsReply& reply, const CheckReport& report) {
  const uint64_t inodes = reply.files - reply.filesFree;
  if (inodes != report.inodes - report.orphans)
    return "statfs counts " + std::to_string(inodes) + " inodes, fsck " +
           std::to_string(report.inodes) + " with " + std::to_string(report.orphans) + " orphans";
  const bool fits =
      report.orphans == 0 ? reply.free == report.freeBlocks.v : reply.free >= report.freeBlocks.v;
  if (fits) return "";
  return "statfs counts " + std::to_string(reply.free) + " free blocks, fsck " +
         std::to_string(report.freeBlocks.v) + " with " + std::to_string(report.orphans) +
         " orphans";
}

CrashModel::Verdict judgeMounted(Filesystem& filesystem, const CheckReport& report,
                                 const CrashModel& model, uint64_t point) {
  const StatfsReply reply = statfsWithoutOrphans(filesystem);
  if (orphansOf(filesystem.volume()) != 0) return {"orphans are left after a mount", 0};
  CrashModel::Verdict verdict = model.judge(filesystem, point);
  if (verdict.wrong.empty()) verdict.wrong = compareSpace(reply, report);
  return verdict;
}

CrashModel::Verdict judgeImage(MemoryDevice& image, const ExplorerOptions& options,
                               const CrashModel& model, uint64_t point, bool unmount) {
  const Looked before = lookAt(image, "before mounting");
  if (!before.wrong.empty()) return {before.wrong, 0};
  auto volume = Volume::open(image, openOptions(options));
  if (!volume) return {"mount: " + volume.status().message(), 0};
  CrashModel::Verdict verdict;
  {
    auto filesystem = Filesystem::start(**volume, quietOptions());
    if (!filesystem) return {"start: " + filesystem.status().message(), 0};
    verdict = judgeMounted(**filesystem, before.report, model, point);
    if (!verdict.wrong.empty() || !unmount) return verdict;
    const Status stopped = (*filesystem)->stop();
    if (!stopped.isOk()) verdict.wrong = "stop: " + stopped.message();
  }
  const Status closed = (*volume)->close();
  if (!closed.isOk()) verdict.wrong = "close: " + closed.message();
  volume->reset();
  if (!verdict.wrong.empty()) return verdict;
  const Looked after = lookAt(image, "after unmounting");
  verdict.wrong = after.wrong;
  if (after.wrong.empty() && after.report.orphans != 0)
    verdict.wrong = "orphans are left after a clean unmount";
  return verdict;
}

Result<std::unique_ptr<MemoryDevice>> crashInRecovery(std::unique_ptr<MemoryDevice> image,
                                                      const ExplorerOptions& options,
                                                      std::mt19937_64& random) {
  const bool unmounts = random() % 2 == 0;
  History mount =
      recordHistory(options, *image, [&](Filesystem& filesystem, RecordDevice&, History&) {
        return unmounts ? filesystem.stop() : Status::ok();
      });
  TRY(mount.status);
  CrashStates states(*mount.base, mount.log);
  // Half of them between two requests, half within one.
  uint64_t point = random() % (mount.windows.front().to + 1);
  if (random() % 2 == 0 && !mount.log.empty())
    point = mount.log[random() % mount.log.size()].submitted;
  states.seek(point);
  return states.image(random());
}

}  // namespace ourfs::crash
