// The superblock: every byte of it checked, two slots that survive a torn write.
#include "fs/superblock.h"

#include <blkid/blkid.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "block/memory_device.h"
#include "block/record_device.h"
#include "common/codec.h"
#include "common/sync_point.h"
#include "mutant.h"
#include "random_seed.h"
#include "rounds.h"

namespace ourfs {
namespace {

using ::testing::HasSubstr;

constexpr ByteCount kDevice{64 * MiB};

Superblock sample() {
  FormatOptions options;
  options.label = "a label";
  Superblock s = *planVolume(kDevice, 512, 4096, options);
  s.generation = 7;
  s.sequence = 3;
  return s;
}

// The bytes with `value` at `offset` and a checksum that is right again.
template <class T>
std::string with(std::string bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
  std::memset(bytes.data() + 16, 0, 4);
  const uint32_t crc = crc32c(asBytes(bytes));
  std::memcpy(bytes.data() + 16, &crc, 4);
  return bytes;
}

std::string errorOf(const std::string& bytes, ByteCount device = kDevice) {
  auto decoded = decodeSuperblock(bytes, device);
  return decoded.isOk() ? "ok" : decoded.status().message();
}

TEST(SuperblockTest, WhatIsEncodedIsDecoded) {
  Superblock s = sample();
  s.clean = false;
  s.mountCount = 12;
  s.lastMounted = {-5, 999999999};
  auto decoded = decodeSuperblock(encodeSuperblock(s), kDevice);
  ASSERT_TRUE(decoded.isOk()) << decoded.status().message();
  EXPECT_EQ(encodeSuperblock(*decoded), encodeSuperblock(s));
  EXPECT_EQ(decoded->label, "a label");
  EXPECT_EQ(decoded->lastMounted, s.lastMounted);
  EXPECT_FALSE(decoded->clean);
}

TEST(SuperblockTest, TheUuidIsWrittenAsUsual) {
  Superblock s;
  for (uint8_t i = 0; i < 16; ++i) s.uuid[i] = i;
  EXPECT_EQ(s.uuidText(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
}

TEST(SuperblockTest, EachBadFieldIsOneClearError) {
  const std::string good = encodeSuperblock(sample());
  ASSERT_EQ(errorOf(good), "ok");
  std::string flipped = good;
  flipped[300] ^= 1;
  EXPECT_THAT(errorOf(flipped), HasSubstr("checksum"));
  EXPECT_EQ(errorOf(std::string(4096, '\0')), "not an ourfs volume");
  EXPECT_EQ(errorOf("short"), "not an ourfs volume");
  EXPECT_EQ(errorOf(with<uint32_t>(good, 20, 7)),
            "format version 7 is newer than this program (1): update ourfs");
  EXPECT_THAT(errorOf(with<uint32_t>(good, 20, 0)), HasSubstr("version"));
  EXPECT_THAT(errorOf(with<uint64_t>(good, 56, 0x50)),
              HasSubstr("unknown incompat feature bits 0x50"));
  EXPECT_EQ(errorOf(with<uint64_t>(good, 48, 0x50)), "ok") << "ro-compat: the mount decides";
  EXPECT_EQ(errorOf(with<uint64_t>(good, 40, 0x50)), "ok");
  EXPECT_THAT(
      errorOf(good, ByteCount(40 * MiB)),
      HasSubstr("volume is 67108864 bytes but the device has only 41943040: truncated image?"));
  struct Case {
    size_t offset;
    uint64_t value;
    const char* says;
  };
  for (const Case& c : std::initializer_list<Case>{{64, 3000, "block size"},
                                                   {64, 512, "block size"},
                                                   {64, 131072, "block size"},
                                                   {68, 2, "flags"},
                                                   {72, 1000, "journal"},
                                                   {72, 131072, "journal"}}) {
    EXPECT_THAT(errorOf(with<uint32_t>(good, c.offset, static_cast<uint32_t>(c.value))),
                HasSubstr(c.says));
  }
  for (const Case& c : std::initializer_list<Case>{{80, 1 * MiB, "volume size"},
                                                   {80, UINT64_MAX & ~4095ull, "volume size"},
                                                   {80, 64 * MiB - 1, "volume size"},
                                                   {88, 0, "outside"},
                                                   {88, 64 * KiB, "table"},
                                                   {88, 128 * KiB + 512, "table"},
                                                   {112, 60 * MiB, "table"},
                                                   {112, UINT64_MAX, "outside"},
                                                   {120, 128 * KiB, "table"},
                                                   {128, 4096, "journal"},
                                                   {128, 60 * MiB, "journal"},
                                                   {136, 64 * MiB, "outside"},
                                                   {136, 1 * MiB, "journal"}}) {
    EXPECT_THAT(errorOf(with<uint64_t>(good, c.offset, c.value)), HasSubstr(c.says))
        << "offset " << c.offset << " value " << c.value;
  }
  {
    ScopedMutant mutant("superblock.trust_regions");
    const bool accepted = errorOf(with<uint32_t>(good, 64, 0)) == "ok";
    EXPECT_TRUE(accepted) << "a block size of 0 would crash the mount";
    if (accepted) test::reportCaught("superblock.trust_regions", 1, "mount validates every field");
  }
  EXPECT_THAT(errorOf(with<uint32_t>(good, 64, 0)), HasSubstr("block size"));
  EXPECT_THAT(errorOf(with<uint32_t>(good, 176, 1000000000)), HasSubstr("time"));
  EXPECT_THAT(errorOf(with<uint8_t>(good, 216 + 63, 'x')), HasSubstr("label"));
}

TEST(PlanTest, RegionsAreAlignedInOrderAndInsideForEverySizeBlockAndSector) {
  for (uint64_t size : {32 * MiB, 33 * MiB + 12345, 100 * MiB, GiB, 100 * GiB, 1024 * GiB}) {
    for (uint32_t block = kMinBlockSize; block <= kMaxBlockSize; block *= 2) {
      for (uint32_t sector : {512u, 4096u}) {
        FormatOptions options;
        options.blockSize = block;
        auto plan = planVolume(ByteCount(size), sector, 4096, options);
        if (block < sector) {
          EXPECT_EQ(plan.errnum(), EINVAL);
          continue;
        }
        ASSERT_TRUE(plan.isOk()) << size << " " << block << ": " << plan.status().message();
        EXPECT_EQ(errorOf(encodeSuperblock(*plan), ByteCount(size)), "ok");
        EXPECT_LE(metadataRange(*plan).length.v, plan->volumeSize.v);
        EXPECT_NE(plan->uuidText(), "00000000-0000-0000-0000-000000000000");
      }
    }
  }
}

TEST(PlanTest, WhatCannotBeIsRefusedWithALine) {
  const auto plan = [](ByteCount size, auto change, uint32_t sector = 512) {
    FormatOptions options;
    change(options);
    auto made = planVolume(size, sector, 4096, options);
    return made.isOk() ? std::string("ok") : made.status().message();
  };
  const auto nothing = [](FormatOptions&) {};
  EXPECT_THAT(plan(ByteCount(32 * MiB - 1), nothing), HasSubstr("32 MiB"));
  EXPECT_THAT(plan(kDevice, nothing, 8192), HasSubstr("sectors of 8192"));
  EXPECT_THAT(plan(kDevice, [](auto& o) { o.blockSize = 3000; }), HasSubstr("power of two"));
  EXPECT_THAT(plan(kDevice, [](auto& o) { o.blockSize = 131072; }), HasSubstr("power of two"));
  EXPECT_THAT(plan(kDevice, [](auto& o) { o.label = std::string(64, 'x'); }), HasSubstr("label"));
  EXPECT_THAT(plan(kDevice, [](auto& o) { o.label = "a\nb"; }), HasSubstr("label"));
  EXPECT_THAT(plan(kDevice, [](auto& o) { o.journalSize = ByteCount(4096); }),
              HasSubstr("too small"));
  EXPECT_THAT(plan(kDevice, [](auto& o) { o.journalSize = ByteCount(GiB); }),
              HasSubstr("too large"));
}

class SuperblockStoreTest : public ::testing::Test {
 protected:
  SuperblockStoreTest() : device_(MemoryDevice::create(kDevice)), superblock_(sample()) {
    EXPECT_TRUE(SuperblockStore(*device_).storeBoth(superblock_).isOk());
  }
  void TearDown() override { SyncPoints::instance().reset(); }

  void corrupt(uint64_t slot, size_t offset) {
    std::string bytes(4096, '\0');
    auto span = std::as_writable_bytes(std::span(bytes));
    ASSERT_TRUE(device_->read(DeviceOffset(slot), span).isOk());
    bytes[offset] ^= 0x10;
    ASSERT_TRUE(device_->write(DeviceOffset(slot), span).isOk());
  }

  std::unique_ptr<MemoryDevice> device_;
  Superblock superblock_;
};

TEST_F(SuperblockStoreTest, SlotsAreWrittenInTurn) {
  SuperblockStore store(*device_);
  ASSERT_TRUE(store.load().isOk());
  auto record = RecordDevice::wrap(*device_);
  SuperblockStore recorded(*record);
  ASSERT_TRUE(recorded.load().isOk());
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(recorded.store(superblock_).isOk());
  std::vector<uint64_t> slots;
  for (const RecordedIo& io : record->log()) {
    if (io.op == IoOp::Write) slots.push_back(io.offset.v);
  }
  EXPECT_EQ(slots, (std::vector<uint64_t>{kSuperblockSlotB, kSuperblockSlotA, kSuperblockSlotB,
                                          kSuperblockSlotA}));
  EXPECT_EQ(SuperblockStore(*device_).load()->sequence, superblock_.sequence);
}

TEST_F(SuperblockStoreTest, ADamagedSlotIsReplacedByTheOther) {
  corrupt(kSuperblockSlotA, 700);
  auto loaded = SuperblockStore(*device_).load();
  ASSERT_TRUE(loaded.isOk());
  EXPECT_EQ(loaded->sequence, superblock_.sequence - 1);
  corrupt(kSuperblockSlotB, 700);
  EXPECT_EQ(SuperblockStore(*device_).load().errnum(), EUCLEAN);
  ASSERT_TRUE(SuperblockStore(*device_).wipe().isOk());
  EXPECT_EQ(SuperblockStore(*device_).load().status().message(), "not an ourfs volume");
}

TEST_F(SuperblockStoreTest, ANewerSlotOfANewerFormatIsNotIgnored) {
  Superblock newer = superblock_;
  newer.version = 2;
  SuperblockStore store(*device_);
  ASSERT_TRUE(store.load().isOk());
  ASSERT_TRUE(store.store(newer).isOk());
  EXPECT_THAT(SuperblockStore(*device_).load().status().message(), HasSubstr("update ourfs"));
}

TEST_F(SuperblockStoreTest, EverySectorOfATornWriteLeavesTheOldOrTheNewSuperblock) {
  const auto base = device_->clone();
  auto record = RecordDevice::wrap(*device_);
  SuperblockStore store(*record);
  ASSERT_TRUE(store.load().isOk());
  const uint64_t before = superblock_.sequence;
  superblock_.clean = false;
  ASSERT_TRUE(store.store(superblock_).isOk());
  for (uint64_t point = 0; point <= record->clock(); ++point) {
    for (unsigned mask = 0; mask < 256; ++mask) {
      auto image = crashImage(*base, record->log(), point,
                              [&](size_t, size_t sector) { return (mask >> sector & 1) != 0; });
      auto loaded = SuperblockStore(*image).load();
      ASSERT_TRUE(loaded.isOk()) << loaded.status().message();
      ASSERT_TRUE((loaded->sequence == before && loaded->clean) ||
                  (loaded->sequence == before + 1 && !loaded->clean));
    }
  }
}

// A store is parked with its bytes captured; a second one comes, and gets as far as it can; the
// first goes on. What a crash right after that write leaves.
TEST_F(SuperblockStoreTest, WhatGoesOutIsWhatWasCaptured) {
  auto& points = SyncPoints::instance();
  for (const std::string mutant : {"", "superblock.shared_buffer", "superblock.grow_in_place"}) {
    points.reset();
    device_ = MemoryDevice::create(kDevice);
    superblock_ = sample();
    ASSERT_TRUE(SuperblockStore(*device_).storeBoth(superblock_).isOk());
    if (!mutant.empty()) points.setMutant(mutant, true);
    const auto base = device_->clone();
    auto record = RecordDevice::wrap(*device_);
    SuperblockStore store(*record);
    ASSERT_TRUE(store.load().isOk());
    Superblock first = superblock_, second = superblock_;
    first.label = "captured";
    second.label = "of a later store";
    points.park("superblock.captured");
    std::thread one([&] { EXPECT_TRUE(store.store(first).isOk()); });
    ASSERT_TRUE(points.awaitParked("superblock.captured"));
    points.park("superblock.before_lock");
    std::thread two([&] { EXPECT_TRUE(store.store(second).isOk()); });
    ASSERT_TRUE(points.awaitParked("superblock.before_lock"));
    points.release("superblock.captured");
    one.join();
    auto image = crashImage(*base, record->log(), record->mark(), [](auto, auto) { return false; });
    auto loaded = SuperblockStore(*image).load();
    points.release("superblock.before_lock");
    two.join();
    ASSERT_TRUE(loaded.isOk()) << loaded.status().message();
    EXPECT_EQ(loaded->label == "captured", mutant.empty()) << mutant << ": " << loaded->label;
    if (!mutant.empty())
      test::reportCaught(mutant, 1, "one owner per buffer: an acknowledged superblock is there");
  }
}

TEST_F(SuperblockStoreTest, AFlippedByteIsNoticed) {
  corrupt(kSuperblockSlotA, 216);  // of the label
  EXPECT_EQ(SuperblockStore(*device_).load()->label, "a label") << "the other slot's";
  ScopedMutant mutant("superblock.skip_checksum");
  EXPECT_NE(SuperblockStore(*device_).load()->label, "a label");
  test::reportCaught("superblock.skip_checksum", 1, "every superblock is checked");
}

TEST_F(SuperblockStoreTest, ChangesWhileAWriteIsOnItsWayDoNotReachTheDisk) {
  SuperblockStore store(*device_);
  ASSERT_TRUE(store.load().isOk());
  auto& points = SyncPoints::instance();
  points.park("superblock.captured");
  superblock_.label = "captured";
  std::thread writer([&] { EXPECT_TRUE(store.store(superblock_).isOk()); });
  ASSERT_TRUE(points.awaitParked("superblock.captured"));
  superblock_.label = "grown while the write was captured";
  superblock_.generation = 99;
  points.release("superblock.captured");
  writer.join();
  auto loaded = SuperblockStore(*device_).load();
  ASSERT_TRUE(loaded.isOk());
  EXPECT_EQ(loaded->label, "captured");
  EXPECT_EQ(loaded->generation, 7u);
}

TEST_F(SuperblockStoreTest, TenThousandMutatedSlotsGiveAnErrorOrTheOtherSlot) {
  test::Random rnd(test::randomSeed("superblock mutations"));
  const std::string good = encodeSuperblock(superblock_);
  for (int i = 0; i < test::rounds(10000); ++i) {
    std::string bytes = good;
    for (uint64_t n = rnd.between(1, 8); n > 0; --n) {
      bytes[rnd.oneIn(2) ? rnd.below(280) : rnd.below(4096)] = static_cast<char>(rnd.below(256));
    }
    if (rnd.oneIn(2))
      bytes = with<uint8_t>(bytes, 20, static_cast<uint8_t>(bytes[20]));  // checksum right
    ASSERT_TRUE(device_->write(DeviceOffset(kSuperblockSlotA), asBytes(bytes)).isOk());
    auto loaded = SuperblockStore(*device_).load();
    if (!loaded.isOk()) {
      ASSERT_FALSE(loaded.status().message().empty());
      continue;
    }
    ASSERT_LE(loaded->volumeSize.v, kDevice.v);
    ASSERT_LT(loaded->dataStart.v, loaded->volumeSize.v);
  }
}

// What libblkid says of a volume with this label: empty is what we want.
TEST(SuperblockProbeTest, LibblkidTakesAVolumeForNoOtherFilesystem) {
  auto device = MemoryDevice::create(kDevice);
  Superblock s = sample();
  s.label = std::string(63, 'N');
  ASSERT_TRUE(SuperblockStore(*device).storeBoth(s).isOk());
  std::vector<std::byte> start(1 * MiB);
  ASSERT_TRUE(device->read(DeviceOffset(0), start).isOk());
  const int fd = memfd_create("volume", 0);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(write(fd, start.data(), start.size()), static_cast<ssize_t>(start.size()));
  ASSERT_EQ(ftruncate(fd, static_cast<off_t>(kDevice.v)), 0);
  blkid_probe probe = blkid_new_probe();
  ASSERT_EQ(blkid_probe_set_device(probe, fd, 0, 0), 0);
  blkid_probe_enable_superblocks(probe, 1);
  blkid_probe_enable_partitions(probe, 1);
  EXPECT_EQ(blkid_do_safeprobe(probe), 1) << "1 is: nothing was detected";
  blkid_free_probe(probe);
  close(fd);
}

}  // namespace
}  // namespace ourfs
