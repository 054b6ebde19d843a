#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "check/checker.h"
#include "common/aligned_buffer.h"
#include "common/codec.h"

namespace ourfs {

namespace {

constexpr size_t kKeptProblems = 1000;
constexpr int kMendPasses = 4;  // mending one thing can uncover the next

using Tell = std::function<void(const std::string&)>;

void addProblem(CheckReport& report, const Tell& tell, const std::string& line) {
  ++report.problemCount;
  if (report.problems.size() < kKeptProblems) report.problems.push_back(line);
  if (tell) tell(line);
}

Result<bool> isWholeSlot(BlockDevice& device, uint64_t at) {
  AlignedBuffer slot(kSuperblockSize);
  if (device.size().v < at + slot.size()) return false;
  TRY(device.read(DeviceOffset(at), slot.span(), IoClass::Superblock));
  return isWholeSuperblock(asChars(slot.span()));
}

// One copy that is not whole is no problem: it may be the one that a crash interrupted. Every mount
// that writes, fsck's own too, writes it anew.
Status noteSuperblocks(BlockDevice& device, const Tell& tell) {
  TRY_ASSIGN(const bool a, isWholeSlot(device, kSuperblockSlotA));
  TRY_ASSIGN(const bool b, isWholeSlot(device, kSuperblockSlotB));
  if (a != b && tell)
    tell(fmt::format("superblock: copy {} is damaged or was being written; the other one is used",
                     a ? 'B' : 'A'));
  return Status::ok();
}

Result<std::unique_ptr<Volume>> openForCheck(BlockDevice& device, bool readOnly) {
  OpenOptions open;
  open.readOnly = readOnly;
  open.forCheck = true;
  return Volume::open(device, open);
}

enum class Snapshot { Check, Ignore };

// One look at all of a volume that was just opened; with `mend`, mends what is there, and what that
// uncovers. A damaged index is left as it is: what cannot be read must not be taken for missing.
Status look(Volume& volume, bool mend, Snapshot snapshot, CheckReport& report, const Tell& tell) {
  report.mount = volume.summary();
  if (!report.mount.replay.lost.empty()) addProblem(report, tell, report.mount.replay.lost);
  const uint64_t before = report.problemCount;
  TRY(volume.index().verify(
      [&](const std::string& line) { addProblem(report, tell, "index: " + line); }));
  const bool sound = report.problemCount == before;
  Checker first(volume, mend && sound, report, tell);
  TRY(first.run());
  if (snapshot == Snapshot::Check) TRY(first.checkSnapshot());
  if (!mend || !sound || report.clean()) return Status::ok();
  for (int pass = 1; pass < kMendPasses; ++pass) {
    CheckReport again;
    TRY(Checker(volume, true, again, nullptr).run());
    if (again.clean()) break;
  }
  return Status::ok();
}

void countSpace(Volume& volume, CheckReport& report) {
  const SpaceCounts counts = volume.space().counts();
  report.freeBlocks = counts.free + counts.busy;
  report.usedBlocks = counts.total - report.freeBlocks;
}

}  // namespace

int CheckReport::exitCode() const {
  if (problemCount == 0) return 0;
  return repaired == problemCount ? 1 : 4;
}

void Checker::problem(const std::string& line, Fix fix) {
  addProblem(report_, tell_, line);
  if (fix) mendLater(std::move(fix));
}

void Checker::mendLater(Fix fix) {
  if (mend_) fixes_.push_back(std::move(fix));
}

Status Checker::commit(Transaction t) {
  if (t.empty()) return Status::ok();
  const ByteCount payload(std::max<uint64_t>(kNamespaceRoom.v, t.batch().encodedSize()));
  TRY_ASSIGN(auto room, volume_.log().reserve(payload, Privilege::Freeing));
  TRY(volume_.log().commit(std::move(t), std::move(room)));
  return Status::ok();
}

Status Checker::applyFixes() {
  for (Fix& fix : fixes_) {
    Transaction t;
    fix(t);
    TRY(commit(std::move(t)));
  }
  fixes_.clear();
  return Status::ok();
}

Status Checker::scanPrefix(char kind,
                           const std::function<void(const ParsedKey&, std::string_view)>& each) {
  const std::string from(1, kind);
  return volume_.index().scan(from, prefixEnd(from), [&](auto key, auto value) {
    if (auto parsed = parseKey(key); parsed.isOk()) each(*parsed, value);
    return true;
  });
}

Status Checker::checkKinds() {
  return volume_.index().scan("", "", [&](auto key, auto) {
    if (!parseKey(key))
      problem(fmt::format("index: a key that no kind of record has, of {} bytes", key.size()),
              [k = std::string(key)](Transaction& t) { t.erase(k); });
    return true;
  });
}

Status Checker::run() {
  TRY(checkKinds());
  TRY(checkInodes());
  TRY(checkOrphans());
  TRY(checkNames());
  checkOrphanNames();
  TRY(checkExtents());
  TRY(checkAttributes());
  TRY(applyFixes());
  if (mend_) TRY(moveNames());
  TRY(checkClaims());
  TRY(checkTree());
  checkCounts();
  TRY(checkSettings());
  return applyFixes();
}

Result<CheckReport> checkVolume(BlockDevice& device, const CheckOptions& options) {
  CheckReport report;
  TRY(noteSuperblocks(device, options.report));
  TRY_ASSIGN(auto volume, openForCheck(device, !options.repair));
  const bool mend = options.repair && !volume->readOnly();
  TRY(look(*volume, mend, Snapshot::Check, report, options.report));
  countSpace(*volume, report);
  if (!options.repair) return report;
  volume->markChecked();
  TRY(volume->close());
  if (report.clean()) return report;

  // What is left is what a new look at the device finds. Extents that went have left their blocks
  // used in the free map, and so in the snapshot: it is built and written anew.
  volume.reset();
  CheckReport left;
  TRY_ASSIGN(volume, openForCheck(device, !mend));
  TRY(look(*volume, false, Snapshot::Ignore, left, nullptr));
  countSpace(*volume, report);
  report.repaired = report.problemCount - std::min(left.problemCount, report.problemCount);
  volume->markChecked();
  TRY(volume->close());
  return report;
}

}  // namespace ourfs
