// Damage that no checksum shows: fields and bytes are wrong, and every checksum above them is
// right. fsck, mount and whoever reads must answer, whatever there is, without a crash or a hang;
// and what fsck says that it has mended, a second look finds in order.
#include "images/mutation.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>
#include <set>

#include "fs/check.h"
#include "images/child.h"
#include "images/tree_text.h"
#include "random_seed.h"
#include "rounds.h"

namespace ourfs::images {
namespace {

// What became of an image, by layer.
enum class Fate : uint8_t { Unnoticed, Mended, LeftOver, Refused };
constexpr size_t kFates = 4;

uint64_t& countOf(Counts& counts, Layer layer, Fate fate) {
  return counts[static_cast<size_t>(layer) * kFates + static_cast<size_t>(fate)];
}

OpenOptions smallCache(bool readOnly) {
  OpenOptions open;
  open.readOnly = readOnly;
  open.blockCache = ByteCount(1 * MiB);
  return open;
}

// Mounts, reads everything, changes a little and unmounts. Any of it may be refused.
Status use(BlockDevice& device, bool readOnly) {
  TRY_ASSIGN(const auto volume, Volume::open(device, smallCache(readOnly)));
  {
    TRY_ASSIGN(const auto filesystem, Filesystem::start(*volume, quietOptions()));
    const TreeText tree = readTree(*filesystem);
    if (!readOnly) {
      const Caller caller;
      const auto made = filesystem->mknod(caller, InodeNo(1), "made after all that", 0100644, 0);
      if (made) TRY(filesystem->unlink(caller, InodeNo(1), "made after all that"));
    }
    TRY(filesystem->stop());
    if (!tree.errors.empty()) return Status::error(EIO, tree.errors.front());
  }
  return volume->close();
}

Result<CheckReport> check(BlockDevice& device, bool repair) {
  CheckOptions options;
  options.repair = repair;
  return checkVolume(device, options);
}

// Empty, or what is wrong with what was said of the image.
std::string judge(const MemoryDevice& image, Layer layer, Counts& counts) {
  const auto look = check(*image.clone(), false);
  (void)use(*image.clone(), true);
  (void)use(*image.clone(), false);

  const auto device = image.clone();
  const auto repaired = check(*device, true);
  if (!repaired) {
    ++countOf(counts, layer, Fate::Refused);
    return "";
  }
  // A MANIFEST may well name wrong bounds of a table: then a key is there in a scan, and not there
  // when it is asked for. fsck cannot tell, nor mend it.
  if (layer == Layer::Manifest) {
    ++countOf(counts, layer, repaired->clean() ? Fate::Unnoticed : Fate::Mended);
    return "";
  }
  if (look && look->clean() != repaired->clean()) {
    return "fsck -n finds " + std::to_string(look->problemCount) + " problems, fsck " +
           std::to_string(repaired->problemCount);
  }
  if (repaired->exitCode() > 1) {
    ++countOf(counts, layer, Fate::LeftOver);
    return layer == Layer::Records ? "fsck leaves: " + repaired->problems.front() : "";
  }
  ++countOf(counts, layer, repaired->clean() ? Fate::Unnoticed : Fate::Mended);
  const auto again = check(*device, false);
  if (!again) return "after fsck: " + again.status().message();
  if (!again->clean()) return "a second fsck finds: " + again->problems.front();
  if (const Status used = use(*device, false); !used.isOk()) {
    return "after fsck: " + used.message();
  }
  const auto last = check(*device, false);
  if (!last) return "after fsck and a mount: " + last.status().message();
  return last->clean() ? "" : "after fsck and a mount: " + last->problems.front();
}

class MutationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (test::onlyThreadsCount()) GTEST_SKIP() << "one thread";
  }
  void expectAnswersFor(const std::vector<Layer>& layers, uint64_t usual, uint64_t full,
                        bool rocksMayAssert = false) {
    const uint64_t seed = test::randomSeed("mutations");
    const uint64_t images = test::shortened() ? usual / 8 : test::fullRun() ? full : usual;
    for (const bool clean : {true, false}) {
      SampleOptions options;
      options.clean = clean;
      options.blockSize = clean ? 1024 : 4096;
      options.roundTheRing = false;
      const Subject subject = makeSubject(options);
      if (HasFailure()) return;
      const auto map = MetadataMap::of(*subject.device, subject.log);
      ASSERT_TRUE(map.has_value());
      Judgement judgement;
      judgement.patience = test::sanitized() ? 60 : 10;
      judgement.stopAfter = 10;
      judgement.rocksMayAssert = rocksMayAssert;
      judgement.look = [&](uint64_t id, Counts& counts) {
        std::mt19937_64 random(seed * 0x9e3779b97f4a7c15ull + id);
        const Layer layer = layers[random() % layers.size()];
        const auto image = mutated(subject, *map, layer, random);
        const std::string wrong = judge(*image, layer, counts);
        return wrong.empty() ? wrong : std::string(layerName(layer)) + ": " + wrong;
      };
      Outcome outcome = judgeAll(clean ? 0 : images / 2, images / 2, judgement);
      for (const std::string& failure : outcome.failures) ADD_FAILURE() << failure;
      uint64_t judged = outcome.assertions;
      for (const uint64_t count : outcome.counts) judged += count;
      EXPECT_EQ(judged, images / 2);
      print(clean ? "a clean volume" : "a volume that needs replay", outcome.counts, layers);
      if (rocksMayAssert) std::printf("  assertions of RocksDB: %lu\n", outcome.assertions);
    }
  }

 private:
  static void print(const char* title, Counts& counts, const std::vector<Layer>& layers) {
    std::printf("%s\n  %-18s %10s %10s %10s %10s\n", title, "changed", "unnoticed", "mended",
                "left over", "refused");
    for (const Layer layer : std::set<Layer>(layers.begin(), layers.end())) {
      std::printf("  %-18s", layerName(layer));
      for (size_t f = 0; f < kFates; ++f) {
        std::printf(" %10lu", countOf(counts, layer, static_cast<Fate>(f)));
      }
      std::printf("\n");
    }
  }
};

TEST_F(MutationTest, ImagesWithWrongFieldsAreReportedOrMendedButNeverCrash) {
  expectAnswersFor(
      {Layer::Superblock, Layer::Table, Layer::Journal, Layer::Records, Layer::Records}, 300,
      10000);
}

// What no checksum shows, RocksDB takes for its own, and asserts what it believes of it: the
// commands survive that (fsck_survives… and mount_survives… in tests/mounted), these calls in
// process do not.
TEST_F(MutationTest, WrongBytesOfRocksDbMeetAnAssertionAtWorst) {
  expectAnswersFor({Layer::Units, Layer::Manifest}, 100, 4000, true);
}

}  // namespace
}  // namespace ourfs::images
