// Replay applies many records at once: the index ends as if they had come one by one.
#include <random>

#include "fs/transaction.h"
#include "random_seed.h"
#include "volume_fixture.h"

namespace ourfs {
namespace {

class ReplayGroupTest : public test::VolumeTest {
 protected:
  // Nothing is flushed before the crash: a memtable is a thousandth of the volume.
  void formatWithRoom() {
    format(ByteCount(8 * GiB));
    open();
  }
  // Thousands of records, more than one group: names that come, change and go.
  void change(uint64_t seed, int records) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < records; ++i) {
      Transaction t;
      for (int k = 0; k < 3; ++k) {
        const std::string name = "k" + std::to_string(random() % 300);
        const std::string value(1 + random() % 200, static_cast<char>('a' + random() % 26));
        const bool put = random() % 4 != 0;
        put ? t.put(settingKey(name), value) : t.erase(settingKey(name));
      }
      last_ = commit(std::move(t));
    }
    flush(last_);
  }
  // A long replay after a crash of the daemon, and what the index has then.
  bool isAsBeforeTheCrash() {
    change(seed_, 3000);
    const auto before = everything();
    crash();
    open();
    EXPECT_EQ(3000u, volume_->summary().replay.records);
    return everything() == before;
  }
  std::vector<std::pair<std::string, std::string>> everything() {
    std::vector<std::pair<std::string, std::string>> all;
    const std::string from = settingKey("k");
    EXPECT_TRUE(volume_->index().scan(from, prefixEnd(from), [&](auto key, auto value) {
      all.emplace_back(key, value);
      return true;
    }));
    return all;
  }

  const uint64_t seed_ = test::randomSeed("replay group");
  Lsn last_;
};

TEST_F(ReplayGroupTest, ManyRecordsAtOnceAreAsOneByOne) {
  formatWithRoom();
  EXPECT_TRUE(isAsBeforeTheCrash());
}

TEST_F(ReplayGroupTest, IfTheFirstChangeOfAKeyWonItWouldShow) {
  formatWithRoom();
  ScopedMutant mutant("replay.first_change_wins");
  EXPECT_FALSE(isAsBeforeTheCrash());
}

TEST_F(ReplayGroupTest, IfTheLastGroupWereLeftOutItWouldShow) {
  formatWithRoom();
  ScopedMutant mutant("replay.last_group_lost");
  EXPECT_FALSE(isAsBeforeTheCrash());
}

TEST_F(ReplayGroupTest, FewBatchesAreApplied) {
  formatWithRoom();
  change(seed_, 3000);
  crash();
  open();
  EXPECT_LT(volume_->index().counters().batches, 100u);
  EXPECT_EQ(last_, volume_->summary().replay.end.end);
}

TEST_F(ReplayGroupTest, AGroupHasNoMoreThanOneTransactionMay) {
  formatWithRoom();
  for (int i = 0; i < 8; ++i) {
    Transaction t;
    t.put(settingKey("large" + std::to_string(i)), std::string(kXattrRoom.v / 2, 'x'));
    const auto lsn = tryCommit(std::move(t), kXattrRoom);
    ASSERT_OK(lsn);
    last_ = *lsn;
  }
  flush(last_);
  crash();
  open();
  EXPECT_GE(volume_->index().counters().batches, 8u);
}

}  // namespace
}  // namespace ourfs
