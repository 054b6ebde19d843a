#include "../../block/src/transfer.h"

#include <gtest/gtest.h>

#include <climits>

namespace ourfs {
namespace {

using Next = Transfer::Next;

class TransferTest : public testing::Test {
 protected:
  void start(IoOp op, std::vector<size_t> sizes, uint32_t unit = 512) {
    std::vector<IoVec> pieces;
    std::byte* at = memory_.data();
    for (size_t s : sizes) pieces.push_back({at, s}), at += s;
    transfer_.start(op, DeviceOffset(4096), pieces, unit);
  }
  // Where the first piece left starts, counted from the memory's start.
  size_t position() {
    return static_cast<size_t>(static_cast<std::byte*>(transfer_.pieces()[0].iov_base) -
                               memory_.data());
  }
  std::vector<std::byte> memory_ = std::vector<std::byte>(1 << 20);
  Transfer transfer_;
};

TEST_F(TransferTest, AFullAnswerIsTheEnd) {
  start(IoOp::Write, {512, 1024});
  EXPECT_EQ(transfer_.pieces().size(), 2u);
  EXPECT_EQ(transfer_.take(1536), Next::Done);
}

TEST_F(TransferTest, AShortAnswerContinuesInTheMiddleOfAPiece) {
  start(IoOp::Write, {512, 2048, 512});
  EXPECT_EQ(transfer_.take(1024), Next::Again);
  ASSERT_EQ(transfer_.pieces().size(), 2u);
  EXPECT_EQ(position(), 1024u);
  EXPECT_EQ(transfer_.pieces()[0].iov_len, 1536u);
  EXPECT_EQ(transfer_.offset(), DeviceOffset(4096 + 1024));
  EXPECT_EQ(transfer_.take(1536), Next::Again);
  EXPECT_EQ(position(), 2560u);
  EXPECT_EQ(transfer_.take(512), Next::Done);
}

TEST_F(TransferTest, ACutSectorIsAskedForAgain) {
  start(IoOp::Read, {2048});
  EXPECT_EQ(transfer_.take(1000), Next::Again);
  EXPECT_EQ(position(), 512u);
  EXPECT_EQ(transfer_.offset(), DeviceOffset(4096 + 512));
  EXPECT_EQ(transfer_.take(1536), Next::Done);
}

TEST_F(TransferTest, NoMorePiecesAreAskedForThanTheHostTakes) {
  start(IoOp::Read, std::vector<size_t>(IOV_MAX + 10, 512));
  ASSERT_EQ(transfer_.pieces().size(), static_cast<size_t>(IOV_MAX));
  EXPECT_EQ(transfer_.take(IOV_MAX * 512), Next::Again);
  EXPECT_EQ(transfer_.pieces().size(), 10u);
  EXPECT_EQ(transfer_.take(10 * 512), Next::Done);
}

TEST_F(TransferTest, EmptyPiecesAreLeftOut) {
  start(IoOp::Write, {0, 512, 0});
  EXPECT_EQ(transfer_.pieces().size(), 1u);
  EXPECT_EQ(transfer_.take(512), Next::Done);
}

TEST_F(TransferTest, PassingErrorsAreAskedAgain) {
  start(IoOp::Write, {512});
  for (int errnum : {EINTR, EAGAIN, ECANCELED}) EXPECT_EQ(transfer_.take(-errnum), Next::Again);
  EXPECT_EQ(transfer_.take(512), Next::Done);
}

TEST_F(TransferTest, WithoutProgressItEndsInEio) {
  for (int64_t answer : {int64_t{-EAGAIN}, int64_t{0}, int64_t{100}}) {
    start(IoOp::Write, {1024});
    for (int i = 0; i < Transfer::kMaxStalls; ++i) ASSERT_EQ(transfer_.take(answer), Next::Again);
    EXPECT_EQ(transfer_.take(answer), Next::Failed) << answer;
    EXPECT_EQ(transfer_.errnum(), EIO);
  }
}

TEST_F(TransferTest, ProgressForgivesEarlierStalls) {
  start(IoOp::Write, {1024});
  for (int i = 0; i < Transfer::kMaxStalls; ++i) ASSERT_EQ(transfer_.take(-EINTR), Next::Again);
  ASSERT_EQ(transfer_.take(512), Next::Again);
  EXPECT_EQ(transfer_.take(-EINTR), Next::Again);
}

TEST_F(TransferTest, AReadThatFindsTheEndFails) {
  start(IoOp::Read, {1024});
  ASSERT_EQ(transfer_.take(512), Next::Again);
  EXPECT_EQ(transfer_.take(0), Next::Failed);
  EXPECT_EQ(transfer_.errnum(), EIO);
}

TEST_F(TransferTest, ErrorsOfTheHostMapToEioOrEnospc) {
  const struct {
    int host, ours;
  } table[] = {{ENOSPC, ENOSPC}, {EDQUOT, ENOSPC}, {EFBIG, ENOSPC},
               {EIO, EIO},       {EINVAL, EIO},    {EBADF, EIO}};
  for (const auto& row : table) {
    start(IoOp::Write, {512});
    EXPECT_EQ(transfer_.take(-row.host), Next::Failed);
    EXPECT_EQ(transfer_.hostErrnum(), row.host);
    EXPECT_EQ(transfer_.errnum(), row.ours);
  }
}

TEST_F(TransferTest, AFlushMovesNothingAndIsRetriedToo) {
  start(IoOp::Flush, {});
  EXPECT_EQ(transfer_.take(-EINTR), Next::Again);
  EXPECT_EQ(transfer_.take(0), Next::Done);
}

}  // namespace
}  // namespace ourfs
