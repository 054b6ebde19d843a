// fsck: damage below the index: superblocks, journal, file table, index blocks, the device itself.

#include <algorithm>
#include <cstring>

#include "block/fault_device.h"
#include "check_fixture.h"
#include "journal/format.h"
#include "rounds.h"

namespace ourfs::test {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;

class CheckDeviceTest : public DamagedDeviceTest {
 protected:
  void flip(uint64_t at, size_t length = 512) {
    std::vector<std::byte> bytes(length);
    ASSERT_TRUE(device_->read(DeviceOffset(at), bytes).isOk());
    for (std::byte& each : bytes) each ^= std::byte{0x5a};
    ASSERT_TRUE(device_->write(DeviceOffset(at), bytes).isOk());
  }
  // Changes that only the journal has.
  void leaveForReplay() {
    mount();
    for (int i = 0; i < 20; ++i) {
      const std::string name = "new" + std::to_string(i);
      fill(file(kRoot, name), name);
      EXPECT_TRUE(fs_->syncAll().isOk());
    }
    crash();
  }
  Status checkError(bool repair, BlockDevice* device = nullptr) {
    CheckOptions options;
    options.repair = repair;
    options.report = options.note = [&](const std::string& line) { told_.push_back(line); };
    return checkVolume(device != nullptr ? *device : *device_, options).status();
  }

  std::vector<std::string> told_;
};

TEST_F(CheckDeviceTest, OneDamagedSuperblockIsToldAndWrittenAnew) {
  for (uint64_t at : {kSuperblockSlotA, kSuperblockSlotB}) {
    flip(at);
    told_.clear();
    EXPECT_TRUE(checkError(false).isOk());
    EXPECT_THAT(told_, Contains(HasSubstr("superblock: copy ")));
    expectLines(look(), {});
    told_.clear();
    EXPECT_TRUE(checkError(true).isOk());
    EXPECT_THAT(told_, Contains(HasSubstr("superblock: copy ")));
    for (uint64_t other : {kSuperblockSlotA, kSuperblockSlotB}) {
      std::string slot(kSuperblockSize, '\0');
      ASSERT_TRUE(
          device_->read(DeviceOffset(other), std::as_writable_bytes(std::span(slot))).isOk());
      EXPECT_TRUE(isWholeSuperblock(slot)) << other;
    }
    told_.clear();
    EXPECT_TRUE(checkError(false).isOk());
    EXPECT_TRUE(told_.empty());
    mount();
    expectSample();
    unmount();
  }
}

TEST_F(CheckDeviceTest, WithoutASuperblockThereIsOneClearLine) {
  flip(kSuperblockSlotA + 512);
  flip(kSuperblockSlotB + 512);
  for (bool repair : {false, true}) {
    const Status why = checkError(repair);
    EXPECT_EQ(why.errnum(), EUCLEAN);
    EXPECT_THAT(why.message(), HasSubstr("both copies are damaged"));
    EXPECT_TRUE(told_.empty());
  }
  auto blank = MemoryDevice::create(ByteCount(32 * MiB));
  const Status why = checkError(true, blank.get());
  EXPECT_EQ(why.errnum(), EINVAL);
  EXPECT_EQ(why.message(), "not an ourfs volume");
}

TEST_F(CheckDeviceTest, ATruncatedImageIsRefused) {
  auto shorter = MemoryDevice::create(ByteCount(24 * MiB));
  std::vector<std::byte> bytes(24 * MiB);
  ASSERT_TRUE(device_->read(DeviceOffset(0), bytes).isOk());
  ASSERT_TRUE(shorter->write(DeviceOffset(0), bytes).isOk());
  for (bool repair : {false, true}) {
    const Status why = checkError(repair, shorter.get());
    EXPECT_EQ(why.errnum(), EUCLEAN);
    EXPECT_THAT(why.message(), HasSubstr("truncated image?"));
    std::vector<std::byte> after(24 * MiB);
    ASSERT_TRUE(shorter->read(DeviceOffset(0), after).isOk());
    EXPECT_TRUE(after == bytes);
  }
}

TEST_F(CheckDeviceTest, ALookAtAVolumeThatNeedsReplayChangesNothing) {
  leaveForReplay();
  const CheckReport report = look();
  expectLines(report, {});
  EXPECT_FALSE(report.mount.wasClean);
  EXPECT_GT(report.mount.replay.records, 20u);
  EXPECT_EQ(report.files, 7u + 20u);
  EXPECT_EQ(mend().exitCode(), 0);
  EXPECT_TRUE(look().mount.wasClean);
  mount();
  expectSample();
  EXPECT_EQ(contentOf("new19"), "new19");
}

TEST_F(CheckDeviceTest, AHoleInTheJournalIsAProblemAndFsckGoesOnWithWhatIsBeforeIt) {
  leaveForReplay();
  // One record in the middle of those that are to be replayed.
  const auto intact = device_->clone();
  const uint64_t replayed = look().mount.replay.payloadBytes;
  ASSERT_GT(replayed, 0u);
  uint64_t hole = 0;
  std::vector<std::byte> sector(512);
  std::vector<std::pair<uint64_t, uint64_t>> records;  // LSN, place
  for (uint64_t at = 0; at < superblock_.journalSize.v; at += 512) {
    ASSERT_TRUE(device_->read(superblock_.journalStart + ByteCount(at), sector).isOk());
    RecordHeader header;
    std::memcpy(&header, sector.data(), sizeof(header));
    if (header.magic == kRecordMagic) records.emplace_back(header.lsn, at);
  }
  ASSERT_GT(records.size(), 8u);
  std::sort(records.begin(), records.end());
  hole = superblock_.journalStart.v + records[records.size() - 8].second;
  flip(hole);

  const CheckReport found = look();
  expectLines(found, {"was durable, but the records end at LSN"});
  EXPECT_EQ(found.exitCode(), 4);
  EXPECT_EQ(Volume::open(*device_, {}).errnum(), EUCLEAN);

  const CheckReport mended = mend();
  expectLines(mended, {"was durable, but the records end at LSN"});
  EXPECT_EQ(mended.exitCode(), 1);
  expectLines(look(), {});
  mount();
  expectSample();
  EXPECT_EQ(contentOf("new0"), "new0");
  expectGone("new19");
  crash();  // and the journal holds again
  expectLines(look(), {});
  mount();
  expectSample();
}

TEST_F(CheckDeviceTest, ALostJournalIsAProblemAndTheIndexIsWhatIsLeft) {
  leaveForReplay();
  for (uint64_t at = 0; at < superblock_.journalSize.v; at += MiB)
    flip(superblock_.journalStart.v + at, std::min<uint64_t>(MiB, superblock_.journalSize.v - at));
  expectLines(look(), {"its end is lost"});
  EXPECT_EQ(Volume::open(*device_, {}).errnum(), EUCLEAN);
  EXPECT_EQ(mend().exitCode(), 1);
  expectLines(look(), {});
  mount();
  expectSample();
}

TEST_F(CheckDeviceTest, AJournalThatIsNotNeededMayBeDamaged) {
  flip(superblock_.journalStart.v, 64 * KiB);
  expectLines(look(), {});
  mount();
  expectSample();
}

TEST_F(CheckDeviceTest, DamagedIndexBlocksAreFoundAndNothingIsMendedOnWhatIsLeft) {
  damage([&](Transaction& t) { eraseName(t, kRoot, "small"); });
  openRaw();
  const std::vector<BlockRun> runs = volume_->index().ownedBlocks();
  closeRaw();
  const auto intact = device_->clone();
  size_t told = 0, refused = 0;
  for (const BlockRun& run : runs) {
    for (uint64_t i = 0; i < std::min<uint64_t>(run.count.v, 64); i += 5) {
      device_ = intact->clone();
      const uint64_t at = (run.start.v + i) * kBlock;
      std::vector<std::byte> bytes(kBlock);
      ASSERT_TRUE(device_->read(DeviceOffset(at), bytes).isOk());
      if (std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; }))
        continue;
      flip(at, kBlock);
      const auto before = device_->clone();
      told_.clear();
      const Status looked = checkError(false);
      ASSERT_THAT(looked.errnum(), AnyOf(0, EUCLEAN)) << looked.message();
      const bool sawDamage =
          !looked.isOk() || std::any_of(told_.begin(), told_.end(), [](const std::string& line) {
            return line.rfind("index: ", 0) == 0;
          });
      if (!sawDamage) continue;  // a block that holds nothing any more
      looked.isOk() ? ++told : ++refused;
      CheckOptions options;
      options.repair = true;
      const auto mended = checkVolume(*device_, options);
      EXPECT_TRUE(!mended.isOk() || mended->exitCode() == 4);
      std::vector<std::byte> was(32 * MiB), is(32 * MiB);
      ASSERT_TRUE(before->read(DeviceOffset(0), was).isOk());
      ASSERT_TRUE(device_->read(DeviceOffset(0), is).isOk());
      EXPECT_TRUE(was == is) << "fsck has written beside damage";
      EXPECT_THAT(mended.errnum(), AnyOf(0, EUCLEAN)) << mended.status().message();
      EXPECT_FALSE(checkError(false).isOk() && told_.empty());
    }
  }
  EXPECT_GT(told + refused, 0u);
}

TEST_F(CheckDeviceTest, ADamagedFileTableIsRefusedInOneLineOrTheOtherSlotServes) {
  const auto intact = device_->clone();
  const uint64_t slots[] = {superblock_.tableStart.v,
                            superblock_.tableStart.v + superblock_.tableSlotSize.v};
  int served = 0;
  for (uint64_t slot : slots) {
    device_ = intact->clone();
    flip(slot);
    const Status looked = checkError(false);
    EXPECT_THAT(looked.errnum(), AnyOf(0, EUCLEAN));
    EXPECT_EQ(looked.message().find('\n'), std::string::npos);
    if (!looked.isOk()) continue;
    ++served;
    mount();
    expectSample();
    unmount();
  }
  EXPECT_GE(served, 1);
  flip(slots[0]);
  flip(slots[1]);
  for (bool repair : {false, true}) {
    const Status why = checkError(repair);
    EXPECT_EQ(why.errnum(), EUCLEAN);
    EXPECT_THAT(why.message(), HasSubstr("index file table"));
  }
}

TEST_F(CheckDeviceTest, BlocksOfTheIndexOutsideOfTheDataAreaStopEveryMend) {
  damage([&](Transaction& t) { eraseName(t, kRoot, "small"); });
  // A journal that reaches over the index's first blocks.
  Superblock wrong = SuperblockStore(*device_).load().value();
  wrong.journalSize = wrong.journalSize + ByteCount(64 * KiB);
  wrong.dataStart = wrong.dataStart + ByteCount(64 * KiB);
  ASSERT_TRUE(SuperblockStore(*device_).storeBoth(wrong).isOk());
  for (bool repair : {false, true}) {
    const auto before = device_->clone();
    told_.clear();
    CheckOptions options;
    options.repair = repair;
    options.report = [&](const std::string& line) { told_.push_back(line); };
    const auto checked = checkVolume(*device_, options);
    EXPECT_THAT(told_, Contains(HasSubstr("lie outside of the data area")));
    EXPECT_TRUE(!checked.isOk() || checked->exitCode() == 4);
    std::vector<std::byte> was(32 * MiB), is(32 * MiB);
    ASSERT_TRUE(before->read(DeviceOffset(0), was).isOk());
    ASSERT_TRUE(device_->read(DeviceOffset(0), is).isOk());
    EXPECT_TRUE(was == is) << "written, repair " << repair;
  }
}

// ---- fsck is interrupted, or the device fails ----

TEST_F(CheckDeviceTest, AnInterruptedFsckCanBeRunAgain) {
  damage([&](Transaction& t) {
    auto [offset, extent] = *extents(ino_["dir/sub/deep"]).begin();
    extent.block = extents(ino_["file"]).begin()->second.block;
    putExtent(t, ino_["dir/sub/deep"], offset, extent);
    eraseName(t, kRoot, "other");
    t.erase(inodeKey(ino_["dir"]));
  });
  const auto damaged = device_->clone();
  bool finished = false;
  const uint64_t step = test::shortened() ? 40 : 11;
  for (uint64_t writes = 0; !finished && writes < 200; writes += writes < 6 ? 1 : step) {
    device_ = damaged->clone();
    auto faulty = FaultDevice::wrap(*device_);
    FaultRule rule;
    rule.op = IoOp::Write;
    rule.skip = writes;
    rule.times = UINT64_MAX;
    faulty->addRule(rule);
    finished = checkError(true, faulty.get()).isOk();
    const CheckReport mended = mend();
    EXPECT_THAT(mended.exitCode(), AnyOf(0, 1)) << writes;
    expectLines(look(), {});
  }
  EXPECT_TRUE(finished);
  mount();
  expectSample({"other", "dir", "dir/inner", "dir/link", "dir/sub/deep"});
  const std::string found = "lost+found/#";
  EXPECT_TRUE(contentOf(found + std::to_string(ino_["other"].v)) == files_["other"]);
  EXPECT_EQ(contentOf(found + std::to_string(ino_["dir/sub"].v) + "/deep").size(),
            files_["dir/sub/deep"].size());
}

TEST_F(CheckDeviceTest, ADeviceThatCannotBeReadIsAnError) {
  auto faulty = FaultDevice::wrap(*device_);
  FaultRule rule;
  rule.op = IoOp::Read;
  rule.cls = IoClass::Index;
  rule.times = UINT64_MAX;
  faulty->addRule(rule);
  const Status why = checkError(false, faulty.get());
  EXPECT_NE(why.errnum(), 0);
  EXPECT_FALSE(why.message().empty());
}

}  // namespace
}  // namespace ourfs::test
