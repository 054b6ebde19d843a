#include "debug_points.h"

#include <charconv>
#include <map>
#include <sstream>
#include <vector>

#include "common/sync_point.h"
#include "fault_rule.h"

namespace ourfs {

namespace {

using Words = std::vector<std::string>;

Result<uint64_t> numberIn(const Words& words, size_t at, std::optional<uint64_t> ifNone = {}) {
  if (at >= words.size() && ifNone) return *ifNone;
  const std::string text = at < words.size() ? words[at] : "";
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  return Status::error(EINVAL, "'" + text + "' is not a whole number");
}

struct Context {
  Filesystem& filesystem;
  FaultDevice& faults;
  SyncPoints& points;
  const Words& words;  // the command, its subject, and more
  const std::string& subject() const { return words[1]; }
};

struct Command {
  size_t least, most;  // words behind the command
  Result<std::string> (*run)(const Context&);
};

const std::string kDone;

const std::map<std::string, Command> kCommands = {
    {"park",
     {1, 2,
      [](const Context& c) -> Result<std::string> {
        TRY_ASSIGN(uint64_t times, numberIn(c.words, 2, 1));
        c.points.park(c.subject(), static_cast<int>(times));
        return kDone;
      }}},
    {"parked",
     {1, 1,
      [](const Context& c) -> Result<std::string> {
        return std::to_string(c.points.parked(c.subject())) + "\n";
      }}},
    {"release",
     {1, 1,
      [](const Context& c) -> Result<std::string> {
        c.points.release(c.subject());
        return kDone;
      }}},
    {"error",
     {2, 3,
      [](const Context& c) -> Result<std::string> {
        TRY_ASSIGN(uint64_t errnum, numberIn(c.words, 2));
        TRY_ASSIGN(uint64_t times, numberIn(c.words, 3, 1));
        c.points.forceError(c.subject(), static_cast<int>(errnum), static_cast<int>(times));
        return kDone;
      }}},
    {"delay",
     {2, 2,
      [](const Context& c) -> Result<std::string> {
        TRY_ASSIGN(uint64_t microseconds, numberIn(c.words, 2));
        c.points.delay(c.subject(), std::chrono::microseconds(microseconds));
        return kDone;
      }}},
    {"stale",
     {2, 2,
      [](const Context& c) -> Result<std::string> {
        TRY_ASSIGN(uint64_t inode, numberIn(c.words, 2));
        TRY(c.filesystem.makeMapsStale(InodeNo(inode)));
        c.points.call(c.subject(), [&filesystem = c.filesystem, inode] {
          (void)filesystem.makeMapsStale(InodeNo(inode));
        });
        return kDone;
      }}},
    {"count",
     {1, 1,
      [](const Context& c) -> Result<std::string> {
        c.points.count(c.subject());
        return kDone;
      }}},
    {"hits",
     {1, 1,
      [](const Context& c) -> Result<std::string> {
        return std::to_string(c.points.hits(c.subject())) + "\n";
      }}},
    {"mutant",
     {2, 2,
      [](const Context& c) -> Result<std::string> {
        if (c.words[2] != "on" && c.words[2] != "off")
          return Status::error(EINVAL, "give mutant NAME on or off");
        c.points.setMutant(c.subject(), c.words[2] == "on");
        return kDone;
      }}},
    {"evict",
     {0, 0,
      [](const Context& c) -> Result<std::string> {
        c.filesystem.data().writeback().reclaim(c.filesystem.data().pool().limit());
        return kDone;
      }}},
    {"fault",
     {1, 8,
      [](const Context& c) -> Result<std::string> {
        TRY_ASSIGN(const FaultRule rule, faultRuleOf({c.words.begin() + 1, c.words.end()}));
        return std::to_string(c.faults.addRule(rule)) + "\n";
      }}},
    {"fault-hits",
     {1, 1,
      [](const Context& c) -> Result<std::string> {
        TRY_ASSIGN(uint64_t number, numberIn(c.words, 1));
        return std::to_string(c.faults.hits(static_cast<int>(number))) + "\n";
      }}},
    {"fault-off",
     {1, 1,
      [](const Context& c) -> Result<std::string> {
        TRY_ASSIGN(uint64_t number, numberIn(c.words, 1));
        c.faults.removeRule(static_cast<int>(number));
        return kDone;
      }}},
    {"reset",
     {0, 0,
      [](const Context& c) -> Result<std::string> {
        c.points.reset();
        c.faults.clear();
        return kDone;
      }}},
};

}  // namespace

Result<std::string> debugCommand(Filesystem& filesystem, FaultDevice& faults,
                                 const std::string& line) {
  std::istringstream in(line);
  Words words;
  for (std::string word; in >> word;) words.push_back(word);
  const auto command = words.empty() ? kCommands.end() : kCommands.find(words[0]);
  if (command == kCommands.end())
    return Status::error(EINVAL, "no debug command '" + (words.empty() ? "" : words[0]) + "'");
  const size_t given = words.size() - 1;
  if (given < command->second.least || given > command->second.most)
    return Status::error(EINVAL, "debug " + words[0] + ": wrong number of arguments");
  return command->second.run({filesystem, faults, SyncPoints::instance(), words});
}

}  // namespace ourfs
