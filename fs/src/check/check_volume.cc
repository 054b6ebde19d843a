#include <sys/stat.h>

#include "check/checker.h"

namespace ourfs {

namespace {
constexpr size_t kKeptProblems = 1000;
constexpr int kMendPasses =
    4;  // mending one thing can uncover the next: a lost directory holds lost files
}  // namespace

int CheckReport::exitCode() const {
  if (problemCount == 0) return 0;
  return repaired == problemCount ? 1 : 4;
}

bool Checker::Node::isDirectory() const { return S_ISDIR(mode); }
bool Checker::Node::isRegular() const { return S_ISREG(mode); }

void Checker::problem(const std::string& line, Fix fix) {
  ++report_.problemCount;
  if (report_.problems.size() < kKeptProblems) report_.problems.push_back(line);
  if (tell_) tell_(line);
  if (mend_ && fix) fixes_.push_back(std::move(fix));
}

Status Checker::applyFixes() {
  for (Fix& fix : fixes_) {
    TRY_ASSIGN(auto room, volume_.log().reserve(kNamespaceRoom, Privilege::Freeing));
    Transaction t;
    fix(t);
    if (t.empty()) continue;
    TRY(volume_.log().commit(std::move(t), std::move(room)));
  }
  fixes_.clear();
  return Status::ok();
}

Status Checker::scanPrefix(char kind,
                           const std::function<void(const ParsedKey&, std::string_view)>& each) {
  std::string from(1, kind);
  return volume_.index().scan(from, prefixEnd(from), [&](auto key, auto value) {
    auto parsed = parseKey(key);
    if (!parsed) {
      problem(std::string("index: key of kind '") + kind +
                  "' cannot be read: " + parsed.status().message(),
              [k = std::string(key)](Transaction& t) { t.erase(k); });
    } else {
      each(*parsed, value);
    }
    return true;
  });
}

Status Checker::checkKinds() {
  static const std::string known = "CDEFGILOX";
  return volume_.index().scan("", std::string(1, '\xff'), [&](auto key, auto) {
    if (key.empty() || known.find(key[0]) == std::string::npos)
      problem("index: a key of an unknown kind",
              [k = std::string(key)](Transaction& t) { t.erase(k); });
    return true;
  });
}

Status Checker::run() {
  TRY(checkKinds());
  TRY(checkInodes());
  TRY(checkOrphans());
  TRY(checkNames());
  TRY(checkExtents());
  TRY(checkAttributes());
  TRY(applyFixes());
  TRY(checkClaims());
  TRY(checkTree());
  TRY(checkCounts());
  TRY(checkSettings());
  return applyFixes();
}

Result<CheckReport> checkVolume(BlockDevice& device, const CheckOptions& options) {
  OpenOptions open;
  open.readOnly = !options.repair;
  open.forCheck = true;
  TRY_ASSIGN(auto volume, Volume::open(device, open));

  CheckReport report;
  report.mount = volume->summary();
  Status verified = volume->index().verify([&](const std::string& line) {
    ++report.problemCount;
    report.problems.push_back("index: " + line);
    if (options.report) options.report(report.problems.back());
  });
  TRY(verified);
  TRY(Checker(*volume, options.repair, report, options.report).run());

  if (options.repair && report.problemCount > 0) {
    uint64_t left = report.problemCount;
    for (int pass = 0; pass < kMendPasses && left > 0; ++pass) {
      CheckReport again;
      bool lastLook = pass == kMendPasses - 1;
      TRY(Checker(*volume, !lastLook, again, nullptr).run());
      left = again.problemCount;
    }
    report.repaired = report.problemCount - std::min(left, report.problemCount);
  }
  SpaceCounts counts = volume->space().counts();
  report.freeBlocks = counts.free + counts.busy;
  report.usedBlocks = counts.total - report.freeBlocks;
  if (options.repair) TRY(volume->close());
  return report;
}

}  // namespace ourfs
