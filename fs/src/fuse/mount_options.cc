#include "fs/mount_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>

#include "fs/byte_text.h"

namespace ourfs {

namespace {

constexpr ByteCount kSmallestCache{4 * MiB};
constexpr uint64_t kMaxCommitSeconds = 3600, kMaxThreads = 64;

// For mount(8), systemd and the like; they have done what these ask for, or it means nothing to us.
constexpr std::array<std::string_view, 22> kIgnored{
    "defaults",   "auto",       "noauto",
    "user",       "nouser",     "users",
    "owner",      "group",      "nofail",
    "_netdev",    "async",      "silent",
    "loud",       "mand",       "nomand",
    "iversion",   "noiversion", "lazytime",
    "nolazytime", "diratime",   "default_permissions",
    "symfollow"};
constexpr std::array<std::string_view, 5> kIgnoredPrefixes{"x-", "X-",
                                                           "comment=", "uhelper=", "helper="};

bool isIgnored(std::string_view option) {
  return std::find(kIgnored.begin(), kIgnored.end(), option) != kIgnored.end() ||
         std::any_of(kIgnoredPrefixes.begin(), kIgnoredPrefixes.end(),
                     [&](std::string_view prefix) { return option.starts_with(prefix); });
}

using Setter = void (*)(MountOptions&);
struct Flag {
  std::string_view name;
  Setter set;
};
constexpr Flag kFlags[] = {
    {"rw", [](MountOptions& o) { o.readOnly = false; }},
    {"ro", [](MountOptions& o) { o.readOnly = true; }},
    {"sync", [](MountOptions& o) { o.sync = true; }},
    {"dirsync", [](MountOptions& o) { o.dirsync = true; }},
    {"dev", [](MountOptions& o) { o.nodev = false; }},
    {"nodev", [](MountOptions& o) { o.nodev = true; }},
    {"suid", [](MountOptions& o) { o.nosuid = false; }},
    {"nosuid", [](MountOptions& o) { o.nosuid = true; }},
    {"exec", [](MountOptions& o) { o.noexec = false; }},
    {"noexec", [](MountOptions& o) { o.noexec = true; }},
    {"atime", [](MountOptions& o) { o.atime = AtimeMode::Relative; }},
    {"noatime", [](MountOptions& o) { o.atime = AtimeMode::None; }},
    {"relatime", [](MountOptions& o) { o.atime = AtimeMode::Relative; }},
    {"norelatime", [](MountOptions& o) { o.atime = AtimeMode::Relative; }},
    {"strictatime", [](MountOptions& o) { o.atime = AtimeMode::Strict; }},
    {"nostrictatime", [](MountOptions& o) { o.atime = AtimeMode::Relative; }},
    {"remount", [](MountOptions& o) { o.remount = true; }},
    {"allow_other", [](MountOptions& o) { o.allowOther = true; }},
    {"noallow_other", [](MountOptions& o) { o.allowOther = false; }},
    {"acl", [](MountOptions& o) { o.posixAcl = true; }},
    {"noacl", [](MountOptions& o) { o.posixAcl = false; }},
    {"writeback_cache", [](MountOptions& o) { o.writebackCache = true; }},
    {"no_writeback_cache", [](MountOptions& o) { o.writebackCache = false; }},
    {"norecovery", [](MountOptions& o) { o.noRecovery = true; }},
    {"discard", [](MountOptions& o) { o.discard = true; }},
    {"nodiscard", [](MountOptions& o) { o.discard = false; }},
    {"debug_points", [](MountOptions& o) { o.debugPoints = true; }},
    {"foreground", [](MountOptions& o) { o.foreground = true; }},
};

Result<uint64_t> number(std::string_view name, std::string_view text, uint64_t least,
                        uint64_t most) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= least && value <= most)
    return value;
  return Status::error(EINVAL, "option " + std::string(name) + "=" + std::string(text) +
                                   ": give a whole number from " + std::to_string(least) + " to " +
                                   std::to_string(most));
}

Status setBytes(ByteCount& into, std::string_view name, std::string_view text) {
  auto bytes = parseBytes(text);
  if (!bytes) return bytes.status().withContext("option " + std::string(name));
  into = *bytes;
  return Status::ok();
}

Status setText(std::string& into, std::string_view name, std::string_view text) {
  if (text.empty()) return Status::error(EINVAL, "option " + std::string(name) + " wants a value");
  into = text;
  return Status::ok();
}

Status setLevel(std::string& into, std::string_view text) {
  static constexpr std::array<std::string_view, 7> kLevels{"trace", "debug",    "info", "warn",
                                                           "error", "critical", "off"};
  if (std::find(kLevels.begin(), kLevels.end(), text) == kLevels.end())
    return Status::error(EINVAL, "option loglevel=" + std::string(text) +
                                     ": give trace, debug, info, warn, error, critical or off");
  into = text;
  return Status::ok();
}

Status unknown(const MountOptions& o, std::string_view option) {
  if (o.sloppy) return Status::ok();
  return Status::error(EINVAL, "unknown option '" + std::string(option) + "'; see mount.ourfs(8)");
}

Status addValue(MountOptions& o, std::string_view name, std::string_view value) {
  if (name == "cache_size") return setBytes(o.cacheSize, name, value);
  if (name == "dirty_limit") return setBytes(o.dirtyLimit, name, value);
  if (name == "dirty_background") return setBytes(o.dirtyBackground, name, value);
  if (name == "loglevel") return setLevel(o.logLevel, value);
  if (name == "logfile") return setText(o.logFile, name, value);
  if (name == "commit") {
    TRY_ASSIGN(uint64_t seconds, number(name, value, 1, kMaxCommitSeconds));
    o.commit = std::chrono::seconds(seconds);
    return Status::ok();
  }
  if (name == "threads") {
    TRY_ASSIGN(uint64_t threads, number(name, value, 1, kMaxThreads));
    o.threads = static_cast<unsigned>(threads);
    return Status::ok();
  }
  return unknown(o, std::string(name) + "=" + std::string(value));
}

Status addOne(MountOptions& o, std::string_view option) {
  if (option.empty() || isIgnored(option)) return Status::ok();
  for (const Flag& flag : kFlags) {
    if (flag.name != option) continue;
    flag.set(o);
    return Status::ok();
  }
  size_t equals = option.find('=');
  if (equals == std::string_view::npos) return unknown(o, option);
  return addValue(o, option.substr(0, equals), option.substr(equals + 1));
}

}  // namespace

Status MountOptions::add(const std::string& list) {
  std::string_view rest = list;
  while (!rest.empty()) {
    size_t comma = std::min(rest.find(','), rest.size());
    TRY(addOne(*this, rest.substr(0, comma)));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return Status::ok();
}

Status MountOptions::check() const {
  if (noRecovery && !readOnly)
    return Status::error(EINVAL, "norecovery is for looking only; add the option ro");
  if (cacheSize < kSmallestCache)
    return Status::error(EINVAL, "cache_size=" + bytesText(cacheSize) +
                                     " is too small; the least is " + bytesText(kSmallestCache));
  if (dirtyLimit > cacheSize)
    return Status::error(EINVAL,
                         "dirty_limit is larger than cache_size (" + bytesText(cacheSize) + ")");
  ByteCount limit = dirtyLimit.v ? dirtyLimit : ByteCount(cacheSize.v / 2);
  if (dirtyBackground > limit)
    return Status::error(EINVAL,
                         "dirty_background is larger than dirty_limit (" + bytesText(limit) + ")");
  return Status::ok();
}

}  // namespace ourfs
