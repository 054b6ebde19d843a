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
Status noteSuperblocks(BlockDevice& device, const Tell& note) {
  TRY_ASSIGN(const bool a, isWholeSlot(device, kSuperblockSlotA));
  TRY_ASSIGN(const bool b, isWholeSlot(device, kSuperblockSlotB));
  if (a != b && note)
    note(fmt::format("superblock: copy {} is damaged or was being written; the other one is used",
                     a ? 'B' : 'A'));
  return Status::ok();
}

Result<std::unique_ptr<Volume>> openForCheck(BlockDevice& device, bool readOnly) {
  OpenOptions open;
  open.readOnly = readOnly;
  open.forCheck = true;
  return Volume::open(device, open);
}

// Every block that the index owns and uses. What follows is worth a mend only if all of them are
// sound: what cannot be read must not be taken for missing. Nothing is written.
Status checkIndexBlocks(BlockDevice& device, CheckReport& report, const Tell& tell,
                        Progress& progress) {
  progress.begin(CheckPhase::IndexBlocks);
  TRY_ASSIGN(const Superblock s, SuperblockStore(device).load());
  IndexOptions options;
  options.geometry = indexGeometry(s);
  options.readOnly = true;
  TRY_ASSIGN(const auto index, Index::open(device, std::move(options)));
  const auto problem = [&](const std::string& line) { addProblem(report, tell, "index: " + line); };
  TRY(index->verify(problem,
                    [&](ByteCount done, ByteCount total) { progress.at(done.v, total.v); }));
  const uint64_t first = s.dataStart.v / s.blockSize, end = s.blocks().v;
  for (const BlockRun& run : index->ownedBlocks()) {
    if (run.start.v >= first && run.start.v < end && run.count.v <= end - run.start.v) continue;
    problem(fmt::format("its blocks {}+{} lie outside of the data area", run.start.v, run.count.v));
  }
  return Status::ok();
}

struct Look {
  bool mend = false;
  bool snapshot = false;  // it is that of the last unmount
  ByteCount memoryLimit;
};

// One look at what the index of a volume that was just opened says; with `mend`, mends what is
// there, and what that uncovers.
Status look(Volume& volume, Look how, CheckReport& report, const Tell& tell, Progress& progress) {
  report.mount = volume.summary();
  if (!report.mount.replay.lost.empty()) addProblem(report, tell, report.mount.replay.lost);
  Checker first(volume, how.mend, report, tell, progress, how.memoryLimit);
  TRY(first.run());
  if (how.snapshot) TRY(first.checkSnapshot());
  if (!how.mend || report.clean()) return Status::ok();
  for (int pass = 1; pass < kMendPasses; ++pass) {
    CheckReport again;
    TRY(Checker(volume, true, again, nullptr, progress, how.memoryLimit).run());
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

const char* nameOf(CheckPhase phase) {
  switch (phase) {
    case CheckPhase::IndexBlocks:
      return "the blocks of the index";
    case CheckPhase::Journal:
      return "the journal";
    case CheckPhase::Keys:
      return "the keys of the index";
    case CheckPhase::Inodes:
      return "inodes";
    case CheckPhase::Names:
      return "names";
    case CheckPhase::Extents:
      return "extents";
    case CheckPhase::Attributes:
      return "attributes";
    case CheckPhase::Tree:
      return "the tree";
  }
  return "";
}

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
    progress_.step();
    if (auto parsed = parseKey(key); parsed.isOk()) each(*parsed, value);
    return true;
  });
}

Status Checker::checkKinds() {
  progress_.begin(CheckPhase::Keys, volume_.index().estimatedKeys());
  return volume_.index().scan("", "", [&](auto key, auto) {
    progress_.step();
    if (parseKey(key))
      ++keys_[static_cast<unsigned char>(key.front())];
    else
      problem(fmt::format("index: a key that no kind of record has, of {} bytes", key.size()),
              [k = std::string(key)](Transaction& t) { t.erase(k); });
    return true;
  });
}

// Everything that grows with the volume, at once: what a table that doubles leaves behind would be
// as large again.
Status Checker::makeRoom() {
  constexpr uint64_t kPerNode = sizeof(Node) + 48;  // its number, the links of the table, malloc's
  const uint64_t inodes = keys_['I'], extents = keys_['E'];
  const uint64_t needed = inodes * kPerNode + extents * sizeof(Claim);
  if (memoryLimit_.v != 0 && needed > memoryLimit_.v)
    return Status::error(
        ENOMEM, fmt::format("{} inodes and {} extents take {} MiB to check, more than the limit of "
                            "{} MiB; raise it with --memory-limit",
                            inodes, extents, needed / MiB + 1, memoryLimit_.v / MiB));
  nodes_.reserve(inodes);
  claims_.reserve(extents + volume_.index().ownedBlocks().size());
  return Status::ok();
}

void Checker::begin(CheckPhase phase, char kind) {
  progress_.begin(phase, keys_[static_cast<unsigned char>(kind)]);
}

Status Checker::run() {
  TRY(checkKinds());
  TRY(makeRoom());
  begin(CheckPhase::Inodes, 'I');
  TRY(checkInodes());
  TRY(checkOrphans());
  begin(CheckPhase::Names, 'D');
  TRY(checkNames());
  checkOrphanNames();
  begin(CheckPhase::Extents, 'E');
  TRY(checkExtents());
  begin(CheckPhase::Attributes, 'X');
  TRY(checkAttributes());
  TRY(applyFixes());
  progress_.begin(CheckPhase::Tree);
  if (mend_) TRY(moveNames());
  TRY(checkClaims());
  TRY(checkTree());
  checkCounts();
  TRY(checkSettings());
  return applyFixes();
}

Result<CheckReport> checkVolume(BlockDevice& device, const CheckOptions& options) {
  CheckReport report;
  Progress progress(options.progress);
  TRY(noteSuperblocks(device, options.note));
  TRY(checkIndexBlocks(device, report, options.report, progress));
  progress.begin(CheckPhase::Journal);
  const bool mayWrite = options.repair && report.clean();
  TRY_ASSIGN(auto volume, openForCheck(device, !mayWrite));
  const bool mend = mayWrite && !volume->readOnly();
  TRY(look(*volume, {mend, true, options.memoryLimit}, report, options.report, progress));
  countSpace(*volume, report);
  if (!mend) return report;
  volume->markChecked();
  TRY(volume->close());
  if (report.clean()) return report;

  // What is left is what a new look at the device finds. Extents that went have left their blocks
  // used in the free map, and so in the snapshot: it is built and written anew.
  volume.reset();
  CheckReport left;
  TRY(checkIndexBlocks(device, left, nullptr, progress));
  progress.begin(CheckPhase::Journal);
  TRY_ASSIGN(volume, openForCheck(device, false));
  TRY(look(*volume, {}, left, nullptr, progress));
  countSpace(*volume, report);
  report.repaired = report.problemCount - std::min(left.problemCount, report.problemCount);
  volume->markChecked();
  TRY(volume->close());
  return report;
}

}  // namespace ourfs
