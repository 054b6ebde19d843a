#include "fs/byte_text.h"

#include <array>
#include <cctype>
#include <charconv>

namespace ourfs {

namespace {

constexpr std::string_view kUnits = "BKMGTP";

Status badSize(std::string_view text) {
  return Status::error(EINVAL,
                       "'" + std::string(text) +
                           "' is not a size; write a whole number with K, M, G or T, like 64M");
}

}  // namespace

Result<ByteCount> parseBytes(std::string_view text) {
  uint64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return badSize(text);
  std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  if (unit.empty()) return ByteCount(number);
  size_t power = kUnits.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit[0]))));
  if (power == std::string_view::npos) return badSize(text);
  std::string_view rest = unit.substr(1);
  if (!rest.empty() && (power == 0 || (rest != "iB" && rest != "B" && rest != "b")))
    return badSize(text);
  for (size_t n = 0; n < power; ++n) {
    if (number > UINT64_MAX / 1024) return badSize(text);
    number *= 1024;
  }
  return ByteCount(number);
}

std::string bytesText(ByteCount bytes) {
  static constexpr std::array<const char*, 6> kNames{" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
  uint64_t value = bytes.v;
  size_t unit = 0;
  while (unit + 1 < kNames.size() && value >= 1024 && (value % 1024 == 0 || value >= 10240)) {
    value /= 1024;
    ++unit;
  }
  return std::to_string(value) + kNames[unit];
}

}  // namespace ourfs
