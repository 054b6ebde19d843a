#include "faults/fault_run.h"

#include <algorithm>
#include <thread>

#include "fs/check.h"

namespace ourfs::faults {

namespace {

FilesystemOptions quiet() {
  FilesystemOptions options;
  options.commitInterval = std::chrono::hours(1);  // the workload decides when something is written
  options.data.cacheLimit = ByteCount(8 * MiB);
  options.data.writeback.expire = std::chrono::hours(1);
  options.data.writeback.interval = std::chrono::hours(1);
  return options;
}

const char* nameOf(IoOp op) {
  static constexpr const char* kNames[] = {"read", "write", "flush", "discard"};
  return kNames[static_cast<size_t>(op)];
}

const char* nameOf(FaultKind kind) {
  static constexpr const char* kNames[] = {"error", "short", "drop", "misdirect",
                                           "flip",  "delay", "hold"};
  return kNames[static_cast<size_t>(kind)];
}

// One mount over the device of a run.
class Mounted {
 public:
  Status open(BlockDevice& device) {
    TRY_ASSIGN(volume_, Volume::open(device, faultOpenOptions()));
    TRY_ASSIGN(filesystem_, Filesystem::start(*volume_, quiet()));
    return Status::ok();
  }
  Filesystem& filesystem() { return *filesystem_; }
  Volume& volume() { return *volume_; }
  Status stop() { return filesystem_->stop(); }
  Status close() {
    filesystem_.reset();
    return volume_->close();
  }

 private:
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<Filesystem> filesystem_;
};

// What the free map says against what the extents and the index claim. Empty, or the difference.
std::string spaceProblem(Volume& volume) {
  const SpaceCounts counts = volume.space().counts();
  if (counts.reserved.v != 0)
    return std::to_string(counts.reserved.v) +
           " blocks are still promised after everything was written";
  uint64_t claimed = 0;
  const Status scanned = volume.index().scan("E", prefixEnd("E"), [&](auto key, auto value) {
    const auto parsed = parseKey(key);
    if (!parsed) return true;
    const auto extent = decodeExtent(parsed->ino, FileOffset(parsed->number), value);
    if (extent) claimed += extent->blocks;
    return true;
  });
  if (!scanned.isOk()) return "";
  for (const BlockRun& run : volume.index().ownedBlocks()) claimed += run.count.v;
  const uint64_t used = counts.total.v - counts.free.v - counts.busy.v;
  if (used == claimed) return "";
  return std::to_string(used) + " blocks are in use, " + std::to_string(claimed) + " have an owner";
}

struct Judgement {
  bool reported = false;
  std::string wrong;
};

Judgement reportedBy(const std::string& who, const Status& why) {
  return {true, who + ": " + why.message()};
}

// fsck, a mount on the healthy device, the model, an unmount, fsck.
Judgement judgeDevice(BlockDevice& device, const FaultModel& model, const Lenience& lenience) {
  std::string problems;
  CheckOptions look;
  look.report = [&](const std::string& line) { problems += (problems.empty() ? "" : "; ") + line; };
  const auto before = checkVolume(device, look);
  if (!before) return reportedBy("fsck -n", before.status());
  Judgement result;
  if (!before->clean()) result = {true, "fsck -n: " + problems};
  Mounted mounted;
  if (const Status opened = mounted.open(device); !opened.isOk())
    return reportedBy("mount", opened);
  const auto wrong = model.judge(mounted.filesystem(), lenience);
  if (!wrong) return reportedBy("reading", wrong.status());
  if (result.reported) return result;
  if (!wrong->empty()) return {false, *wrong};
  if (const Status stopped = mounted.stop(); !stopped.isOk()) return reportedBy("unmount", stopped);
  if (const std::string leak = spaceProblem(mounted.volume()); !leak.empty()) return {false, leak};
  if (const Status closed = mounted.close(); !closed.isOk()) return reportedBy("unmount", closed);
  problems.clear();
  const auto after = checkVolume(device, look);
  if (!after) return reportedBy("fsck -n after the unmount", after.status());
  if (!after->clean()) return {true, "fsck -n after the unmount: " + problems};
  if (after->orphans != 0) return {false, "unlinked files are left after a clean unmount"};
  // The free map of the next mount is the snapshot; that of fsck is what everybody claims.
  Mounted again;
  if (const Status opened = again.open(device); !opened.isOk()) return reportedBy("mount", opened);
  const SpaceCounts counts = again.volume().space().counts();
  if (counts.free + counts.busy != after->freeBlocks)
    return {false, "statfs says " + std::to_string(counts.free.v) + " blocks are free, fsck " +
                       std::to_string(after->freeBlocks.v)};
  return {};
}

class FaultRun {
 public:
  FaultRun(const FaultBase& base, const Fault& fault)
      : base_(base),
        fault_(fault),
        model_(base.model),
        memory_(base.device->clone()),
        record_(RecordDevice::wrap(*memory_)),
        faults_(FaultDevice::wrap(*record_)),
        rule_(faults_->addRule(fault.rule)) {}

  FaultOutcome run() {
    live();
    hit_ = faults_->lastHit(rule_);
    outcome_.hit = hit_.has_value();
    faults_->clear();
    judgeAnswers();
    judgeRemains();
    return std::move(outcome_);
  }

 private:
  void live();
  void unmount(Mounted& mounted);
  void awaitFailStop(Volume& volume);
  void judgeAnswers();
  void judgeRemains();
  void judge(const std::string& when, BlockDevice& device, const FaultModel& model);
  bool mayAnswer(int errnum) const;
  bool metadata() const { return fault_.rule.cls != IoClass::Data; }
  bool failsWrites() const {
    const FaultKind kind = fault_.rule.kind;
    return (kind == FaultKind::Error || kind == FaultKind::Short) && fault_.rule.op != IoOp::Read;
  }
  void broke(const std::string& what) { outcome_.broken.push_back(fault_.name() + ": " + what); }
  Lenience lenience() const;

  const FaultBase& base_;
  const Fault& fault_;
  FaultModel model_;
  std::unique_ptr<MemoryDevice> memory_;
  std::unique_ptr<RecordDevice> record_;
  std::unique_ptr<FaultDevice> faults_;
  const int rule_;
  std::vector<FailedOperation> failures_;
  std::optional<FaultHit> hit_;
  bool hitLive_ = false;  // while the workload ran
  uint64_t powerLoss_ = 0;
  FaultModel atPowerLoss_;
  FaultOutcome outcome_;
};

void FaultRun::live() {
  Mounted mounted;
  const Status opened = mounted.open(*faults_);
  outcome_.mounted = opened.isOk();
  if (!opened.isOk()) {
    failures_.push_back({"mount", opened.errnum(), InodeNo(0)});
    powerLoss_ = record_->mark();
    atPowerLoss_ = model_;
    return;
  }
  FaultWorkload workload(mounted.filesystem(), model_, !fault_.lies());
  workload.run();
  hitLive_ = faults_->hits(rule_) != 0;
  awaitFailStop(mounted.volume());
  workload.end();
  failures_ = workload.failures();
  for (const std::string& line : workload.broken()) broke(line);
  powerLoss_ = record_->mark();
  atPowerLoss_ = model_;
  unmount(mounted);
}

// A failed write of metadata stops the volume, if perhaps a moment later, from another thread.
void FaultRun::awaitFailStop(Volume& volume) {
  const bool one = fault_.rule.times == 1;  // a dead device may die at a read that nobody misses
  if (!metadata() || !failsWrites() || !one || faults_->hits(rule_) == 0) return;
  const auto end = std::chrono::steady_clock::now() + fault_.patience;
  while (volume.failure().isOk() && std::chrono::steady_clock::now() < end)
    std::this_thread::yield();
  if (volume.failure().isOk()) broke("metadata was not written, and the volume goes on");
}

void FaultRun::unmount(Mounted& mounted) {
  outcome_.failStop = !mounted.volume().failure().isOk();
  const Status stopped = mounted.stop();
  if (!stopped.isOk()) failures_.push_back({"unmount", stopped.errnum(), InodeNo(0)});
  const bool going = mounted.volume().failure().isOk();
  if (going) {
    if (const std::string leak = spaceProblem(mounted.volume()); !leak.empty()) broke(leak);
  }
  if (!stopped.isOk()) return;
  const Status closed = mounted.close();
  if (!closed.isOk()) failures_.push_back({"unmount", closed.errnum(), InodeNo(0)});
  if (failures_.empty()) model_.synced(InodeNo(0), 0);
}

bool FaultRun::mayAnswer(int errnum) const {
  if (errnum == EIO) return true;
  if (errnum == EROFS) return outcome_.failStop;
  if (fault_.rule.kind == FaultKind::Error) return errnum == fault_.rule.errnum;
  return fault_.lies() && errnum == EUCLEAN;
}

void FaultRun::judgeAnswers() {
  outcome_.told = !failures_.empty();
  if (failures_.empty()) {
    const bool lost = outcome_.hit && (fault_.rule.kind == FaultKind::Error ||
                                       fault_.rule.kind == FaultKind::Short);
    // The unmount may break off work of the index that nothing depends on.
    const bool spared = fault_.rule.cls == IoClass::Index && !hitLive_;
    if (lost && fault_.rule.op != IoOp::Read && !spared) broke("nobody is told");
    return;
  }
  if (!outcome_.hit) broke(failures_.front().what + " fails before the fault");
  if (fault_.rule.kind == FaultKind::Delay)
    broke(failures_.front().what + " fails because the device is slow");
  InodeNo victim;
  for (const FailedOperation& failed : failures_) {
    if (!mayAnswer(failed.errnum))
      broke(failed.what + " answers: " + Status::error(failed.errnum).message());
    if (metadata() || fault_.rule.times != 1 || failed.ino.v == 0) continue;
    if (victim.v != 0 && failed.ino != victim)
      broke(failed.what + " fails, which is of another file");
    victim = failed.ino;
  }
  if (!metadata() && fault_.rule.times == 1 && outcome_.failStop)
    broke("lost data has stopped the volume");
}

Lenience FaultRun::lenience() const {
  Lenience lenience;
  // Without a loss of power a flush that was dropped has cost nothing.
  if (!fault_.lies() || !hit_ || hit_->op == IoOp::Flush) return lenience;
  // What the device has not kept is lost; that it was there once is all that can be asked. What was
  // read wrong is still there.
  lenience.olderState = metadata() && hit_->op == IoOp::Write;
  lenience.anything = [hit = *hit_](DeviceOffset at) {
    const auto inside = [&](DeviceOffset from) { return at >= from && at < from + hit.length; };
    return inside(hit.offset) || inside(hit.landed);
  };
  return lenience;
}

// As a loss of power just before the unmount leaves it, or, where the device has lied, the end of
// the program there; then as the unmount leaves it.
void FaultRun::judgeRemains() {
  const bool kept = fault_.lies();
  const auto image = crashImage(*base_.device, record_->log(), powerLoss_,
                                [kept](size_t, size_t) { return kept; });
  judge(kept ? "after a kill: " : "after a loss of power: ", *image, atPowerLoss_);
  judge("", *memory_, model_);
}

void FaultRun::judge(const std::string& when, BlockDevice& device, const FaultModel& model) {
  const Judgement judged = judgeDevice(device, model, lenience());
  outcome_.reported = outcome_.reported || judged.reported;
  const bool anywhere = metadata() || fault_.rule.kind == FaultKind::Misdirect;
  const bool allowed = fault_.lies() && judged.reported && anywhere;
  if (!judged.wrong.empty() && !allowed) broke(when + judged.wrong);
}

}  // namespace

const char* classNameOf(IoClass cls) {
  static constexpr const char* kNames[] = {"data",       "journal",    "index",
                                           "file table", "superblock", "other"};
  return kNames[static_cast<size_t>(cls)];
}

std::string Fault::name() const {
  std::string text = nameOf(rule.kind);
  if (rule.kind == FaultKind::Error) text += " " + std::to_string(rule.errnum);
  if (rule.kind == FaultKind::Flip) text += " of bit " + std::to_string(rule.bit);
  if (rule.kind == FaultKind::Misdirect) text += " by " + std::to_string(rule.shift.v);
  text += rule.op ? std::string(" of ") + nameOf(*rule.op) : " of any request";
  text += rule.cls ? std::string(" of ") + classNameOf(*rule.cls) : "";
  return text + (rule.times == 1 ? ", number " : ", from number ") + std::to_string(rule.skip);
}

bool Fault::lies() const {
  return rule.kind == FaultKind::Drop || rule.kind == FaultKind::Misdirect ||
         rule.kind == FaultKind::Flip;
}

OpenOptions faultOpenOptions() {
  OpenOptions options;
  options.blockCache = ByteCount(4 * MiB);
  return options;
}

FaultBase makeBase(bool clean) {
  FaultBase base;
  base.device = MemoryDevice::create(ByteCount(32 * MiB));
  base.device->setFill(kUnwritten);
  Status made = formatVolume(*base.device, FormatOptions());
  Mounted mounted;
  if (made.isOk()) made = mounted.open(*base.device);
  if (!made.isOk()) {
    base.broken = made.message();
    return base;
  }
  FaultWorkload workload(mounted.filesystem(), base.model);
  workload.prepare();
  if (!workload.failures().empty()) base.broken = workload.failures().front().what + " failed";
  if (!clean) return base;  // without an unmount
  if (!mounted.stop().isOk() || !mounted.close().isOk()) base.broken = "the unmount failed";
  return base;
}

uint64_t recordsToReplay(const FaultBase& base) {
  const auto memory = base.device->clone();
  Mounted mounted;
  return mounted.open(*memory).isOk() ? mounted.volume().summary().replay.records : 0;
}

FaultOutcome runWith(const FaultBase& base, const Fault& fault) {
  return FaultRun(base, fault).run();
}

std::map<RequestKind, uint64_t> countRequests(const FaultBase& base) {
  const auto memory = base.device->clone();
  const auto faults = FaultDevice::wrap(*memory);
  std::map<RequestKind, int> rules;
  for (IoOp op : {IoOp::Read, IoOp::Write, IoOp::Flush}) {
    for (int cls = 0; cls <= static_cast<int>(IoClass::Superblock); ++cls) {
      FaultRule rule;
      rule.op = op;
      rule.cls = static_cast<IoClass>(cls);
      rule.skip = UINT64_MAX;
      rules[{op, *rule.cls}] = faults->addRule(rule);
    }
  }
  FaultModel model = base.model;
  std::map<RequestKind, uint64_t> counts;
  Mounted mounted;
  if (!mounted.open(*faults).isOk()) return counts;
  FaultWorkload workload(mounted.filesystem(), model);
  workload.run();
  workload.end();
  if (!mounted.stop().isOk() || !mounted.close().isOk() || !workload.failures().empty())
    return counts;
  for (const auto& [kind, rule] : rules) counts[kind] = faults->matched(rule);
  return counts;
}

}  // namespace ourfs::faults
