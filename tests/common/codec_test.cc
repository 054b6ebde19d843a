#include "common/codec.h"

#include <gtest/gtest.h>

namespace ourfs {
namespace {

TEST(CodecTest, EveryKindComesBackAsItWentIn) {
  std::string out;
  Encoder e(out);
  e.u8(0x12);
  e.u16(0x3456);
  e.u32(0x789abcde);
  e.u64(0xf0123456789abcde);
  e.u64be(42);
  e.bytes("raw");
  e.bytes16("sixteen");
  e.bytes32(std::string_view("with\0zero", 9));

  Decoder d(out);
  EXPECT_EQ(d.u8(), 0x12);
  EXPECT_EQ(d.u16(), 0x3456);
  EXPECT_EQ(d.u32(), 0x789abcdeu);
  EXPECT_EQ(d.u64(), 0xf0123456789abcdeu);
  EXPECT_EQ(d.u64be(), 42u);
  EXPECT_EQ(d.bytes(3), "raw");
  EXPECT_EQ(d.bytes16(), "sixteen");
  EXPECT_EQ(d.bytes32(), std::string_view("with\0zero", 9));
  EXPECT_TRUE(d.ok());
  EXPECT_TRUE(d.atEnd());
}

TEST(CodecTest, IntegersAreLittleEndianAndSortingKeysBigEndian) {
  std::string out;
  Encoder(out).u32(0x01020304);
  EXPECT_EQ(out, "\x04\x03\x02\x01");
  std::string low, high;
  Encoder(low).u64be(0xFF);
  Encoder(high).u64be(0x100);
  EXPECT_LT(low, high);
}

TEST(CodecTest, NothingIsReadBeyondTheEndAndEverythingAfterIsZero) {
  std::string out;
  Encoder(out).u16(7);
  Decoder shortOne(out);
  EXPECT_EQ(shortOne.u32(), 0u);
  EXPECT_FALSE(shortOne.ok());
  EXPECT_EQ(shortOne.u16(), 0u) << "a get after a failed one answers zero, even if it would fit";
  EXPECT_EQ(shortOne.remaining(), 2u);
}

TEST(CodecTest, ALengthThatLiesIsNotBelieved) {
  std::string out;
  Encoder e(out);
  e.u32(0xFFFFFFFF);
  e.bytes("abc");
  Decoder d(out);
  EXPECT_EQ(d.bytes32(), "");
  EXPECT_FALSE(d.ok());
}

}  // namespace
}  // namespace ourfs
