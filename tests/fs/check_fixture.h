// A volume with some of everything, verbs to damage its index, and what fsck must then do.
#pragma once

#include <gmock/gmock.h>

#include <functional>

#include "filesystem_fixture.h"

namespace ourfs::test {

class CheckTest : public FilesystemTest {
 protected:
  using Lines = std::vector<std::string>;  // a part of each problem's line, in any order

  void SetUp() override;
  void TearDown() override;
  // A new one with the sample on it; SetUp() makes one with mkfs's defaults.
  void makeVolume(const FormatOptions& options);

  // ---- damage: keys are put and erased behind the filesystem's back ----
  // The volume is left as after an unmount, with a free-space snapshot that is right.
  void damage(const std::function<void(Transaction&)>& change);
  // Likewise, but past the volume: journal, generation and free-space snapshot stay as they are.
  void damageIndex(const std::function<void(IndexBatch&)>& change);
  void openRaw();
  void closeRaw();
  InodeRecord record(InodeNo ino);
  void putRecord(Transaction& t, InodeNo ino, const InodeRecord& record) {
    t.put(inodeKey(ino), encodeInode(ino, record));
  }
  void changeRecord(InodeNo ino, const std::function<void(InodeRecord&)>& change);
  uint64_t cookieOf(std::string_view name) {
    return nameCookie(name, volume_->superblock().nameKey);
  }
  DirentRecord direntTo(std::string_view name, InodeNo ino, uint8_t type = DT_REG);
  void putName(Transaction& t, InodeNo dir, std::string_view name, InodeNo ino,
               uint8_t type = DT_REG) {
    t.put(direntKey(dir, cookieOf(name)), encodeDirent(direntTo(name, ino, type)));
  }
  void eraseName(Transaction& t, InodeNo dir, std::string_view name) {
    t.erase(direntKey(dir, cookieOf(name)));
  }
  std::map<uint64_t, ExtentRecord> extents(InodeNo ino);  // by file offset
  void putExtent(Transaction& t, InodeNo ino, uint64_t offset, const ExtentRecord& extent) {
    t.put(extentKey(ino, FileOffset(offset)), encodeExtent(ino, FileOffset(offset), extent));
  }

  // ---- fsck ----
  CheckReport check(bool repair);
  CheckReport look();  // and nothing on the device has changed
  CheckReport mend() { return check(true); }
  // Looks, mends, looks again, and mounts.
  void expectMended(const Lines& lines);
  static void expectLines(const CheckReport& report, const Lines& lines);

  // ---- what is there now ----
  InodeNo at(const std::string& path);  // 0 if there is nothing
  std::string contentOf(const std::string& path);
  // Every file of the sample has its bytes but those in `except`, and the links and attributes too.
  void expectSample(const std::set<std::string>& except = {});
  void expectGone(const std::string& path) { EXPECT_EQ(at(path).v, 0u) << path; }

  static constexpr uint64_t kBlock = 4096;
  std::map<std::string, std::string> files_;  // by path
  std::map<std::string, InodeNo> ino_;        // of everything in the sample, by path
  bool mountAfterwards_ = true;

 private:
  void makeSample();
  void add(const std::string& path, const std::string& content);
};

// Damage below the keys. What the daemon would log of it is left out.
class DamagedDeviceTest : public CheckTest {
 protected:
  void SetUp() override;
  void TearDown() override;
  Superblock superblock_;  // before the damage
};

}  // namespace ourfs::test
