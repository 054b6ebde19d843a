#include "fault_rule.h"

#include <charconv>
#include <map>

namespace ourfs {

namespace {

// Holding is left out: an unmount would wait for whoever lets go.
const std::map<std::string, FaultKind> kKinds = {
    {"error", FaultKind::Error},         {"short", FaultKind::Short}, {"drop", FaultKind::Drop},
    {"misdirect", FaultKind::Misdirect}, {"flip", FaultKind::Flip},   {"delay", FaultKind::Delay}};
const std::map<std::string, IoOp> kOps = {{"read", IoOp::Read},
                                          {"write", IoOp::Write},
                                          {"flush", IoOp::Flush},
                                          {"discard", IoOp::Discard}};
const std::map<std::string, IoClass> kClasses = {{"data", IoClass::Data},
                                                 {"journal", IoClass::Journal},
                                                 {"index", IoClass::Index},
                                                 {"table", IoClass::FileTable},
                                                 {"superblock", IoClass::Superblock}};

template <class T>
Result<T> chosenFrom(const std::map<std::string, T>& words, const std::string& word) {
  const auto found = words.find(word);
  if (found != words.end()) return found->second;
  std::string line = "fault: not '" + word + "' but";
  for (const auto& each : words) line += " " + each.first;
  return Status::error(EINVAL, line);
}

Result<uint64_t> countOf(const std::string& name, const std::string& text) {
  if (name == "times" && text == "all") return UINT64_MAX;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  return Status::error(EINVAL, "fault: " + name + "='" + text + "' is not a whole number");
}

Status setNumber(FaultRule& rule, const std::string& name, uint64_t value) {
  if (name == "skip") {
    rule.skip = value;
  } else if (name == "times") {
    rule.times = value;
  } else if (name == "errno" && value > 0 && value < 4096) {
    rule.errnum = static_cast<int>(value);
  } else if (name == "shift") {
    rule.shift = ByteCount(value);
  } else if (name == "bit") {
    rule.bit = value;
  } else if (name == "delay" && value <= 60'000'000) {
    rule.delay = std::chrono::microseconds(value);
  } else {
    return Status::error(EINVAL, "fault: there is no '" + name + "', or not so large");
  }
  return Status::ok();
}

}  // namespace

Result<FaultRule> faultRuleOf(const std::vector<std::string>& words) {
  FaultRule rule;
  TRY_ASSIGN(rule.kind, chosenFrom(kKinds, words.empty() ? "" : words[0]));
  for (size_t i = 1; i < words.size(); ++i) {
    const size_t equals = words[i].find('=');
    const std::string name = words[i].substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : words[i].substr(equals + 1);
    if (name == "op") {
      TRY_ASSIGN(rule.op, chosenFrom(kOps, value));
    } else if (name == "class") {
      TRY_ASSIGN(rule.cls, chosenFrom(kClasses, value));
    } else {
      TRY_ASSIGN(const uint64_t number, countOf(name, value));
      TRY(setNumber(rule, name, number));
    }
  }
  return rule;
}

}  // namespace ourfs
