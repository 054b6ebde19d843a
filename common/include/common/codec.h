// Little-endian encoding of integers, for on-disk structures and keys (big-endian for keys that
// sort).
//
// A Decoder never reads past its end: the first get beyond it makes ok() false, and every later get
// answers zero. Check ok() once, at the end.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace ourfs {

static_assert(std::endian::native == std::endian::little,
              "the codec copies little-endian integers");

inline std::span<const std::byte> asBytes(std::string_view s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}
inline std::string_view asChars(std::span<const std::byte> b) {
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}

class Encoder {
 public:
  explicit Encoder(std::string& out) : out_(out) {}  // appends to `out`, which outlives this
  void u8(uint8_t v) { raw(&v, 1); }
  void u16(uint16_t v) { raw(&v, 2); }
  void u32(uint32_t v) { raw(&v, 4); }
  void u64(uint64_t v) { raw(&v, 8); }
  void u64be(uint64_t v) { u64(__builtin_bswap64(v)); }
  void bytes(std::string_view s) { out_.append(s); }
  void bytes16(std::string_view s) { u16(static_cast<uint16_t>(s.size())), out_.append(s); }
  void bytes32(std::string_view s) { u32(static_cast<uint32_t>(s.size())), out_.append(s); }

 private:
  void raw(const void* p, size_t n) { out_.append(static_cast<const char*>(p), n); }
  std::string& out_;
};

class Decoder {
 public:
  explicit Decoder(std::string_view in) : in_(in) {}  // the bytes outlive this and what it returns
  uint8_t u8() { return get<uint8_t>(); }
  uint16_t u16() { return get<uint16_t>(); }
  uint32_t u32() { return get<uint32_t>(); }
  uint64_t u64() { return get<uint64_t>(); }
  uint64_t u64be() { return __builtin_bswap64(get<uint64_t>()); }
  std::string_view bytes(size_t n) {
    if (!ok_ || n > in_.size()) {
      ok_ = false;
      return {};
    }
    std::string_view s = in_.substr(0, n);
    in_.remove_prefix(n);
    return s;
  }
  std::string_view bytes16() { return bytes(u16()); }
  std::string_view bytes32() { return bytes(u32()); }
  bool ok() const { return ok_; }
  bool atEnd() const { return in_.empty(); }
  size_t remaining() const { return in_.size(); }

 private:
  template <class T>
  T get() {
    T v{};
    std::string_view s = bytes(sizeof(T));
    if (s.size() == sizeof(T)) std::memcpy(&v, s.data(), sizeof(T));
    return v;
  }
  std::string_view in_;
  bool ok_ = true;
};

}  // namespace ourfs
