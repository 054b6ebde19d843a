#include "rocks_log.h"

#include <spdlog/spdlog.h>

#include <array>
#include <cstdio>
#include <string_view>

namespace ourfs {

namespace {

class RocksLog : public rocksdb::Logger {
 public:
  RocksLog() : Logger(rocksdb::WARN_LEVEL) {}
  using Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    write(spdlog::level::debug, format, arguments);
  }
  void Logv(rocksdb::InfoLogLevel level, const char* format, va_list arguments) override {
    if (level < GetInfoLogLevel()) return;
    if (level == rocksdb::HEADER_LEVEL) return;  // its options, at every open
    write(level == rocksdb::WARN_LEVEL ? spdlog::level::debug : spdlog::level::err, format,
          arguments);
  }

 private:
  static void write(spdlog::level::level_enum level, const char* format, va_list arguments) {
    std::array<char, 512> line;
    if (std::vsnprintf(line.data(), line.size(), format, arguments) < 0) return;
    std::string_view first(line.data());
    first = first.substr(0, first.find('\n'));  // what follows is a dump
    try {
      spdlog::log(level, "index: {}", first);
    } catch (const std::exception&) {
      // RocksDB must not see it, and there is nobody else to tell.
    }
  }
};

}  // namespace

std::shared_ptr<rocksdb::Logger> makeRocksLog() { return std::make_shared<RocksLog>(); }

}  // namespace ourfs
