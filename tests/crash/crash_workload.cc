#include "crash/crash_workload.h"

#include <linux/falloc.h>

#include <algorithm>

namespace ourfs::crash {

namespace {
constexpr uint64_t kLongest = 96 * KiB;  // of a file
constexpr char kBallast[] = "ballast";
}  // namespace

CrashWorkload::CrashWorkload(Filesystem& filesystem, RecordDevice& device, CrashModel& model,
                             const WorkloadOptions& options)
    : actor_(filesystem, device, model), model_(model), options_(options), random_(options.seed) {}

Status CrashWorkload::run() {
  TRY(makeBallast());
  for (int i = 0; i < options_.operations; ++i) {
    TRY(step());
    if (options_.roundTheRing) TRY(actor_.syncAll());
  }
  return Status::ok();
}

// A file that nothing else touches takes most of the space.
Status CrashWorkload::makeBallast() {
  if (options_.ballast.v == 0) return Status::ok();
  TRY(actor_.createFile(kBallast, 0600));
  TRY(actor_.allocate(kBallast, FALLOC_FL_KEEP_SIZE, 0, options_.ballast.v));
  return actor_.syncFile(kBallast, false);
}

Status CrashWorkload::step() {
  const uint64_t dice = pick(100);
  if (dice < 38) return changeNames(dice);
  if (dice < 82) return changeData(dice - 38);
  if (dice < 94) return syncSome(dice - 82);
  if (dice < 97) return actor_.flushData();
  return options_.roundTheRing ? changeNames(36) : actor_.checkpoint();
}

Status CrashWorkload::changeNames(uint64_t dice) {
  if (dice < 13) return actor_.createFile(freshName());
  if (dice < 17) return actor_.makeDirectory(freshName());
  if (dice < 19) return actor_.makeSymlink(freshName(), std::string(1 + pick(300), 't'));
  if (dice < 22) return linkSome();
  if (dice < 28) return unlinkSome();
  if (dice < 30) {
    const auto target = pickNode('d');
    return target ? actor_.removeDirectory(*target) : Status::ok();
  }
  if (dice < 36) return renameSome();
  const auto target = pickNode('f');
  if (!target) return Status::ok();
  return actor_.setAttribute(*target, "user.a" + std::to_string(pick(3)),
                             std::string(1 + pick(200), 'v'));
}

Status CrashWorkload::changeData(uint64_t dice) {
  if (dice < 15) return writeSome(Writing::Buffered);
  if (dice < 19) return writeSome(Writing::Direct);
  if (dice < 22) return writeSome(Writing::Stored);
  if (dice < 24) return writeSome(pick(2) == 0 ? Writing::Synchronous : Writing::DataSynchronous);
  if (dice < 32) return overwriteInPlace();
  if (dice < 38) return truncateSome();
  if (dice < 42) return punchSome();
  return allocateSome();
}

std::optional<std::string> CrashWorkload::pickNode(char kind) {
  std::vector<std::string> paths;
  for (const auto& [path, node] : model_.tree().nodes) {
    if (path != kBallast && (kind == '*' || node.kind == kind)) paths.push_back(path);
  }
  if (paths.empty()) return std::nullopt;
  return paths[pick(paths.size())];
}

std::string CrashWorkload::freshName() {
  const auto dir = pick(2) == 0 ? pickNode('d') : std::nullopt;
  const std::string name = "n" + std::to_string(nextName_++);
  return dir ? *dir + "/" + name : name;
}

Status CrashWorkload::linkSome() {
  const auto from = pickNode('f');
  return from ? actor_.linkFile(*from, freshName()) : Status::ok();
}

Status CrashWorkload::unlinkSome() {
  const auto target = pick(8) == 0 ? pickNode('l') : pickNode('f');
  return target ? actor_.unlinkFile(*target, pick(2) == 0) : Status::ok();
}

Status CrashWorkload::renameSome() {
  const auto from = pickNode('*');
  if (!from) return Status::ok();
  const bool file = model_.tree().nodes.at(*from).kind == 'f';
  const auto over = file && pick(2) == 0 ? pickNode('f') : std::nullopt;
  const std::string to = over ? *over : freshName();
  if (to == *from || to.starts_with(*from + "/")) return Status::ok();
  return actor_.renameNode(*from, to);
}

Status CrashWorkload::writeSome(Writing how) {
  const auto target = pickNode('f');
  if (!target) return Status::ok();
  const uint64_t size = actor_.sizeOf(*target);
  const uint64_t count = 1 + pick(pick(3) == 0 ? 32 : 6);
  uint64_t at = pick(2) == 0 ? size : pick(kLongest / 2);
  uint64_t length = count * kSector;
  if (how == Writing::Direct) {
    at = roundDown(at, 4096);
    length = count * 4096;
  } else {
    at = at == size ? at : place(at);
    length = std::max<uint64_t>(1, place(length - pick(kSector)));
  }
  if (at + length > kLongest) return Status::ok();
  return actor_.writeFile(*target, at, length, how);
}

// Blocks that are mapped already are written, and nobody waits for the disk: of each sector it is
// open which one is there.
Status CrashWorkload::overwriteInPlace() {
  const auto target = pickNode('f');
  const uint64_t size = target ? actor_.sizeOf(*target) : 0;
  if (size < kSector) return Status::ok();
  const uint64_t at = place(pick(size)), length = std::min(size - at, kSector * (1 + pick(16)));
  TRY(actor_.writeFile(*target, at, length, Writing::Buffered));
  return actor_.flushData();
}

Status CrashWorkload::truncateSome() {
  const auto target = pickNode('f');
  if (!target) return Status::ok();
  const uint64_t size = actor_.sizeOf(*target);
  return actor_.truncateFile(*target, place(pick(pick(2) == 0 ? size + 1 : kLongest)));
}

Status CrashWorkload::punchSome() {
  const auto target = pickNode('f');
  const uint64_t size = target ? actor_.sizeOf(*target) : 0;
  if (size == 0) return Status::ok();
  const uint64_t at = place(pick(size)), length = std::max<uint64_t>(1, place(pick(40 * kSector)));
  const int mode = pick(2) == 0 ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
  return actor_.allocate(*target, FALLOC_FL_KEEP_SIZE | mode, at, length);
}

Status CrashWorkload::allocateSome() {
  const auto target = pickNode('f');
  if (!target) return Status::ok();
  const uint64_t at = place(pick(kLongest / 2)), length = 1 + pick(kLongest / 4);
  const int mode = pick(3) == 0 ? FALLOC_FL_ZERO_RANGE : pick(2) == 0 ? FALLOC_FL_KEEP_SIZE : 0;
  return actor_.allocate(*target, mode, at, length);
}

Status CrashWorkload::syncSome(uint64_t dice) {
  if (dice < 9) {
    const auto target = pickNode('f');
    return target ? actor_.syncFile(*target, pick(2) == 0) : Status::ok();
  }
  if (dice < 11) return actor_.syncDirectory(pickNode('d').value_or(""));
  return actor_.syncAll();
}

}  // namespace ourfs::crash
