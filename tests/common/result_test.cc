#include "common/result.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "common/aligned_buffer.h"
#include "common/log.h"
#include "common/units.h"

namespace ourfs {
namespace {

Status check(bool good) {
  if (good) return Status::ok();
  return Status::error(ENOENT, "not there");
}
Result<int> half(int n) {
  if (n % 2 != 0) return Status::error(EINVAL);
  return n / 2;
}
Status viaTry(bool good, int& after) {
  TRY(check(good));
  ++after;
  return Status::ok();
}
Result<int> quarter(int n) {
  TRY_ASSIGN(const int h, half(n));
  TRY_ASSIGN(const int q, half(h));
  return q;
}
Status viaTryOfResult(int n) {
  TRY(half(n));
  return Status::ok();
}

TEST(ResultTest, AStatusSaysWhatWentWrong) {
  EXPECT_TRUE(Status::ok().isOk());
  EXPECT_EQ(Status::ok().errnum(), 0);
  EXPECT_EQ(Status::error(ENOENT).message(), "No such file or directory");
  EXPECT_EQ(Status::error(ENOENT, "gone").message(), "gone");
  EXPECT_EQ(Status::corrupt("bad").errnum(), EUCLEAN);
}

TEST(ResultTest, ContextGoesInFrontAndLeavesSuccessAlone) {
  const Status s = Status::error(EIO).withContext("disk").withContext("mount");
  EXPECT_EQ(s.message(), "mount: disk: Input/output error");
  EXPECT_EQ(s.errnum(), EIO);
  EXPECT_TRUE(Status::ok().withContext("mount").isOk());
}

TEST(ResultTest, TryLeavesWithTheFirstErrorOnly) {
  int after = 0;
  EXPECT_TRUE(viaTry(true, after).isOk());
  EXPECT_EQ(viaTry(false, after).message(), "not there");
  EXPECT_EQ(after, 1);
  EXPECT_EQ(viaTryOfResult(3).errnum(), EINVAL);
}

TEST(ResultTest, TryAssignGivesTheValueOrLeaves) {
  EXPECT_EQ(quarter(8).value(), 2);
  EXPECT_EQ(quarter(6).errnum(), EINVAL);
  EXPECT_EQ(quarter(7).errnum(), EINVAL);
}

TEST(ResultTest, AResultHoldsWhatCanOnlyBeMoved) {
  auto make = []() -> Result<std::unique_ptr<int>> { return std::make_unique<int>(5); };
  Result<std::unique_ptr<int>> r = make();
  ASSERT_TRUE(r.isOk());
  std::unique_ptr<int> p = std::move(r).value();
  EXPECT_EQ(*p, 5);
}

TEST(UnitsTest, PositionsAndLengthsAddUp) {
  EXPECT_EQ(FileOffset(10) + ByteCount(5), FileOffset(15));
  EXPECT_EQ(FileOffset(15) - FileOffset(10), ByteCount(5));
  EXPECT_EQ(BlockNo(7) - BlockNo(3), BlockCount(4));
  EXPECT_EQ(roundUp(513, 512), 1024u);
  EXPECT_EQ(roundDown(1023, 512), 512u);
  EXPECT_FALSE(isPowerOfTwo(0));
}

TEST(AlignedBufferTest, MemoryIsAlignedRoundedUpAndZeroed) {
  for (size_t alignment : {512u, 4096u, 65536u}) {
    AlignedBuffer b(alignment + 1, alignment);
    EXPECT_EQ(b.size(), 2 * alignment);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) % alignment, 0u);
    EXPECT_TRUE(std::all_of(b.span().begin(), b.span().end(),
                            [](std::byte x) { return x == std::byte{0}; }));
  }
  EXPECT_EQ(AlignedBuffer().data(), nullptr);
  EXPECT_EQ(AlignedBuffer(0).size(), 0u);
}

TEST(LogTest, AnUnknownLevelIsRefused) {
  EXPECT_EQ(initLogging(LogSink::Stderr, "loud").errnum(), EINVAL);
  EXPECT_EQ(initLogging(LogSink::Stderr, "").errnum(), EINVAL);
}

TEST(LogTest, LinesOfTheLevelAndAboveReachTheFile) {
  const std::string path = testing::TempDir() + "ourfs_log_" + std::to_string(getpid());
  ASSERT_TRUE(initLogging(LogSink::File, "warn", path).isOk());
  spdlog::info("not this one");
  spdlog::warn("but this one");
  ASSERT_TRUE(initLogging(LogSink::Stderr, "info").isOk());
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  unlink(path.c_str());
  EXPECT_EQ(text.str().find("not this one"), std::string::npos);
  EXPECT_NE(text.str().find("but this one"), std::string::npos);
}

TEST(LogTest, AFileThatCannotBeOpenedIsAnError) {
  EXPECT_FALSE(initLogging(LogSink::File, "info", "/proc/no/such/place").isOk());
}

}  // namespace
}  // namespace ourfs
