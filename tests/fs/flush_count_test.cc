// What an fsync costs: the table "How many flushes" of docs/design.md, operation by operation, on a
// recording device. journal/flush_test.cc asserts it for records alone.
#include "block/record_device.h"
#include "common/aligned_buffer.h"
#include "filesystem_fixture.h"

namespace ourfs::test {
namespace {

class FlushCountTest : public FilesystemTest {
 protected:
  void SetUp() override {
    FilesystemTest::SetUp();
    unmount();
    record_ = RecordDevice::wrap(*device_);
    // Nothing but the test's own calls writes.
    options_.commitInterval = std::chrono::hours(1);
    options_.data.writeback.expire = options_.data.writeback.interval = std::chrono::hours(1);
    mount(*record_);
    ASSERT_TRUE(fs_->syncAll().isOk());  // what the mount itself left
  }
  void TearDown() override {
    FilesystemTest::TearDown();
    fs_.reset();
    volume_.reset();
  }
  // What `call` does to the device: D a data write, F a flush, J a journal write with FUA, j one
  // without.
  std::string cost(const std::function<Status()>& call) {
    record_->clear();
    const Status done = call();
    EXPECT_TRUE(done.isOk()) << done.message();
    std::string order;
    for (const RecordedIo& io : record_->log()) {
      const char what = io.cls == IoClass::Data      ? 'D'
                        : io.cls != IoClass::Journal ? '?'
                        : io.fua                     ? 'J'
                                                     : 'j';
      order += io.op == IoOp::Flush ? 'F' : what;
    }
    return order;
  }
  std::string fsyncCost(OpenFile& file, bool dataOnly = false) {
    return cost([&] { return fs_->fsync(file, dataOnly); });
  }
  std::unique_ptr<RecordDevice> record_;
};

TEST_F(FlushCountTest, NamesAndAttributesNeedNoFlush) {
  auto directory = fs_->openDirectory(kRoot);
  ASSERT_TRUE(directory.isOk());
  const auto sync = [&] { return fs_->fsyncDirectory(**directory); };
  dir(kRoot, "d");
  EXPECT_EQ(cost(sync), "J");
  EXPECT_EQ(cost(sync), "") << "nothing new";
  const InodeNo ino = file(kRoot, "f");
  ASSERT_EQ(fs_->unlink(caller_, kRoot, "f").errnum(), 0);
  EXPECT_EQ(cost(sync), "J") << "two operations, one write";
  fs_->release(std::move(*directory));
  EXPECT_NE(ino, InodeNo(0));
}

TEST_F(FlushCountTest, NewDataNeedsOneFlushBeforeTheRecord) {
  OpenFilePtr handle = open(file(kRoot, "f"));
  write(*handle, 0, std::string(8192, 'n'));
  EXPECT_EQ(fsyncCost(*handle), "DFJ");
  EXPECT_EQ(fsyncCost(*handle), "") << "nothing new since";
  EXPECT_EQ(fsyncCost(*handle, true), "");
  fs_->release(std::move(handle));
}

TEST_F(FlushCountTest, AnOverwriteNeedsAFlushAndNoRecord) {
  OpenFilePtr handle = open(file(kRoot, "f"));
  write(*handle, 0, std::string(8192, 'o'));
  EXPECT_EQ(fsyncCost(*handle), "DFJ");
  write(*handle, 0, std::string(8192, 'n'));
  EXPECT_EQ(fsyncCost(*handle, true), "DF") << "fdatasync: mapped blocks, nothing in the log";
  EXPECT_EQ(fsyncCost(*handle), "J") << "fsync behind it: the times alone";
  write(*handle, 0, std::string(8192, 'm'));
  EXPECT_EQ(fsyncCost(*handle), "DFJ") << "an overwrite together with a record";
  AlignedBuffer direct(8192);
  FileData::WriteFlags flags;
  flags.direct = true;
  EXPECT_EQ(cost([&] { return fs_->write(*handle, FileOffset(0), direct.span(), flags).status(); }),
            "D");
  EXPECT_EQ(fsyncCost(*handle, true), "F");
  EXPECT_EQ(fsyncCost(*handle, true), "");
  fs_->release(std::move(handle));
}

}  // namespace
}  // namespace ourfs::test
