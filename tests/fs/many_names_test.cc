// Filesystem: a directory of a million files, on an image file. The same through a mount, where the
// kernel takes most of the time, is in tests/mounted (100,000; a million with --full).
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "block/uring_device.h"
#include "filesystem_fixture.h"
#include "rounds.h"

namespace ourfs::test {
namespace {

class ManyNamesTest : public FilesystemTest {
 protected:
  void SetUp() override {
    std::string path = "/var/tmp/ourfs-many-XXXXXX";
    const int fd = mkstemp(path.data());
    ASSERT_GE(fd, 0);
    ASSERT_EQ(ftruncate(fd, 4 * static_cast<off_t>(GiB)), 0);
    auto image = UringDevice::open(path, UringOptions());
    unlink(path.c_str());  // it goes with its last user, also if the test dies
    close(fd);
    ASSERT_TRUE(image.isOk()) << image.status().message();
    image_ = std::move(*image);
    ASSERT_TRUE(formatVolume(*image_, FormatOptions()).isOk());
    mount(*image_);
  }
  void TearDown() override {
    if (!fs_) return;
    unmount();
    expectSound(*image_);
  }

  std::string nameOf(uint64_t i) const { return "file-" + std::to_string(i); }
  // Calls `operation` for each number; the seconds of the slowest call.
  double each(const char* what, uint64_t count, const std::function<void(uint64_t)>& operation) {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    auto last = begin;
    Clock::duration worst{0};
    for (uint64_t i = 0; i < count && !HasFailure(); ++i) {
      operation(i);
      const auto now = Clock::now();
      worst = std::max(worst, now - last);
      last = now;
    }
    const double slowest = std::chrono::duration<double>(worst).count();
    std::printf("  %s: %.1f s, slowest call %.3f s\n", what,
                std::chrono::duration<double>(last - begin).count(), slowest);
    return slowest;
  }
  // How many names a listing in the kernel's portions shows, without "." and "..".
  uint64_t count(InodeNo ino) {
    auto directory = fs_->openDirectory(ino);
    EXPECT_TRUE(directory.isOk());
    uint64_t seen = 0, cookie = 0;
    for (;;) {
      const std::vector<Listed> found = list(**directory, cookie, 100);
      if (found.empty()) break;
      for (const Listed& entry : found) seen += entry.name != "." && entry.name != "..";
      cookie = found.back().next;
    }
    fs_->release(std::move(*directory));
    return seen;
  }
  static uint64_t peakMemory() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * KiB;
    return 0;
  }

  std::unique_ptr<UringDevice> image_;
};

TEST_F(ManyNamesTest, AMillionFilesInOneDirectory) {
  const uint64_t kFiles = rounds(rounds(uint64_t{1'000'000}));
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
  const uint64_t before = peakMemory();
  const InodeNo d = dir(kRoot, "d");
  const double create = each("create", kFiles, [&](uint64_t i) {
    auto made = fs_->create(caller_, d, nameOf(i), 0644, O_WRONLY);
    ASSERT_TRUE(made.isOk()) << made.status().message();
    const InodeNo ino = made->first.ino;
    fs_->release(std::move(made->second));
    fs_->forget(ino, 1);
  });
  each("list", 1, [&](uint64_t) { EXPECT_EQ(count(d), kFiles); });
  const double stat =
      each("stat", kFiles, [&](uint64_t i) { ASSERT_NE(lookup(d, nameOf(i)).v, 0u) << i; });
  const double remove = each("remove", kFiles, [&](uint64_t i) {
    const Status removed = fs_->unlink(caller_, d, nameOf(i));
    ASSERT_TRUE(removed.isOk()) << removed.message();
  });
  const double emptied =
      each("list the emptied one", 1, [&](uint64_t) { EXPECT_EQ(count(d), 0u); });
  const double parent = each("list its parent", 1, [&](uint64_t) { EXPECT_EQ(count(kRoot), 1u); });
  EXPECT_LT(std::max({create, stat, remove, emptied, parent}), 1.0);
  EXPECT_EQ(fs_->rmdir(caller_, kRoot, "d").errnum(), 0);
  const uint64_t peak = peakMemory();
  std::printf("  memory: %lu MiB at most, %lu before\n", peak >> 20, before >> 20);
  if (!sanitized()) {
    EXPECT_LT(peak - before, 512 * MiB);
  }
}

}  // namespace
}  // namespace ourfs::test
