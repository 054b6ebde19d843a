#include "common/checksum.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "../../common/src/crc32c_table.h"
#include "../random_seed.h"
#include "common/codec.h"

namespace ourfs {
namespace {

std::vector<std::byte> sequence(size_t n) {
  std::vector<std::byte> v(n);
  for (size_t i = 0; i < n; ++i) v[i] = static_cast<std::byte>(i);
  return v;
}

// RFC 3720, appendix B.4, and the usual check value.
TEST(ChecksumTest, Crc32cAgreesWithThePublishedVectors) {
  EXPECT_EQ(crc32c(asBytes("123456789")), 0xE3069283u);
  EXPECT_EQ(crc32c({}), 0u);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0})), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0xFF})), 0x62A8AB43u);
  EXPECT_EQ(crc32c(sequence(32)), 0x46DD794Eu);
}

TEST(ChecksumTest, Crc32cContinuesFromASeedAtEverySplit) {
  const std::vector<std::byte> bytes = sequence(100);
  const std::span<const std::byte> all(bytes);
  for (size_t split = 0; split <= all.size(); ++split) {
    EXPECT_EQ(crc32c(all.subspan(split), crc32c(all.first(split))), crc32c(all)) << split;
  }
}

TEST(ChecksumTest, TheTableAgreesWithTheInstructionAtEveryLengthAndStart) {
  const std::vector<std::byte> bytes = sequence(80);
  const std::span<const std::byte> all(bytes);
  for (size_t from = 0; from < 9; ++from) {
    for (size_t size = 0; from + size <= all.size(); ++size) {
      const auto part = all.subspan(from, size);
      EXPECT_EQ(crc32c(part), ~crc32cByTable(part, ~0u)) << from << "+" << size;
    }
  }
}

TEST(ChecksumTest, TheSeedIsFoundFromTheChecksum) {
  std::mt19937_64 random(test::randomSeed("checksum seeds"));
  for (size_t size = 0; size < 300; ++size) {
    std::vector<std::byte> bytes(size);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    const auto seed = static_cast<uint32_t>(random());
    EXPECT_EQ(crc32cSeed(bytes, crc32c(bytes, seed)), seed) << size;
    EXPECT_EQ(crc32c(bytes, crc32cSeed(bytes, seed)), seed) << size;
  }
  EXPECT_EQ(crc32cSeed(asBytes("123456789"), 0xE3069283u), 0u);
}

// Key 00..0f, message 00, 01, ..: vectors_sip64 of the authors' reference implementation.
TEST(ChecksumTest, SipHashAgreesWithThePublishedVectors) {
  const SipKey key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
  EXPECT_EQ(sipHash({}, key), 0x726fdb47dd0e0e31u);
  EXPECT_EQ(sipHash(sequence(1), key), 0x74f839c593dc67fdu);
  EXPECT_EQ(sipHash(sequence(8), key), 0x93f5f5799a932462u);
  EXPECT_EQ(sipHash(sequence(15), key), 0xa129ca6149be45e5u);  // the paper's own example
}

TEST(ChecksumTest, SipHashDependsOnBothHalvesOfTheKey) {
  const auto name = asBytes("name");
  EXPECT_NE(sipHash(name, {1, 2}), sipHash(name, {1, 3}));
  EXPECT_NE(sipHash(name, {1, 2}), sipHash(name, {2, 2}));
}

}  // namespace
}  // namespace ourfs
