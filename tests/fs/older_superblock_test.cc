// A superblock that is older than the rest: its newest copy is damaged, or was never written.
#include <gmock/gmock.h>

#include "common/codec.h"
#include "volume_fixture.h"

namespace ourfs {
namespace {

using test::messageOf;
using test::VolumeTest;
using ::testing::HasSubstr;

class OlderSuperblockTest : public VolumeTest {
 protected:
  // The slot that the last write went to.
  uint64_t newestSlot() {
    const std::string a = slot(kSuperblockSlotA), b = slot(kSuperblockSlotB);
    return superblockSequence(b) > superblockSequence(a) ? kSuperblockSlotB : kSuperblockSlotA;
  }
  std::string slot(uint64_t at) {
    std::string bytes(kSuperblockSize, '\0');
    EXPECT_TRUE(device_->read(DeviceOffset(at), std::as_writable_bytes(std::span(bytes))).isOk());
    return bytes;
  }
  void damageNewest() {
    const uint64_t at = newestSlot();
    std::string bytes = slot(at);
    bytes[1000] ^= 1;
    ASSERT_OK(device_->write(DeviceOffset(at), asBytes(bytes)));
  }
};

TEST_F(OlderSuperblockTest, WhatTheLastMountWroteIsThereThoughItsCopyIsDamaged) {
  formatAndOpen();
  put("a", "1");
  close();
  open();
  flush(put("a", "2"));
  crash();
  damageNewest();
  openReadOnly();
  EXPECT_EQ(get("a"), "2") << "the older copy knows nothing of the mount that wrote this";
  EXPECT_FALSE(volume_->summary().wasClean);
  open();
  EXPECT_EQ(get("a"), "2");
  flush(put("a", "3"));
  crash();
  open();
  EXPECT_EQ(get("a"), "3") << "the records of that mount have a generation of their own";
}

TEST_F(OlderSuperblockTest, ASnapshotThatOnlyTheOlderCopyNamesIsNotUsed) {
  formatAndOpen();
  close();
  open();
  const BlockRun run = putExtent(InodeNo(10), 20);
  flush(volume_->log().journal().head().end);
  ASSERT_OK(volume_->checkpoint());
  crash();
  damageNewest();
  open();
  EXPECT_FALSE(volume_->summary().snapshotUsed);
  EXPECT_FALSE(volume_->space().markUsed(run)) << "its blocks would be given out again";
}

TEST_F(OlderSuperblockTest, TrustingTheOlderCopyIsNoticed) {
  formatAndOpen();
  put("a", "1");
  close();
  open();
  flush(put("a", "2"));
  crash();
  damageNewest();
  ScopedMutant mutant("superblock.trust_older_copy");
  EXPECT_TRUE(tryOpen().errnum() == EUCLEAN || get("a") != "2");
}

TEST_F(OlderSuperblockTest, EachCopyOfACleanVolumeMayBeDamaged) {
  for (const uint64_t at : {kSuperblockSlotA, kSuperblockSlotB}) {
    formatAndOpen();
    put("a", "1");
    close();
    std::string bytes = slot(at);
    bytes[1000] ^= 1;
    ASSERT_OK(device_->write(DeviceOffset(at), asBytes(bytes)));
    open();
    EXPECT_EQ(get("a"), "1");
    close();
    EXPECT_TRUE(isWholeSuperblock(slot(at))) << "it was written anew";
  }
}

// A write of the superblock that the device has dropped.
TEST_F(OlderSuperblockTest, ASuperblockThatDoesNotKnowTheJournalsMountIsRefused) {
  formatAndOpen();
  put("a", "1");
  close();
  const uint64_t at = newestSlot() == kSuperblockSlotA ? kSuperblockSlotB : kSuperblockSlotA;
  const std::string before = slot(at);
  open();
  flush(put("a", "2"));
  crash();
  ASSERT_OK(device_->write(DeviceOffset(at), asBytes(before)));
  const Status refused = tryOpen();
  EXPECT_EQ(refused.errnum(), EUCLEAN);
  EXPECT_THAT(refused.message(), HasSubstr("older than the journal"));
}

}  // namespace
}  // namespace ourfs
