#include "index/batch.h"

#include <gtest/gtest.h>

#include "random.h"

namespace ourfs {
namespace {

TEST(IndexBatchTest, WhatIsEncodedIsDecodedInOrder) {
  test::Random random;
  SCOPED_TRACE(random.trace());
  for (int round = 0; round < 200; ++round) {
    IndexBatch batch;
    for (uint64_t n = random.below(20); n > 0; --n) {
      std::string key = random.bytes(1 + random.below(300));
      if (random.oneIn(3)) {
        batch.erase(std::move(key));
      } else {
        batch.put(std::move(key), random.bytes(random.below(5000)));
      }
    }
    const std::string bytes = batch.encode();
    EXPECT_EQ(bytes.size(), batch.encodedSize());
    Result<IndexBatch> back = IndexBatch::decode(bytes);
    ASSERT_TRUE(back.isOk()) << back.status().message();
    ASSERT_EQ(back->changes().size(), batch.changes().size());
    EXPECT_EQ(back->encodedSize(), batch.encodedSize());
    EXPECT_EQ(back->encode(), bytes);
  }
}

TEST(IndexBatchTest, EveryTruncationIsRefused) {
  IndexBatch batch;
  batch.put("key", "value");
  batch.erase("other");
  const std::string bytes = batch.encode();
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_EQ(IndexBatch::decode(std::string_view(bytes).substr(0, n)).errnum(), EUCLEAN) << n;
  }
  EXPECT_EQ(IndexBatch::decode(bytes + "x").errnum(), EUCLEAN);
}

TEST(IndexBatchTest, RandomBytesAreRefusedOrDecodedButNeverCrash) {
  test::Random random;
  SCOPED_TRACE(random.trace());
  IndexBatch batch;
  batch.put("Iabcdefgh", std::string(100, 'v'));
  batch.erase("Oabcdefgh");
  const std::string good = batch.encode();
  for (int i = 0; i < 50000; ++i) {
    std::string bytes = good;
    for (uint64_t n = 1 + random.below(4); n > 0; --n) {
      bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
    }
    if (random.oneIn(2)) bytes = random.bytes(random.below(64));
    Result<IndexBatch> decoded = IndexBatch::decode(bytes);
    if (decoded.isOk()) {
      EXPECT_EQ(decoded->encode(), bytes);
    } else {
      EXPECT_EQ(decoded.errnum(), EUCLEAN);
    }
  }
}

}  // namespace
}  // namespace ourfs
