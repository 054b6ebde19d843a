#include "common/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>

namespace ourfs {

namespace {

constexpr int kSyslogDaemon = LOG_DAEMON;

struct Level {
  std::string_view name;
  spdlog::level::level_enum value;
};
constexpr std::array<Level, 7> kLevels{{{"trace", spdlog::level::trace},
                                        {"debug", spdlog::level::debug},
                                        {"info", spdlog::level::info},
                                        {"warn", spdlog::level::warn},
                                        {"error", spdlog::level::err},
                                        {"critical", spdlog::level::critical},
                                        {"off", spdlog::level::off}}};

std::shared_ptr<spdlog::sinks::sink> makeSink(LogSink sink, const std::string& file) {
  switch (sink) {
    case LogSink::Syslog:
      return std::make_shared<spdlog::sinks::syslog_sink_mt>("ourfs", 0, kSyslogDaemon, false);
    case LogSink::File:
      return std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
    case LogSink::Stderr:
      break;
  }
  return std::make_shared<spdlog::sinks::stderr_sink_mt>();
}

}  // namespace

Status initLogging(LogSink sink, const std::string& level, const std::string& file) {
  const auto* found =
      std::find_if(kLevels.begin(), kLevels.end(), [&](const Level& l) { return l.name == level; });
  if (found == kLevels.end()) return Status::error(EINVAL, "unknown log level '" + level + "'");
  try {
    auto logger = std::make_shared<spdlog::logger>("ourfs", makeSink(sink, file));
    logger->set_level(found->value);
    logger->flush_on(spdlog::level::warn);
    spdlog::set_default_logger(std::move(logger));
  } catch (const spdlog::spdlog_ex& e) {
    return Status::error(EIO, std::string("cannot log: ") + e.what());
  }
  return Status::ok();
}

}  // namespace ourfs
