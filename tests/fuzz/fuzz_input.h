// Takes an input of the fuzzer apart: small numbers and pieces of bytes. At its end all are zero
// and empty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace ourfs::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : left_(reinterpret_cast<const char*>(data), size) {}
  uint8_t u8() { return number<uint8_t>(); }
  uint16_t u16() { return number<uint16_t>(); }
  uint64_t u64() { return number<uint64_t>(); }
  bool atEnd() const { return left_.empty(); }
  // As long as the two bytes in front of it say.
  std::string piece() {
    const size_t length = u16();
    return take(length);
  }
  std::string rest() { return take(left_.size()); }

 private:
  std::string take(size_t length) {
    const std::string taken(left_.substr(0, length));
    left_.remove_prefix(taken.size());
    return taken;
  }
  template <class Number>
  Number number() {
    const std::string bytes = take(sizeof(Number));
    Number value = 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }

  std::string_view left_;
};

// What must hold for every input. The fuzzer takes an abort for a finding.
inline void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace ourfs::fuzz
