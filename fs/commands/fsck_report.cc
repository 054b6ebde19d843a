#include "fsck_report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <sstream>

#include "command.h"
#include "fs/byte_text.h"

namespace ourfs {

namespace {

using Json = nlohmann::ordered_json;

// What the kernel sends to a process that does something impossible, as a failed assertion does.
bool isCrash(int signal) {
  return signal == SIGABRT || signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE ||
         signal == SIGILL;
}

const char* modeName(FsckReport::Mode mode) {
  switch (mode) {
    case FsckReport::Mode::Look:
      return "look";
    case FsckReport::Mode::Mend:
      return "mend";
    case FsckReport::Mode::Salvage:
      return "salvage";
  }
  return "";
}

std::string lastLineOf(const std::string& text) {
  const size_t end = text.find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const size_t before = text.rfind('\n', end);
  return text.substr(before == std::string::npos ? 0 : before + 1,
                     end - (before == std::string::npos ? 0 : before + 1) + 1);
}

}  // namespace

// ---- in the child ----

std::string FsckReport::progressLine(const Progress& p) {
  return fmt::format("{} {} {} {} {}", p.phase, p.phases,
                     p.total != 0 ? std::min(p.done, p.total) : 0, p.total, p.name);
}

std::string FsckReport::resultLine(const CheckReport& r, uint32_t blockSize) {
  const Json json = {{"exit_code", r.exitCode()},
                     {"was_clean", r.mount.wasClean},
                     {"replayed_records", r.mount.replay.records},
                     {"problem_count", r.problemCount},
                     {"mended_count", r.repaired},
                     {"inodes", r.inodes},
                     {"files", r.files},
                     {"directories", r.directories},
                     {"symlinks", r.symlinks},
                     {"others", r.others},
                     {"orphans", r.orphans},
                     {"names", r.names},
                     {"extents", r.extents},
                     {"attributes", r.attributes},
                     {"used_bytes", r.usedBlocks.v * blockSize},
                     {"free_bytes", r.freeBlocks.v * blockSize}};
  return json.dump();
}

std::string FsckReport::resultLine(const SalvageReport& r) {
  const Json json = {{"exit_code", r.problemCount == 0 ? kFsckClean : kFsckProblemsLeft},
                     {"problem_count", r.problemCount},
                     {"files", r.files},
                     {"directories", r.directories},
                     {"symlinks", r.symlinks},
                     {"others", r.others},
                     {"links", r.links},
                     {"bytes", r.bytes}};
  return json.dump();
}

// ---- in the parent ----

void FsckReport::receive(char kind, std::string_view text) {
  constexpr size_t kKept = 1000;  // of problems and of notes
  switch (kind) {
    case 'P':
    case 'N': {
      auto& kept = kind == 'P' ? problems_ : notes_;
      if (kept.size() < kKept) kept.emplace_back(text);
      print(text);
      break;
    }
    case 'G':
      showProgress(text);
      break;
    case 'E': {
      std::istringstream in{std::string(text)};
      in >> errorCode_ >> std::ws;
      std::getline(in, error_);
      break;
    }
    case 'R':
      result_ = Json::parse(text, nullptr, /*allow_exceptions=*/false);
      break;
    default:
      break;
  }
}

void FsckReport::print(std::string_view line) {
  if (style_.json) return;
  clearBar();
  std::printf("%s: %.*s\n", style_.source.c_str(), static_cast<int>(line.size()), line.data());
}

void FsckReport::showProgress(std::string_view text) {
  std::istringstream in{std::string(text)};
  uint64_t phase = 0, phases = 0, done = 0, total = 0;
  in >> phase >> phases >> done >> total >> std::ws;
  std::getline(in, phase_);
  if (style_.progress > kBar) {
    const std::string line =
        fmt::format("{} {} {} {}\n", phase, done, std::max<uint64_t>(total, 1), style_.source);
    (void)!::write(style_.progress, line.data(), line.size());
  }
  if (style_.progress != kBar) return;
  std::string bar = fmt::format("{}: {}/{} {}", style_.source, phase, phases, phase_);
  if (total != 0) bar += fmt::format(" {}%", done * 100 / total);
  if (bar == bar_) return;
  std::printf("\r%s\033[K", bar.c_str());
  (void)std::fflush(stdout);
  bar_ = std::move(bar);
}

void FsckReport::clearBar() {
  if (bar_.empty()) return;
  std::printf("\r\033[K");
  (void)std::fflush(stdout);
  bar_.clear();
}

std::string FsckReport::deathLine(const ChildEnd& end) const {
  const std::string where = phase_.empty() ? "" : " while it looked at " + phase_;
  if (end.signal == 0)
    return fmt::format("the check ended without a result{}, exit code {}", where, end.exitCode);
  const std::string how = fmt::format("the check was ended by signal {} ({}){}", end.signal,
                                      strsignal(end.signal), where);
  if (!isCrash(end.signal))
    return how + (end.signal == SIGKILL ? ": out of memory?" : "") + "; run it again";
  const std::string why = lastLineOf(end.complaints);
  return how + (why.empty() ? "" : ": " + why) +
         "; the index is damaged in a way that its library does not survive" + kWayOut;
}

int FsckReport::finish(const ChildEnd& end) {
  clearBar();
  const bool told = !error_.empty() || result_.is_object();
  if (!told) {
    error_ = deathLine(end);
    errorCode_ = isCrash(end.signal) ? kFsckProblemsLeft : kFsckOperational;
  }
  // A child that was killed has said its last line above; of one that ended nothing is held back.
  if (end.signal == 0 || style_.verbose) std::fputs(end.complaints.c_str(), stderr);
  const int code = error_.empty() ? result_.value("exit_code", int{kFsckOperational}) : errorCode_;
  if (style_.json)
    printJson(code);
  else if (error_.empty())
    style_.mode == Mode::Salvage ? printSalvage() : printSummary();
  if (!error_.empty())
    complain(style_.command, style_.source, Status::error(EUCLEAN, error_), code);
  return code;
}

int FsckReport::finish(const Status& noChild) {
  error_ = noChild.message();
  errorCode_ = kFsckOperational;
  return finish(ChildEnd());
}

void FsckReport::printSummary() const {
  const Json& r = result_;
  const auto number = [&](const char* key) { return r.value(key, uint64_t{0}); };
  const char* source = style_.source.c_str();
  const bool look = style_.mode == Mode::Look;
  if (!r.value("was_clean", true))
    std::printf("%s: was not unmounted; %llu journal records replayed%s\n", source,
                static_cast<unsigned long long>(number("replayed_records")),
                look ? " in memory" : "");
  if (number("problem_count") == 0) {
    std::printf("%s: clean\n", source);
  } else {
    std::printf("%s: %llu problems, %llu of them mended%s\n", source,
                static_cast<unsigned long long>(number("problem_count")),
                static_cast<unsigned long long>(number("mended_count")),
                look ? "; run without -n to mend" : "");
  }
  if (!style_.verbose || !r.contains("inodes")) return;
  const std::string counts = fmt::format(
      "  {} inodes: {} files, {} directories, {} symbolic links, {} others; {} orphans\n"
      "  {} names, {} extents, {} attributes; {} used, {} free\n",
      number("inodes"), number("files"), number("directories"), number("symlinks"),
      number("others"), number("orphans"), number("names"), number("extents"), number("attributes"),
      bytesText(ByteCount(number("used_bytes"))), bytesText(ByteCount(number("free_bytes"))));
  std::fputs(counts.c_str(), stdout);
}

void FsckReport::printSalvage() const {
  const auto number = [&](const char* key) { return result_.value(key, uint64_t{0}); };
  const std::string line = fmt::format(
      "{}: {} files, {} directories, {} symbolic links, {} others and {} further names are in {}, "
      "with {} of data; {}",
      style_.source, number("files"), number("directories"), number("symlinks"), number("others"),
      number("links"), style_.salvage, bytesText(ByteCount(number("bytes"))),
      number("problem_count") == 0
          ? std::string("all of it was copied")
          : fmt::format("{} problems: see above", number("problem_count")));
  std::printf("%s\n", line.c_str());
}

// The keys are promised in fsck.ourfs(8).
void FsckReport::printJson(int exitCode) const {
  Json json = {{"source", style_.source},
               {"mode", modeName(style_.mode)},
               {"exit_code", exitCode},
               {"error", error_.empty() ? Json() : Json(error_)}};
  if (result_.is_object()) {
    for (const auto& [key, value] : result_.items()) {
      if (!json.contains(key)) json[key] = value;
    }
  }
  json["problems"] = problems_;
  json["notes"] = notes_;
  // Names may be of any bytes.
  std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

}  // namespace ourfs
