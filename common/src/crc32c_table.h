// The CRC-32C of processors without an instruction for it: one table lookup per byte.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace ourfs {

constexpr std::array<uint32_t, 256> makeCrc32cTable() {
  constexpr uint32_t kReflectedPolynomial = 0x82F63B78;  // 0x1EDC6F41, bit-reversed
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit)
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? kReflectedPolynomial : 0);
    table[i] = crc;
  }
  return table;
}

// `state` is the inverted checksum, before and after.
inline uint32_t crc32cByTable(std::span<const std::byte> bytes, uint32_t state) {
  static constexpr std::array<uint32_t, 256> kTable = makeCrc32cTable();
  for (std::byte b : bytes) state = (state >> 8) ^ kTable[(state ^ static_cast<uint8_t>(b)) & 0xFF];
  return state;
}

}  // namespace ourfs
