// LEB128 integers, for values that are small most of the time: seven bits a byte, lowest first, the
// high bit says that another byte follows. At most ten bytes; the shortest form is the only valid
// one.
#pragma once

#include "common/codec.h"

namespace ourfs {

inline void putVarint(Encoder& e, uint64_t v) {
  for (; v >= 0x80; v >>= 7) e.u8(static_cast<uint8_t>(v | 0x80));
  e.u8(static_cast<uint8_t>(v));
}

// False when the bytes are no varint, or hold more than `max`.
inline bool getVarint(Decoder& d, uint64_t* v, uint64_t max = UINT64_MAX) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    const uint64_t byte = d.u8();
    if (!d.ok() || (shift == 63 && byte > 1)) return false;
    value |= (byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) {
      *v = value;
      return value <= max && (byte != 0 || shift == 0);
    }
  }
  return false;
}

// Signed numbers near zero become small unsigned ones: 0, -1, 1, -2, …
constexpr uint64_t zigzag(int64_t v) {
  return (static_cast<uint64_t>(v) << 1) ^ static_cast<uint64_t>(v >> 63);
}
constexpr int64_t unzigzag(uint64_t v) { return static_cast<int64_t>((v >> 1) ^ (~(v & 1) + 1)); }

}  // namespace ourfs
