#include "common/checksum.h"

#include <bit>
#include <cstring>

#include "crc32c_table.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace ourfs {

namespace {

uint64_t loadWord(const std::byte* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc32cByInstruction(std::span<const std::byte> bytes,
                                                               uint32_t state) {
  uint64_t wide = state;
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) wide = _mm_crc32_u64(wide, loadWord(bytes.data() + i));
  state = static_cast<uint32_t>(wide);
  for (; i < bytes.size(); ++i) state = _mm_crc32_u8(state, static_cast<uint8_t>(bytes[i]));
  return state;
}

bool hasInstruction() {
  static const bool has = __builtin_cpu_supports("sse4.2") != 0;
  return has;
}
#endif

// The names v0..v3 and the round are those of the paper.
struct SipState {
  uint64_t v0, v1, v2, v3;

  void round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }
  void compress(uint64_t word) {
    v3 ^= word;
    round();
    round();
    v0 ^= word;
  }
};

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed) {
#if defined(__x86_64__)
  if (hasInstruction()) return ~crc32cByInstruction(bytes, ~seed);
#endif
  return ~crc32cByTable(bytes, ~seed);
}

uint32_t crc32cSeed(std::span<const std::byte> bytes, uint32_t crc) {
  return ~crc32cBackByTable(bytes, ~crc);
}

uint64_t sipHash(std::span<const std::byte> bytes, const SipKey& key) {
  SipState s{key.k0 ^ 0x736f6d6570736575, key.k1 ^ 0x646f72616e646f6d, key.k0 ^ 0x6c7967656e657261,
             key.k1 ^ 0x7465646279746573};
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) s.compress(loadWord(bytes.data() + i));

  uint64_t last = static_cast<uint64_t>(bytes.size()) << 56;
  for (unsigned shift = 0; i < bytes.size(); ++i, shift += 8) {
    last |= static_cast<uint64_t>(bytes[i]) << shift;
  }
  s.compress(last);
  s.v2 ^= 0xFF;
  for (int i4 = 0; i4 < 4; ++i4) s.round();
  return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

}  // namespace ourfs
