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

inline constexpr std::array<uint32_t, 256> kCrc32cTable = makeCrc32cTable();

// `state` is the inverted checksum, before and after.
inline uint32_t crc32cByTable(std::span<const std::byte> bytes, uint32_t state) {
  for (std::byte b : bytes)
    state = (state >> 8) ^ kCrc32cTable[(state ^ static_cast<uint8_t>(b)) & 0xFF];
  return state;
}

// No two entries of the table share their highest byte: it says which one a step has used.
constexpr std::array<uint8_t, 256> makeCrc32cSteps() {
  std::array<uint8_t, 256> steps{};
  for (uint32_t i = 0; i < 256; ++i) steps[kCrc32cTable[i] >> 24] = static_cast<uint8_t>(i);
  return steps;
}

// The state before `bytes`, from the one behind them.
inline uint32_t crc32cBackByTable(std::span<const std::byte> bytes, uint32_t state) {
  static constexpr std::array<uint8_t, 256> kSteps = makeCrc32cSteps();
  for (size_t i = bytes.size(); i-- > 0;) {
    const uint32_t step = kSteps[state >> 24];
    state = ((state ^ kCrc32cTable[step]) << 8) | (step ^ static_cast<uint8_t>(bytes[i]));
  }
  return state;
}

}  // namespace ourfs
