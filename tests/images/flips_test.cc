// A flip of a byte of metadata that anything depends on is reported by fsck, mount or a read; a
// flip of any other byte changes nothing.
//
// Which bytes those are is first told from the format (MetadataMap), then tried. Each try
// is done in a child process, so that a crash or a hang is one failure among others.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>

#include "common/sync_point.h"
#include "images/child.h"
#include "images/look.h"
#include "images/sparse_image.h"
#include "random_seed.h"
#include "rounds.h"

namespace ourfs::images {
namespace {

enum class Damage { Bit, Bits, ZeroSector, OldSector, OtherSector };
constexpr uint64_t kSectorBytes = 512;

struct Change {
  uint64_t at = 0;
  std::string before, after;
};

class Flipper {
 public:
  Flipper(const Subject& subject, const MetadataMap& map) : subject_(subject), map_(map) {
    for (size_t i = 0; i < kParts - 1; ++i) {
      std::vector<Piece> pieces;
      for (const Piece& p : map.live()) {
        if (p.part == static_cast<Part>(i)) pieces.push_back(p);
      }
      if (!pieces.empty()) livePieces_.push_back(std::move(pieces));
    }
  }

  // Six of ten where something depends on it, each kind as often as the others; else anywhere.
  Change choose(std::mt19937_64& random, Damage damage) const {
    const std::vector<Piece>& pieces =
        random() % 10 < 6 ? livePieces_[random() % livePieces_.size()] : map_.regions();
    const uint64_t byte = byteOf(pieces, random);
    Change change;
    if (damage == Damage::Bit) {
      change.at = byte;
      change.before = change.after = peek(*subject_.device, byte, 1);
      flip(change.after, random() % 8);
      return change;
    }
    change.at = roundDown(byte, kSectorBytes);
    change.before = change.after = peek(*subject_.device, change.at, kSectorBytes);
    if (damage == Damage::Bits) {
      flip(change.after, (byte - change.at) * 8 + random() % 8);
      for (uint64_t n = 1 + random() % 32; n > 0; --n) {
        flip(change.after, random() % (8 * kSectorBytes));
      }
    } else if (damage == Damage::ZeroSector) {
      change.after.assign(kSectorBytes, '\0');
    } else if (damage == Damage::OldSector) {
      change.after = peek(*subject_.earlier, change.at, kSectorBytes);
    } else {
      const uint64_t from = roundDown(byteOf(map_.live(), random), kSectorBytes);
      change.after = peek(*subject_.device, from, kSectorBytes);
    }
    return change;
  }

 private:
  static void flip(std::string& bytes, uint64_t bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  }
  static uint64_t byteOf(const std::vector<Piece>& pieces, std::mt19937_64& random) {
    uint64_t total = 0;
    for (const Piece& p : pieces) total += p.end - p.start;
    uint64_t at = random() % total;
    for (const Piece& p : pieces) {
      if (at < p.end - p.start) return p.start + at;
      at -= p.end - p.start;
    }
    return pieces.back().start;
  }

  const Subject& subject_;
  const MetadataMap& map_;
  std::vector<std::vector<Piece>> livePieces_;
};

// Counts by the part that a try has changed, and what came of it.
enum class Verdict : uint8_t { ByMount, ByRead, ByFsck, Unchanged, LastRecordGone, Same };
constexpr size_t kResults = 6;
uint64_t& countOf(Counts& counts, Part part, Verdict result) {
  return counts[static_cast<size_t>(part) * kResults + static_cast<size_t>(result)];
}

// The part that has most to lose of what a change has touched.
std::optional<Part> touched(const MetadataMap& map, const Change& change) {
  std::optional<Part> part;
  for (size_t i = 0; i < change.after.size(); ++i) {
    if (change.before[i] == change.after[i]) continue;
    const Part here = map.partAt(change.at + i);
    // A file table's or a journal's end may be lost without a word; what stands in front may not.
    const auto weight = [](Part p) {
      return p == Part::Dead ? 0 : p == Part::TableEnd || p == Part::LogEnd ? 1 : 2;
    };
    if (!part || weight(here) > weight(*part)) part = here;
  }
  return part;
}

// Who says so first, on the way from a mount to fsck.
Verdict teller(const Look& look) {
  if (!look.mount.empty()) return Verdict::ByMount;
  return look.read.empty() ? Verdict::ByFsck : Verdict::ByRead;
}

std::string cut(const std::string& line) { return line.substr(0, 200); }

// Empty, or what is wrong with what the damaged volume says.
std::string judge(const Subject& subject, const MetadataMap& map, const Change& change,
                  Damage damage, Counts& counts) {
  const auto part = touched(map, change);
  if (!part) {
    ++countOf(counts, Part::Dead, Verdict::Same);
    return "";
  }
  const auto device = subject.device->clone();
  poke(*device, change.at, change.after);
  const Look look = lookAt(*device);
  const std::string where = std::string(partName(*part)) + ", byte " + std::to_string(change.at);
  const std::string& complaint = look.complaint();
  if (!complaint.empty()) {
    ++countOf(counts, *part, teller(look));
    if (*part == Part::Dead) return where + ": nothing depends on it, but " + cut(complaint);
    // Who mounts without a fsck before must not be shown something else without a word.
    if (!look.mount.empty() || look.text.empty() || look.text == subject.text) return "";
  }
  if (look.text == subject.text) {
    ++countOf(counts, *part, Verdict::Unchanged);
    // An older superblock, written whole, is as good as the one that it was before.
    const bool moved = damage == Damage::OldSector || damage == Damage::OtherSector;
    const bool mustTell = (*part == Part::Superblock && !moved) || *part == Part::Table ||
                          *part == Part::Journal || *part == Part::Index;
    return mustTell ? where + ": the damage is not reported" : "";
  }
  if (*part == Part::LogEnd && look.text == subject.textBeforeLast) {
    ++countOf(counts, *part, Verdict::LastRecordGone);
    return "";
  }
  size_t i = 0;
  while (i < look.text.size() && i < subject.text.size() && look.text[i] == subject.text[i]) ++i;
  const size_t line = look.text.rfind('\n', i) + 1;
  return where + ": something else is read: " + cut(look.text.substr(line)) + " instead of " +
         cut(subject.text.substr(line));
}

void print(const char* title, Counts counts) {
  std::printf("%s\n  %-18s %9s %9s %9s %10s %12s %10s\n", title, "reported by", "mount", "a read",
              "fsck", "unchanged", "record gone", "same bytes");
  constexpr int kWidths[kResults] = {9, 9, 9, 10, 12, 10};
  for (size_t p = 0; p < kParts; ++p) {
    std::printf("  %-18s", partName(static_cast<Part>(p)));
    for (size_t r = 0; r < kResults; ++r) {
      std::printf(" %*lu", kWidths[r],
                  countOf(counts, static_cast<Part>(p), static_cast<Verdict>(r)));
    }
    std::printf("\n");
  }
}

uint64_t sum(Counts counts, Verdict result) {
  uint64_t total = 0;
  for (size_t p = 0; p < kParts; ++p) total += countOf(counts, static_cast<Part>(p), result);
  return total;
}

uint64_t reported(const Counts& counts) {
  return sum(counts, Verdict::ByMount) + sum(counts, Verdict::ByRead) +
         sum(counts, Verdict::ByFsck);
}

class FlipTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (test::onlyThreadsCount()) GTEST_SKIP() << "one thread";
  }
  void prepare(const SampleOptions& options) {
    subject_ = makeSubject(options);
    if (HasFailure()) return;
    map_ = MetadataMap::of(*subject_.device, subject_.log);
    ASSERT_TRUE(map_.has_value());
  }
  Outcome tryAll(uint64_t tries, Damage damage) {
    const uint64_t seed = test::randomSeed("flips");
    const Flipper flipper(subject_, *map_);
    Judgement judgement;
    judgement.patience = test::sanitized() ? 60 : 10;
    judgement.look = [&](uint64_t id, Counts& counts) {
      std::mt19937_64 random(seed * 0x9e3779b97f4a7c15ull + id);
      return judge(subject_, *map_, flipper.choose(random, damage), damage, counts);
    };
    Outcome outcome = judgeAll(0, tries, judgement);
    for (const std::string& failure : outcome.failures) ADD_FAILURE() << failure;
    return outcome;
  }
  // Changes of the file table that are no less durable than its snapshot.
  static constexpr int kChangesWanted = 4;
  int tableChanges() const {
    if (!map_) return 0;
    const auto inTable = [](const Piece& p) { return p.part == Part::Table; };
    return static_cast<int>(std::ranges::count_if(map_->live(), inTable)) - 1;
  }
  uint64_t tries(uint64_t usual, uint64_t full) {
    if (test::sanitized()) return std::max(test::rounds(usual), uint64_t{40});
    return test::fullRun() ? full : usual;
  }

  Subject subject_;
  std::optional<MetadataMap> map_;
};

TEST_F(FlipTest, AFlippedBitIsReportedOrChangesNothing) {
  SampleOptions crashed;
  crashed.clean = false;
  prepare(crashed);
  if (HasFailure()) return;
  const Outcome outcome = tryAll(tries(1600, 100000), Damage::Bit);
  print("flips of one bit, a volume that needs replay", outcome.counts);
  EXPECT_GT(reported(outcome.counts), 0u);
  EXPECT_GT(sum(outcome.counts, Verdict::Unchanged), 0u);
}

TEST_F(FlipTest, AFlippedBitOfACleanVolumeIsReportedOrChangesNothing) {
  for (const uint32_t blockSize : {1024u, 65536u}) {
    SampleOptions clean;
    clean.blockSize = blockSize;
    prepare(clean);
    if (HasFailure()) return;
    const Outcome outcome = tryAll(tries(200, 10000), Damage::Bit);
    print(("a clean volume, block size " + std::to_string(blockSize)).c_str(), outcome.counts);
    EXPECT_GT(reported(outcome.counts), 0u);
  }
}

TEST_F(FlipTest, ADamagedSectorIsReportedOrChangesNothing) {
  SampleOptions crashed;
  crashed.clean = false;
  prepare(crashed);
  if (HasFailure()) return;
  const std::pair<Damage, const char*> kinds[] = {{Damage::Bits, "several bits of a sector"},
                                                  {Damage::ZeroSector, "zeros"},
                                                  {Damage::OldSector, "an earlier write"},
                                                  {Damage::OtherSector, "another sector's bytes"}};
  for (const auto& [damage, title] : kinds) {
    const Outcome outcome = tryAll(tries(120, 5000), damage);
    print(title, outcome.counts);
    EXPECT_GT(reported(outcome.counts), 0u);
  }
}

// The test itself notices when nobody looks at the checksums of one kind.
TEST_F(FlipTest, WithoutTheChecksumsOfOneKindItIsNoticed) {
  if (test::sanitized()) GTEST_SKIP() << "mutants are judged in the plain build";
  SampleOptions crashed;
  crashed.clean = false;
  // How full the current slot is, is a matter of RocksDB's threads; a slot that has just taken over
  // has no change but the last one.
  for (int attempt = 0; attempt < 20 && tableChanges() < kChangesWanted; ++attempt) {
    prepare(crashed);
    if (HasFailure()) return;
  }
  ASSERT_GE(tableChanges(), kChangesWanted);
  const Flipper flipper(subject_, *map_);
  Judgement judgement;
  judgement.stopAfter = 1;
  judgement.look = [&](uint64_t id, Counts& counts) {
    std::mt19937_64 random(id);
    return judge(subject_, *map_, flipper.choose(random, Damage::Bit), Damage::Bit, counts);
  };
  EXPECT_TRUE(judgeAll(0, 300, judgement).failures.empty());
  for (const char* rule :
       {"superblock.skip_checksum", "filetable.skip_slot_checksum", "filetable.skip_delta_checksum",
        "journal.skip_checksum", "index.skip_block_checksum"}) {
    SCOPED_TRACE(rule);
    ScopedMutant mutant(rule);
    EXPECT_FALSE(judgeAll(0, 3000, judgement).failures.empty());  // the first one ends it
  }
}

}  // namespace
}  // namespace ourfs::images
