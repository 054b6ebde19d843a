// A volume in memory, and verbs to change it: what the tests of fs/ below the names share.
#pragma once

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <optional>
#include <string>

#include "block/memory_device.h"
#include "common/sync_point.h"
#include "fs/volume.h"

namespace ourfs::test {

#define ASSERT_OK(expr)                                \
  do {                                                 \
    const auto& status_ = (expr);                      \
    ASSERT_TRUE(status_.isOk()) << messageOf(status_); \
  } while (0)

inline std::string messageOf(const Status& s) { return s.message(); }
template <class T>
std::string messageOf(const Result<T>& r) {
  return r.status().message();
}

class VolumeTest : public ::testing::Test {
 protected:
  VolumeTest() { spdlog::set_level(spdlog::level::off); }
  ~VolumeTest() override { spdlog::set_level(spdlog::level::info); }
  void TearDown() override {
    volume_.reset();
    SyncPoints::instance().reset();
  }

  void format(ByteCount size = ByteCount(32 * MiB), uint32_t blockSize = 4096,
              uint32_t sector = 512) {
    device_ = MemoryDevice::create(size, sector);
    FormatOptions options;
    options.blockSize = blockSize;
    ASSERT_OK(formatVolume(*device_, options));
  }
  Status tryOpen(const OpenOptions& options = {}) { return tryOpenOn(*device_, options); }
  Status tryOpenOn(BlockDevice& device, const OpenOptions& options = {}) {
    volume_.reset();
    TRY_ASSIGN(volume_, Volume::open(device, options));
    return Status::ok();
  }
  void open(const OpenOptions& options = {}) { ASSERT_OK(tryOpen(options)); }
  void openReadOnly() {
    OpenOptions options;
    options.readOnly = true;
    open(options);
  }
  void close() {
    ASSERT_OK(volume_->close());
    volume_.reset();
  }
  void crash() { volume_.reset(); }  // the daemon is killed; the device keeps what it was given
  void formatAndOpen() {
    format();
    if (!HasFatalFailure()) open();
  }

  Result<Lsn> tryCommit(Transaction t, ByteCount room = kAttributeRoom) {
    TRY_ASSIGN(auto reserved, volume_->log().reserve(room));
    return volume_->log().commit(std::move(t), std::move(reserved));
  }
  Lsn commit(Transaction t) {
    auto lsn = tryCommit(std::move(t));
    EXPECT_TRUE(lsn.isOk()) << messageOf(lsn);
    return lsn.isOk() ? *lsn : Lsn(0);
  }
  Lsn put(const std::string& name, const std::string& value) {
    Transaction t;
    t.put(settingKey(name), value);
    return commit(std::move(t));
  }
  void flush(Lsn lsn) { ASSERT_OK(volume_->log().flush(lsn)); }
  std::optional<std::string> get(const std::string& name) {
    auto value = volume_->index().get(settingKey(name));
    EXPECT_TRUE(value.isOk()) << messageOf(value);
    return value.isOk() ? *value : std::nullopt;
  }
  // An extent of `blocks` for inode `ino` at offset 0. Its blocks.
  BlockRun putExtent(InodeNo ino, uint64_t blocks) {
    auto run = volume_->space().allocate(BlockCount(blocks), BlockNo(0), false);
    EXPECT_TRUE(run.isOk()) << messageOf(run);
    if (!run.isOk()) return {};
    putExtentAt(ino, *run);
    return *run;
  }
  Lsn putExtentAt(InodeNo ino, BlockRun run) {
    const ExtentRecord record{run.start.v, run.count.v, StoredExtentState::Mapped};
    Transaction t;
    t.put(extentKey(ino, FileOffset(0)), encodeExtent(ino, FileOffset(0), record));
    return commit(std::move(t));
  }
  Lsn freeExtent(InodeNo ino, BlockRun run) {
    Transaction t;
    t.erase(extentKey(ino, FileOffset(0)));
    t.freeBlocks(run);
    return commit(std::move(t));
  }
  std::string superblockError() {
    auto loaded = SuperblockStore(*device_).load();
    return loaded.isOk() ? "" : loaded.status().message();
  }
  Superblock onDisk() { return SuperblockStore(*device_).load().value(); }

  std::unique_ptr<MemoryDevice> device_;
  std::unique_ptr<Volume> volume_;
};

}  // namespace ourfs::test
