#include "block/uring_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "block/host_fixtures.h"
#include "block/io_batch.h"
#include "common/aligned_buffer.h"
#include "common/sync_point.h"

namespace ourfs {
namespace {

using namespace std::chrono_literals;

class UringDeviceTest : public testing::Test {
 protected:
  ~UringDeviceTest() override { points_.reset(); }

  static AlignedBuffer filled(size_t size, int value) {
    AlignedBuffer b(size);
    std::fill(b.span().begin(), b.span().end(), static_cast<std::byte>(value));
    return b;
  }
  static std::unique_ptr<UringDevice> mustOpen(const std::string& path, UringOptions options = {}) {
    auto device = UringDevice::open(path, options);
    EXPECT_TRUE(device.isOk()) << device.status().message();
    return device.isOk() ? std::move(device).value() : nullptr;
  }
  static Status openStatus(const std::string& path, UringOptions options = {}) {
    return UringDevice::open(path, options).status();
  }
  static UringOptions readOnly() {
    UringOptions options;
    options.readOnly = true;
    return options;
  }

  SyncPoints& points_ = SyncPoints::instance();
  std::unique_ptr<ImageFile> image_ = ImageFile::create(ByteCount(4 * MiB));
};

// --- Opening ---

TEST_F(UringDeviceTest, WhatIsNoVolumeIsRefusedWithOneClearLine) {
  auto empty = ImageFile::create(ByteCount(0));
  auto tiny = ImageFile::create(ByteCount(100));
  const std::string pipe = image_->path() + ".pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const struct {
    std::string path;
    int errnum;
    std::string says;
  } table[] = {{"/no/such/image", ENOENT, "No such file"}, {"/tmp", EINVAL, "neither"},
               {"/dev/null", EINVAL, "neither"},           {pipe, EINVAL, "neither"},
               {empty->path(), EINVAL, "is empty"},        {tiny->path(), EINVAL, "is empty"}};
  for (const auto& row : table) {
    for (const UringOptions& options : {UringOptions(), readOnly()}) {
      const Status s = openStatus(row.path, options);
      EXPECT_EQ(s.errnum(), row.errnum) << s.message();
      EXPECT_EQ(s.message().rfind(row.path, 0), 0u) << s.message();
      EXPECT_NE(s.message().find(row.says), std::string::npos) << s.message();
    }
  }
  unlink(pipe.c_str());
}

TEST_F(UringDeviceTest, HalfASectorAtTheEndIsNotPartOfTheDevice) {
  auto odd = ImageFile::create(ByteCount(MiB + 700));
  auto device = mustOpen(odd->path());
  EXPECT_EQ(device->size().v, roundDown(MiB + 700, device->logicalSector()));
}

TEST_F(UringDeviceTest, OneWriterExcludesEveryoneAndReadersOnlyWriters) {
  {
    auto writer = mustOpen(image_->path());
    const Status second = openStatus(image_->path());
    EXPECT_EQ(second.errnum(), EBUSY);
    EXPECT_EQ(second.message(), image_->path() + " is in use (mounted or being checked)");
    EXPECT_EQ(openStatus(image_->path(), readOnly()).errnum(), EBUSY);
    UringOptions unlocked;
    unlocked.exclusiveLock = false;
    EXPECT_TRUE(openStatus(image_->path(), unlocked).isOk());
  }
  auto reader = mustOpen(image_->path(), readOnly());
  auto another = mustOpen(image_->path(), readOnly());
  EXPECT_EQ(openStatus(image_->path()).errnum(), EBUSY);
}

// Two writers of one volume would hand out the same blocks, and write the same ring.
TEST_F(UringDeviceTest, WithoutTheLockAnImageHasTwoWriters) {
  const auto secondWriter = [&] {
    auto first = mustOpen(image_->path());
    auto second = UringDevice::open(image_->path(), UringOptions());
    if (!second) return std::make_pair(second.status().errnum(), false);
    const AlignedBuffer mine = filled(4096, 1), theirs = filled(4096, 2);
    EXPECT_TRUE(first->write(DeviceOffset(0), mine.span()).isOk());
    EXPECT_TRUE((*second)->write(DeviceOffset(0), theirs.span()).isOk());
    AlignedBuffer back(4096);
    EXPECT_TRUE(first->read(DeviceOffset(0), back.span()).isOk());
    return std::make_pair(0, std::ranges::equal(back.span(), theirs.span()));
  };
  EXPECT_EQ(secondWriter(), std::make_pair(EBUSY, false));
  ScopedMutant mutant("device.no_lock");
  EXPECT_EQ(secondWriter(), std::make_pair(0, true));
}

TEST_F(UringDeviceTest, AWaitingOpenSucceedsWhenTheOtherCloses) {
  auto first = mustOpen(image_->path());
  UringOptions patient;
  patient.lockWait = 20s;
  Status status = Status::error(EINPROGRESS);
  std::thread second([&] { status = openStatus(image_->path(), patient); });
  first.reset();
  second.join();
  EXPECT_TRUE(status.isOk()) << status.message();
}

TEST_F(UringDeviceTest, TheLockIsGoneWhenTheDeviceIs) {
  const AlignedBuffer data = filled(4096, 1);
  for (int i = 0; i < 100; ++i) {
    auto device = mustOpen(image_->path());
    ASSERT_NE(device, nullptr) << i;
    IoBatch batch(*device);
    for (uint64_t w = 0; w < 4; ++w) batch.write(DeviceOffset(w * 4096), data.span());
    ASSERT_TRUE(batch.await().isOk());
  }
}

TEST_F(UringDeviceTest, AReadOnlyDeviceChangesNothing) {
  auto device = mustOpen(image_->path(), readOnly());
  AlignedBuffer data = filled(4096, 1);
  EXPECT_TRUE(device->readOnly());
  EXPECT_EQ(device->write(DeviceOffset(0), data.span()).errnum(), EROFS);
  EXPECT_EQ(device->discard(DeviceOffset(0), ByteCount(4096)).errnum(), EROFS);
  EXPECT_EQ(device->preallocate(DeviceOffset(0), ByteCount(4096)).errnum(), EROFS);
  EXPECT_TRUE(device->read(DeviceOffset(0), data.span()).isOk());
  EXPECT_EQ(data.span()[0], std::byte{0});
}

TEST_F(UringDeviceTest, ContentsOutliveTheDevice) {
  const AlignedBuffer data = filled(8192, 7);
  ASSERT_TRUE(mustOpen(image_->path())->write(DeviceOffset(4096), data.span()).isOk());
  AlignedBuffer back(8192);
  ASSERT_TRUE(mustOpen(image_->path(), readOnly())->read(DeviceOffset(4096), back.span()).isOk());
  EXPECT_TRUE(std::ranges::equal(back.span(), data.span()));
}

TEST_F(UringDeviceTest, ALoopDeviceIsBlockSpecialAndAFileIsNot) {
  EXPECT_FALSE(mustOpen(image_->path())->isBlockSpecial());
  auto loop = LoopDevice::create(ByteCount(MiB), 4096);
  if (!loop.isOk()) GTEST_SKIP() << loop.status().message();
  UringOptions options;
  options.lockWait = 5s;
  auto device = mustOpen((*loop)->path(), options);
  EXPECT_TRUE(device->isBlockSpecial());
  EXPECT_EQ(device->logicalSector(), 4096u);
  EXPECT_TRUE(device->preallocate(DeviceOffset(0), ByteCount(4096)).isOk());
}

// --- Trouble in the host ---

TEST_F(UringDeviceTest, AFullHostIsEnospcAndWhatWasWrittenStays) {
  auto mount = PrivateMount::create("tmpfs", "1m");
  if (!mount.isOk()) GTEST_SKIP() << mount.status().message();
  auto path = (*mount)->createFile("image", ByteCount(4 * MiB));
  ASSERT_TRUE(path.isOk()) << path.status().message();
  auto device = mustOpen(*path);
  const AlignedBuffer data = filled(64 * KiB, 3);
  uint64_t written = 0;
  Status status;
  while (status.isOk() && written < 4 * MiB) {
    status = device->write(DeviceOffset(written), data.span());
    if (status.isOk()) written += data.size();
  }
  EXPECT_EQ(status.errnum(), ENOSPC) << status.message();
  IoBatch batch(*device);
  batch.write(DeviceOffset(3 * MiB), data.span());
  EXPECT_EQ(batch.await().errnum(), ENOSPC) << "through the ring too";
  EXPECT_EQ(device->preallocate(DeviceOffset(2 * MiB), ByteCount(2 * MiB)).errnum(), ENOSPC);

  AlignedBuffer back(data.size());
  for (uint64_t at = 0; at < written; at += data.size()) {
    ASSERT_TRUE(device->read(DeviceOffset(at), back.span()).isOk());
    ASSERT_TRUE(std::ranges::equal(back.span(), data.span())) << at;
  }
  EXPECT_TRUE(device->flush().isOk()) << "a refused write is not a lost one";
}

TEST_F(UringDeviceTest, PreallocatedSpaceCannotRunOut) {
  auto mount = PrivateMount::create("tmpfs", "1m");
  if (!mount.isOk()) GTEST_SKIP() << mount.status().message();
  auto path = (*mount)->createFile("image", ByteCount(4 * MiB));
  ASSERT_TRUE(path.isOk()) << path.status().message();
  auto device = mustOpen(*path);
  ASSERT_TRUE(device->preallocate(DeviceOffset(2 * MiB), ByteCount(256 * KiB)).isOk());
  const AlignedBuffer data = filled(64 * KiB, 3);
  for (uint64_t at = 0; device->write(DeviceOffset(at), data.span()).isOk();) at += data.size();
  for (uint64_t at = 0; at < 256 * KiB; at += data.size()) {
    EXPECT_TRUE(device->write(DeviceOffset(2 * MiB + at), data.span()).isOk());
  }
  EXPECT_EQ(device->preallocate(DeviceOffset(4 * MiB), ByteCount(512)).errnum(), EINVAL);
}

TEST_F(UringDeviceTest, AFileCutShortUnderItIsEioAndNotAHang) {
  auto device = mustOpen(image_->path());
  ASSERT_EQ(truncate(image_->path().c_str(), MiB + 512), 0);
  AlignedBuffer data(64 * KiB);
  EXPECT_EQ(device->read(DeviceOffset(2 * MiB), data.span()).errnum(), EIO);
  EXPECT_EQ(device->read(DeviceOffset(MiB), data.span()).errnum(), EIO)
      << "the end is in the middle";
  IoBatch batch(*device);
  batch.read(DeviceOffset(2 * MiB), data.span());
  EXPECT_EQ(batch.await().errnum(), EIO);
}

TEST_F(UringDeviceTest, PassingAnswersOfTheHostAreAskedAgain) {
  auto device = mustOpen(image_->path());
  const AlignedBuffer data = filled(4096, 5);
  for (int errnum : {EINTR, EAGAIN, ECANCELED}) {
    points_.forceError("block.host_write", errnum, 6);
    EXPECT_TRUE(device->write(DeviceOffset(0), data.span()).isOk());
    IoBatch batch(*device);
    for (uint64_t i = 0; i < 4; ++i) batch.write(DeviceOffset(i * 4096), data.span());
    EXPECT_TRUE(batch.await().isOk());
  }
}

TEST_F(UringDeviceTest, AnErrorOfTheHostReachesTheCallerOnBothWays) {
  auto device = mustOpen(image_->path());
  AlignedBuffer data(4096);
  points_.forceError("block.host_read", EIO, 2);
  EXPECT_EQ(device->read(DeviceOffset(0), data.span()).errnum(), EIO);
  IoBatch batch(*device);
  batch.read(DeviceOffset(0), data.span());
  EXPECT_EQ(batch.await().errnum(), EIO);
  EXPECT_TRUE(device->read(DeviceOffset(0), data.span()).isOk());
}

TEST_F(UringDeviceTest, AfterALostWriteNoFlushSucceeds) {
  const AlignedBuffer data = filled(4096, 5);
  {
    auto device = mustOpen(image_->path());
    points_.forceError("block.host_flush", EIO, 1);
    EXPECT_EQ(device->flush().errnum(), EIO);
    EXPECT_EQ(device->flush().errnum(), EIO) << "the host forgets, the device must not";
  }
  auto device = mustOpen(image_->path());
  EXPECT_TRUE(device->flush().isOk());
  points_.forceError("block.host_write", ENOSPC, 1);
  EXPECT_EQ(device->write(DeviceOffset(0), data.span(), IoClass::Journal, true).errnum(), ENOSPC);
  EXPECT_TRUE(device->flush().isOk()) << "refused, not lost";
  points_.forceError("block.host_write", EIO, 1);
  EXPECT_EQ(device->write(DeviceOffset(0), data.span(), IoClass::Journal, true).errnum(), EIO);
  EXPECT_EQ(device->flush().errnum(), EIO);
}

// --- Threads ---

// The kernel cancels what a worker has not taken up when the thread that submitted it exits.
TEST_F(UringDeviceTest, ASubmitterMayExitAtOnce) {
  auto device = mustOpen(image_->path());
  const AlignedBuffer data = filled(256 * KiB, 6);
  IoBatch batch(*device);
  for (uint64_t i = 0; i < 12; ++i) {
    std::thread([&, i] {
      batch.write(DeviceOffset(i * data.size()), data.span(), true);
      IoRequest flush;
      flush.op = IoOp::Flush;
      batch.submit(std::move(flush));
    }).join();
  }
  EXPECT_TRUE(batch.await().isOk());
}

TEST_F(UringDeviceTest, ClosingWaitsForWhatIsInFlight) {
  const AlignedBuffer data = filled(4096, 8);
  auto device = mustOpen(image_->path());
  points_.park("block.host_write");
  std::atomic<bool> completed{false};
  IoRequest r;
  r.op = IoOp::Write;
  r.length = ByteCount(data.size());
  r.pieces = {{const_cast<std::byte*>(data.data()), data.size()}};
  r.done = [&](const Status& s) { completed = s.isOk(); };
  device->submit(std::move(r));
  ASSERT_TRUE(points_.awaitParked("block.host_write"));
  std::thread closer([&] { device.reset(); });
  EXPECT_FALSE(completed);
  points_.release("block.host_write");
  closer.join();
  EXPECT_TRUE(completed);
}

TEST_F(UringDeviceTest, AFullQueueMakesTheSubmitterWait) {
  const AlignedBuffer data = filled(4096, 8);
  UringOptions options;
  options.queueDepth = 2;
  auto device = mustOpen(image_->path(), options);
  points_.park("block.host_write");
  IoBatch batch(*device);
  std::atomic<int> submitted{0};
  std::thread submitter([&] {
    for (uint64_t i = 0; i < 3; ++i, ++submitted) batch.write(DeviceOffset(i * 4096), data.span());
  });
  ASSERT_TRUE(points_.awaitParked("block.host_write"));
  EXPECT_LT(submitted, 3) << "nothing has completed, so the third has no slot";
  points_.release("block.host_write");
  submitter.join();
  EXPECT_TRUE(batch.await().isOk());
}

TEST_F(UringDeviceTest, DiscardGivesTheSpaceOfAFileBack) {
  auto device = mustOpen(image_->path());
  const AlignedBuffer data = filled(MiB, 9);
  ASSERT_TRUE(device->write(DeviceOffset(0), data.span()).isOk());
  ASSERT_TRUE(device->flush().isOk());
  struct stat before {};
  ASSERT_EQ(stat(image_->path().c_str(), &before), 0);
  ASSERT_TRUE(device->discard(DeviceOffset(0), ByteCount(MiB)).isOk());
  struct stat after {};
  ASSERT_EQ(stat(image_->path().c_str(), &after), 0);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  EXPECT_EQ(after.st_size, before.st_size);
}

}  // namespace
}  // namespace ourfs
