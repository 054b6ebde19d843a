// TransactionLog: what is reserved, what is committed, and what happens if the two disagree.
#include "fs/transaction.h"

#include <thread>

#include "block/record_device.h"
#include "volume_fixture.h"

namespace ourfs {
namespace {

using test::messageOf;
using test::VolumeTest;

class TransactionTest : public VolumeTest {
 protected:
  void SetUp() override { formatAndOpen(); }
  Transaction large(size_t bytes) {
    Transaction t;
    t.put(settingKey("large"), std::string(bytes, 'x'));
    return t;
  }
};

TEST_F(TransactionTest, AnEmptyTransactionWritesNothing) {
  const Lsn before = volume_->log().journal().head().end;
  EXPECT_EQ(commit(Transaction()), before);
  EXPECT_EQ(volume_->log().journal().counters().appends, 0u);
}

TEST_F(TransactionTest, WhatIsCommittedCanBeReadAtOnceAndIsNotDurableYet) {
  const Lsn lsn = put("a", "1");
  EXPECT_EQ(get("a"), "1");
  EXPECT_LT(volume_->log().journal().durable(), lsn);
  flush(lsn);
  EXPECT_GE(volume_->log().journal().durable(), lsn);
}

TEST_F(TransactionTest, ATransactionBeyondItsReservationIsFailStopAndNothingOfItStays) {
  EXPECT_EQ(tryCommit(large(20000), kAttributeRoom).errnum(), EOVERFLOW);
  EXPECT_TRUE(volume_->readOnly());
  EXPECT_EQ(volume_->failure().errnum(), EOVERFLOW);
  EXPECT_EQ(get("large"), std::nullopt);
  crash();
  open();
  EXPECT_EQ(get("large"), std::nullopt);
}

TEST_F(TransactionTest, WithoutTheCheckAnOverrunIsNoFailure) {
  ScopedMutant mutant("transaction.commit_without_reservation");
  EXPECT_FALSE(tryCommit(large(20000), kAttributeRoom).isOk());
  EXPECT_FALSE(volume_->readOnly()) << "the test above would fail";
}

TEST_F(TransactionTest, ReservationsThatAreDroppedGiveTheirRoomBack) {
  for (int i = 0; i < 2000; ++i) ASSERT_OK(volume_->log().reserve(kXattrRoom));
  flush(put("a", "1"));
}

TEST_F(TransactionTest, DataIsFlushedBeforeTheRecordThatNamesIt) {
  crash();
  auto record = RecordDevice::wrap(*device_);
  ASSERT_OK(tryOpenOn(*record));
  const BlockRun run = *volume_->space().allocate(BlockCount(1), BlockNo(0), false);
  flush(put("first", "1"));  // so that nothing of the mount is left to flush
  record->clear();
  const std::vector<std::byte> data(4096, std::byte{7});
  ASSERT_OK(volume_->device().write(DeviceOffset(run.start.v * 4096), data, IoClass::Data));
  Transaction t;
  t.put(settingKey("names data"), "1");
  t.afterData();
  flush(commit(std::move(t)));
  std::string order;
  for (const RecordedIo& io : record->log()) {
    order += io.op == IoOp::Flush ? 'F' : io.cls == IoClass::Data ? 'D' : io.fua ? 'J' : '?';
  }
  EXPECT_EQ(order, "DFJ");
  record->clear();
  flush(put("pure metadata", "1"));
  EXPECT_EQ(record->log().size(), 1u) << "one write, no flush of its own";
  volume_.reset();
}

TEST_F(TransactionTest, ManyThreadsCommitInOneOrderForLogAndIndex) {
  std::vector<std::thread> threads;
  for (int n = 0; n < 4; ++n) {
    threads.emplace_back([&, n] {
      for (int i = 0; i < 200; ++i) {
        const Lsn lsn = put("shared", std::to_string(n) + "." + std::to_string(i));
        EXPECT_TRUE(i % 10 != 0 || volume_->log().flush(lsn).isOk());
      }
    });
  }
  for (std::thread& t : threads) t.join();
  const auto last = get("shared");
  flush(volume_->log().journal().head().end);
  crash();
  open();
  EXPECT_EQ(get("shared"), last) << "replay ends with what the index had";
}

TEST_F(TransactionTest, TheMetadataReserveServesThoseWhoFree) {
  // All that data may take is taken, and the pool is kept small: the index can still grow.
  while (volume_->space().allocate(BlockCount(64), BlockNo(0), false).isOk()) {
  }
  for (int i = 0; i < 3000; ++i) {
    Transaction t;
    t.put(settingKey("k" + std::to_string(i % 500)), std::string(500, 'x'));
    auto room = volume_->log().reserve(kAttributeRoom, Privilege::Freeing);
    ASSERT_OK(room);
    ASSERT_OK(volume_->log().commit(std::move(t), std::move(*room)));
  }
}

}  // namespace
}  // namespace ourfs
