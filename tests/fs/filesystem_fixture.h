// A filesystem in memory, mounted in-process, and verbs to use it with.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "block/memory_device.h"
#include "common/codec.h"
#include "common/sync_point.h"
#include "fs/check.h"
#include "fs/filesystem.h"
#include "fs/volume.h"

namespace ourfs::test {

inline constexpr InodeNo kRoot{1};

class FilesystemTest : public ::testing::Test {
 protected:
  void SetUp() override {
    device_ = MemoryDevice::create(ByteCount(64 * MiB));
    ASSERT_EQ(formatVolume(*device_, FormatOptions()).message(), Status().message());
    mount();
  }
  void TearDown() override {
    SyncPoints::instance().reset();
    if (fs_) unmountClean();
  }

  void mount(BlockDevice& device, const OpenOptions& open = {}) {
    auto volume = Volume::open(device, open);
    ASSERT_TRUE(volume.isOk()) << volume.status().message();
    volume_ = std::move(*volume);
    auto fs = Filesystem::start(*volume_, options_);
    ASSERT_TRUE(fs.isOk()) << fs.status().message();
    fs_ = std::move(*fs);
  }
  void mount() { mount(*device_); }
  void unmount() {
    EXPECT_EQ(fs_->stop().errnum(), 0);
    fs_.reset();
    EXPECT_EQ(volume_->close().errnum(), 0);
    volume_.reset();
  }
  // Everything in core is lost, what is on the device stays.
  void crash() {
    fs_.reset();
    volume_.reset();
  }
  static void expectSound(BlockDevice& device) {
    auto report = checkVolume(device, CheckOptions());
    ASSERT_TRUE(report.isOk()) << report.status().message();
    for (const std::string& problem : report->problems) ADD_FAILURE() << problem;
    EXPECT_TRUE(report->clean());
  }
  void unmountClean() {
    unmount();
    expectSound(*device_);
  }

  // ---- verbs; the lookup that an answer counts is given back by forget ----
  Attributes must(Result<Attributes> r) {
    EXPECT_TRUE(r.isOk()) << r.status().message();
    return r.isOk() ? *r : Attributes();
  }
  InodeNo file(InodeNo parent, std::string_view name, uint32_t mode = 0644) {
    return must(fs_->mknod(caller_, parent, name, S_IFREG | mode, 0)).ino;
  }
  InodeNo dir(InodeNo parent, std::string_view name, uint32_t mode = 0755) {
    return must(fs_->mkdir(caller_, parent, name, mode)).ino;
  }
  OpenFilePtr open(InodeNo ino, int flags = O_RDWR) {
    auto file = fs_->open(ino, flags);
    EXPECT_TRUE(file.isOk()) << file.status().message();
    return file.isOk() ? std::move(*file) : OpenFilePtr();
  }
  void write(OpenFile& file, uint64_t pos, std::string_view text) {
    auto done = fs_->write(file, FileOffset(pos), asBytes(text), {});
    EXPECT_TRUE(done.isOk() && done->v == text.size()) << done.status().message();
  }
  std::string read(OpenFile& file, uint64_t pos, size_t length) {
    std::string text(length, '\0');
    auto got = fs_->read(file, FileOffset(pos), std::as_writable_bytes(std::span(text)));
    EXPECT_TRUE(got.isOk()) << got.status().message();
    text.resize(got.isOk() ? got->v : 0);
    return text;
  }
  void fill(InodeNo ino, std::string_view text) {
    OpenFilePtr file = open(ino);
    write(*file, 0, text);
    fs_->release(std::move(file));
  }
  InodeRecord stat(InodeNo ino) { return must(fs_->getattr(ino)).record; }
  uint32_t links(InodeNo ino) { return stat(ino).nlink; }
  int lookupError(InodeNo parent, std::string_view name) {
    auto found = fs_->lookup(parent, name);
    if (found) fs_->forget(found->ino, 1);
    return found.errnum();
  }
  InodeNo lookup(InodeNo parent, std::string_view name) {
    auto found = fs_->lookup(parent, name);
    if (!found) return InodeNo(0);
    fs_->forget(found->ino, 1);
    return found->ino;
  }
  int renameError(InodeNo from, std::string_view name, InodeNo to, std::string_view newName,
                  uint32_t flags = 0) {
    return fs_->rename(caller_, from, name, to, newName, flags).errnum();
  }
  struct Listed {
    std::string name;
    InodeNo ino;
    uint8_t type = 0;
    uint64_t next = 0;
  };
  // Up to `limit` entries from `cookie`.
  std::vector<Listed> list(OpenFile& directory, uint64_t cookie, size_t limit) {
    std::vector<Listed> found;
    auto take = [&](const DirectoryEntry& e) {
      if (found.size() == limit) return false;
      found.push_back({std::string(e.name), e.ino, e.type, e.nextCookie});
      return true;
    };
    EXPECT_EQ(fs_->readDirectory(directory, cookie, false, take).errnum(), 0);
    return found;
  }
  std::set<std::string> names(InodeNo ino) {
    auto directory = fs_->openDirectory(ino);
    EXPECT_TRUE(directory.isOk());
    std::set<std::string> all;
    for (const Listed& each : list(**directory, 0, SIZE_MAX)) {
      if (each.name != "." && each.name != "..") all.insert(each.name);
    }
    fs_->release(std::move(*directory));
    return all;
  }

  Caller caller_;
  FilesystemOptions options_;
  std::unique_ptr<MemoryDevice> device_;
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<Filesystem> fs_;
};

// A POSIX ACL in its binary form, from text as getfacl(1) prints it:
// "u::rwx,u:100:r--,g::r-x,m::rwx,o::---".
inline std::string aclOf(std::string_view text) {
  std::string out;
  Encoder e(out);
  e.u32(2);
  while (!text.empty()) {
    const std::string_view entry = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), entry.size() + 1));
    const std::string_view who = entry.substr(2, entry.rfind(':') - 2);
    const std::string_view rights = entry.substr(entry.rfind(':') + 1);
    const bool named = !who.empty();
    uint16_t tag = 0;
    if (entry[0] == 'u') tag = named ? 0x02 : 0x01;
    if (entry[0] == 'g') tag = named ? 0x08 : 0x04;
    if (entry[0] == 'm') tag = 0x10;
    if (entry[0] == 'o') tag = 0x20;
    uint16_t bits = 0;
    for (char c : rights) bits |= c == 'r' ? 4 : c == 'w' ? 2 : c == 'x' ? 1 : 0;
    e.u16(tag);
    e.u16(bits);
    e.u32(named ? static_cast<uint32_t>(std::stoul(std::string(who))) : UINT32_MAX);
  }
  return out;
}

}  // namespace ourfs::test
