// A direct write that the disk refuses, with a store of the kernel's page cache in between.
#include <thread>

#include "common/aligned_buffer.h"
#include "filesystem_fixture.h"

namespace ourfs::test {
namespace {

// Refuses the next data write that it is told to, after `meanwhile`.
class RefusingDevice : public BlockDevice {
 public:
  explicit RefusingDevice(BlockDevice& inner) : inner_(inner) {}
  void refuseNext(std::function<void()> meanwhile) { meanwhile_ = std::move(meanwhile); }
  void submit(IoRequest request) override {
    const bool data = request.op == IoOp::Write && request.cls == IoClass::Data;
    if (!data || !meanwhile_) return inner_.submit(std::move(request));
    std::exchange(meanwhile_, nullptr)();
    request.done(Status::error(EIO));
  }
  ByteCount size() const override { return inner_.size(); }
  uint32_t logicalSector() const override { return inner_.logicalSector(); }
  uint32_t physicalSector() const override { return inner_.physicalSector(); }
  bool readOnly() const override { return false; }
  std::string name() const override { return "refusing"; }

 private:
  BlockDevice& inner_;
  std::function<void()> meanwhile_;
};

class DirectFailureTest : public FilesystemTest {
 protected:
  void SetUp() override {
    FilesystemTest::SetUp();
    unmount();
    refusing_ = std::make_unique<RefusingDevice>(*device_);
    mount(*refusing_);
  }
  void TearDown() override {
    FilesystemTest::TearDown();
    fs_.reset();
    volume_.reset();
  }
  // What is on disk of a page that was stored under a direct write of four pages that failed.
  std::string storedPage(const std::string& name) {
    const InodeNo ino = file(kRoot, name);
    AttributeChange change;
    change.size = 4 * kPage;
    must(fs_->setattr(caller_, ino, change));
    OpenFilePtr handle = open(ino);
    std::thread store;
    refusing_->refuseNext([&] {
      store = std::thread([&] {
        FileData::WriteFlags flags;
        flags.fromKernelCache = true;
        flags.mayExtend = false;
        const auto done = fs_->write(*handle, FileOffset(kPage), asBytes(page_), flags);
        EXPECT_TRUE(done.isOk() && done->v == kPage) << done.status().message();
      });
      if (mutantEnabled("iomap.direct_fills_shared")) store.join();
    });
    const AlignedBuffer bytes(4 * kPage);
    FileData::WriteFlags direct;
    direct.direct = true;
    EXPECT_EQ(fs_->write(*handle, FileOffset(0), bytes.span(), direct).errnum(), EIO);
    if (store.joinable()) store.join();
    (void)fs_->fsync(*handle, false);  // tells that the store stands where the write should
    EXPECT_EQ(fs_->fsync(*handle, false).errnum(), 0);
    fs_->release(std::move(handle));
    unmountClean();
    mount(*refusing_);
    handle = open(lookup(kRoot, name));
    std::string found = read(*handle, kPage, kPage);
    fs_->release(std::move(handle));
    return found;
  }

  static constexpr uint64_t kPage = 4096;
  const std::string page_ = std::string(kPage, 's');
  std::unique_ptr<RefusingDevice> refusing_;
};

TEST_F(DirectFailureTest, WhatWasStoredMeanwhileReachesTheDisk) {
  EXPECT_EQ(storedPage("f"), page_);
  ScopedMutant mutant("iomap.direct_fills_shared");
  EXPECT_NE(storedPage("mutant"), page_);
}

}  // namespace
}  // namespace ourfs::test
