// Logging, through spdlog. `initLogging` is called once, before any thread starts.
// Code that logs includes <spdlog/spdlog.h> in its .cc file and uses spdlog::info and its siblings.
#pragma once

#include <string>

#include "common/result.h"

namespace ourfs {

enum class LogSink { Stderr, Syslog, File };

// `level` is one of trace, debug, info, warn, error, critical, off; anything else is EINVAL.
Status initLogging(LogSink sink, const std::string& level, const std::string& file = "");

}  // namespace ourfs
