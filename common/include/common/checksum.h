// CRC-32C (Castagnoli), the checksum of every structure on the volume.
//
// Reference: RFC 3720, appendix B.4 (polynomial 0x1EDC6F41, reflected, initial and final
// inversion). Uses the processor's instruction where there is one. Debian 12 has no package for it
// alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ourfs {

// The checksum of `bytes`, continued from `seed`, the checksum of what came before (0 at the
// start): crc32c(ab) == crc32c(b, crc32c(a)).
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed = 0);
// Backwards: the one seed for which crc32c(bytes, seed) == crc. Slow: byte by byte.
uint32_t crc32cSeed(std::span<const std::byte> bytes, uint32_t crc);

// SipHash-2-4 with a 128-bit key: the hash of directory entry names. Keyed, so that nobody can
// choose names that collide. Reference: Aumasson and Bernstein, 2012.
struct SipKey {
  uint64_t k0 = 0, k1 = 0;
};
uint64_t sipHash(std::span<const std::byte> bytes, const SipKey& key);

}  // namespace ourfs
