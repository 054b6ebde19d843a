// The golden images: volumes that an earlier build of this format version has written. Every name,
// attribute, extended attribute, extent and byte must be what their manifests say, whatever has
// changed in the code since. tests/golden/README.md says how they were made.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include "fs/check.h"
#include "images/child.h"
#include "images/golden_file.h"
#include "images/sample.h"
#include "images/sparse_image.h"
#include "images/tree_text.h"

namespace ourfs::images {
namespace {

struct Golden {
  const char* name;
  bool replays;
};
void PrintTo(const Golden& golden, std::ostream* to) { *to << golden.name; }

class GoldenTest : public ::testing::TestWithParam<Golden> {
 protected:
  static std::string path(const char* suffix) {
    return std::string(OURFS_GOLDEN) + "/" + GetParam().name + suffix;
  }
  void SetUp() override {
    spdlog::set_level(spdlog::level::off);
    const auto image = readPacked(path(".img.gz"));
    const auto manifest = readPacked(path(".manifest.gz"));
    ASSERT_TRUE(image && manifest) << path("") << " cannot be read";
    device_ = deviceFrom(*image);
    ASSERT_TRUE(device_) << path("") << " is no image";
    manifest_ = *manifest;
    ASSERT_GT(manifest_.size(), 1000u);
  }
  // Work in a child: its answer is compared, so a failure is a text.
  void expectAnswer(const std::function<std::string()>& work, const std::string& expected) {
    const std::string answer = inChild(work);
    size_t i = 0;
    while (i < answer.size() && i < expected.size() && answer[i] == expected[i]) ++i;
    const size_t line = i == 0 ? 0 : expected.rfind('\n', i - 1) + 1;
    EXPECT_TRUE(answer == expected)
        << "found:    " << answer.substr(line, 300) << "\nexpected: " << expected.substr(line, 300);
  }

  std::unique_ptr<MemoryDevice> device_;
  std::string manifest_;
};

// The tree as a mount shows it, or one line with an error.
std::string shown(BlockDevice& device, bool readOnly, bool replays) {
  OpenOptions open;
  open.readOnly = readOnly;
  const auto volume = Volume::open(device, open);
  if (!volume) return volume.status().message();
  if (((*volume)->summary().replay.records > 0) != replays) return "replayed, or did not";
  const auto filesystem = Filesystem::start(**volume, quietOptions());
  if (!filesystem) return filesystem.status().message();
  const TreeText tree = readTree(**filesystem);
  if (!tree.errors.empty()) return tree.errors.front();
  if (readOnly) return tree.text;
  if (const Status stopped = (*filesystem)->stop(); !stopped.isOk()) return stopped.message();
  if (const Status closed = (*volume)->close(); !closed.isOk()) return closed.message();
  return tree.text;
}

std::string checked(BlockDevice& device) {
  const auto report = checkVolume(device, CheckOptions());
  if (!report) return report.status().message();
  return report->clean() ? "clean" : report->problems.front();
}

TEST_P(GoldenTest, IsCleanForFsck) {
  expectAnswer([&] { return checked(*device_); }, "clean");
}

TEST_P(GoldenTest, ShowsEveryNameAttributeAndByteOfItsManifest) {
  expectAnswer([&] { return shown(*device_, true, GetParam().replays); }, manifest_);
}

TEST_P(GoldenTest, IsTheSameWhenItIsMountedToWriteAndAfterwards) {
  expectAnswer([&] { return shown(*device_, false, GetParam().replays); }, manifest_);
  expectAnswer(
      [&] {
        const std::string first = shown(*device_, false, GetParam().replays);
        return first == manifest_ ? shown(*device_, true, false) : first;
      },
      manifest_);
  expectAnswer(
      [&] {
        (void)shown(*device_, false, GetParam().replays);
        return checked(*device_);
      },
      "clean");
}

INSTANTIATE_TEST_SUITE_P(Version1, GoldenTest,
                         ::testing::Values(Golden{"clean-4k", false}, Golden{"replay-4k", true},
                                           Golden{"clean-1k", false}, Golden{"replay-64k", true}),
                         [](const auto& i) {
                           std::string name = i.param.name;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace ourfs::images
