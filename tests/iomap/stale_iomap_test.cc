// The stale cached map: each race is really hit (a counter), ends with the right bytes (a model),
// and the same race with one rule switched off (a mutant) does not.
#include <gtest/gtest.h>

#include <thread>

#include "iomap/test_file.h"

namespace ourfs {
namespace {

using test::callOnce;
using test::TestFile;

struct Race {
  const char* point;   // where it strikes
  const char* mutant;  // the rule without which it does harm
};

class StaleIomapTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  ~StaleIomapTest() override { SyncPoints::instance().reset(); }
  uint64_t blocks(uint64_t n) const { return n * GetParam(); }
  uint64_t indexOf(uint64_t block) const {
    return blocks(block) / std::max<uint32_t>(4096, GetParam());
  }

  // The file after `scenario`, with the mutant on meanwhile, verified: "" if all is right.
  template <class Scenario>
  std::string run(TestFile& file, Scenario scenario, const char* mutant = nullptr) {
    std::optional<ScopedMutant> rule;
    if (mutant != nullptr) rule.emplace(mutant);
    scenario(file);
    SyncPoints::instance().reset();
    rule.reset();
    return file.verify();
  }
  template <class Scenario>
  std::string runMutant(Scenario scenario, const char* mutant) {
    TestFile file(GetParam());
    return run(file, scenario, mutant);
  }
};
INSTANTIATE_TEST_SUITE_P(Blocks, StaleIomapTest, ::testing::Values(1024, 4096, 16384, 65536),
                         [](const auto& p) { return std::to_string(p.param / 1024) + "K"; });

// 1 and 3: the race of the RFC, in the middle of a range.
TEST_P(StaleIomapTest, AFolioWrittenBackAndEvictedUnderTheWriterIsReadAndNotZeroed) {
  for (const Race& race :
       {Race{"write.before_folio_lock", "iomap.no_validation"},
        Race{"write.before_folio_lock", "iomap.validate_before_lock"},
        Race{"write.after_begin", "iomap.cookie_late"}, Race{"write.after_folio_lock", nullptr}}) {
    const auto scenario = [&](TestFile& f) {
      f.truncate(blocks(32));
      f.preallocate(0, blocks(32));
      f.write(blocks(9) - GetParam() / 2, GetParam() / 2, 1);  // A: the second half of block 8
      // By the time that the second folio is looked at, that block is on disk, Mapped, and gone.
      callOnce(
          race.point, [&] { EXPECT_TRUE(f.cleanOut(indexOf(8))); },
          race.point == std::string("write.after_begin") ? 1 : 2);
      const uint64_t from = blocks(8) - 100;
      if (race.point == std::string("write.after_folio_lock")) {
        // The second folio is locked here: only the map may change under it.
        callOnce(
            race.point, [&] { f.bump(); }, 2);
      }
      EXPECT_EQ(f.write(from, 100 + GetParam() / 4, 2), 100 + GetParam() / 4);
    };
    TestFile file(GetParam());
    EXPECT_EQ(run(file, scenario), "") << race.point;
    EXPECT_EQ(file.counters.staleWrite, 1u) << race.point;
    if (race.mutant != nullptr) {
      EXPECT_GE(file.counters.filledByRead, 1u) << race.point;
      EXPECT_NE(runMutant(scenario, race.mutant), "") << race.mutant;
    }
  }
}

// 2: nothing done yet.
TEST_P(StaleIomapTest, AMapThatIsStaleBeforeTheFirstByteIsBegunAgain) {
  const auto scenario = [&](TestFile& f) {
    f.truncate(blocks(4));
    f.preallocate(0, blocks(4));
    f.write(blocks(1) + 7, 100, 1);
    callOnce("write.before_folio_lock", [&] { EXPECT_TRUE(f.cleanOut(indexOf(1))); });
    EXPECT_EQ(f.write(blocks(1) + 300, 50, 2), 50);
  };
  TestFile file(GetParam());
  EXPECT_EQ(run(file, scenario), "");
  EXPECT_EQ(file.counters.staleWrite, 1u);
  EXPECT_EQ(file.counters.filledByRead, 1u);
  EXPECT_NE(runMutant(scenario, "iomap.no_validation"), "");
}

// 4 and 5: NEW over several remaps; what a failure leaves is given back to the last block.
TEST_P(StaleIomapTest, NewSurvivesShorterRemapsOneAfterTheOtherUntilTheWriteFails) {
  const auto scenario = [&](TestFile& f) {
    f.truncate(blocks(64));
    int begins = 0, maps = 0;
    f.ops.afterBegin = [&](const Iomap&, IomapIntent intent) {
      if (intent == IomapIntent::Write) ++begins, f.ops.mapLimit = 16;
    };
    // Stale after the first begin, and once more behind the first remap: each remap is a part of
    // the range.
    SyncPoints::instance().call("write.before_folio_lock", [&] {
      if (++maps == 1 || maps == 6) f.bump();
    });
    callOnce(
        "write.before_copy", [&] { SyncPoints::instance().forceError("write.before_copy", EIO); },
        GetParam() == 1024 ? 7 : 28);
    const int64_t done = f.write(10, blocks(60), 3);
    EXPECT_GT(done, 0);
    EXPECT_LT(done, static_cast<int64_t>(blocks(40)));
    EXPECT_GT(begins, 2);
    f.ops.afterBegin = nullptr;
    f.ops.mapLimit = UINT64_MAX;
  };
  TestFile file(GetParam());
  EXPECT_EQ(run(file, scenario), "");
  EXPECT_GE(file.counters.remapKeptNew, 2u);
  EXPECT_EQ(file.counters.staleWrite, 2u);
  EXPECT_EQ(file.space.reserved(), 0u);
  EXPECT_NE(runMutant(scenario, "iomap.drop_new"), "");
}

// 6: a remap that became Mapped through mmap, writeback and reclaim.
TEST_P(StaleIomapTest, NewIsIgnoredWhereSomeoneElseMadeItMapped) {
  const auto scenario = [&](TestFile& f) {
    f.truncate(blocks(8));
    callOnce("write.before_folio_lock", [&] {
      const uint64_t page = roundDown(blocks(5), 4096);
      f.mmapStore(page, std::max<uint64_t>(4096, GetParam()), 1);
      EXPECT_TRUE(f.cleanOut(indexOf(5)));
    });
    EXPECT_EQ(f.write(blocks(5) + 100, 100, 2), 100);
  };
  TestFile file(GetParam());
  EXPECT_EQ(run(file, scenario), "");
  EXPECT_EQ(file.counters.remapMaskedNew, 1u);
  EXPECT_EQ(file.counters.filledByRead, 1u);
  EXPECT_NE(runMutant(scenario, "iomap.carry_new_blindly"), "");
}

// 7: an unrelated bump.
TEST_P(StaleIomapTest, AnUnrelatedChangeLeavesNewBlocksZeroFilled) {
  const auto scenario = [&](TestFile& f) {
    f.truncate(blocks(8));
    callOnce("write.before_folio_lock", [&] { f.preallocate(blocks(20), blocks(1)); });
    EXPECT_EQ(f.write(blocks(5) + 100, 100, 2), 100);
  };
  TestFile file(GetParam());
  EXPECT_EQ(run(file, scenario), "");
  EXPECT_EQ(file.counters.remapKeptNew, 1u);
  EXPECT_EQ(file.counters.filledByZero, 1u);
  EXPECT_EQ(file.counters.filledByRead, 0u);
  TestFile without(GetParam());
  (void)run(without, scenario, "iomap.drop_new");
  EXPECT_EQ(without.counters.remapKeptNew, 0u);
}

// 8: a failure after a stale remap, with another writer's dirty block on the reservation.
TEST_P(StaleIomapTest, AFailedWriteGivesBackItsReservationButNotUnderDirtyData) {
  const uint64_t page = std::max<uint64_t>(4096, GetParam());
  const auto scenario = [&](TestFile& f) {
    f.truncate(16 * page);
    callOnce(
        "write.before_folio_lock",
        [&] {
          f.bump();
          f.mmapStore(6 * page, page, 1);
        },
        2);
    // The fourth copy: two folios of the write and the store came first.
    callOnce(
        "write.before_copy", [&] { SyncPoints::instance().forceError("write.before_copy", EIO); },
        4);
    EXPECT_EQ(f.write(100, 12 * page, 2), static_cast<int64_t>(2 * page - 100));
  };
  TestFile file(GetParam());
  EXPECT_EQ(run(file, scenario), "");
  EXPECT_EQ(file.counters.punchSkippedDirty, 1u);
  EXPECT_EQ(file.counters.staleWrite, 1u);
  EXPECT_GE(file.counters.remapKeptNew, 1u);
  EXPECT_NE(runMutant(scenario, "iomap.punch_ignores_dirty"), "");
  EXPECT_NE(runMutant(scenario, "iomap.drop_new"), "");
}

TEST_P(StaleIomapTest, AStoreCannotComeBetweenTheScanAndThePunch) {
  TestFile file(GetParam());
  const uint64_t page = std::max<uint64_t>(4096, GetParam());
  file.truncate(8 * page);
  SyncPoints& sync = SyncPoints::instance();
  sync.forceError("write.before_copy", EIO);
  sync.park("punch.after_scan");
  std::thread writer([&] { EXPECT_EQ(file.write(0, 4 * page, 1), -EIO); });
  ASSERT_TRUE(sync.awaitParked("punch.after_scan"));
  EXPECT_FALSE(file.mapping.invalidateLock.try_lock());
  std::thread store([&] { file.mmapStore(2 * page, page, 2); });
  sync.release("punch.after_scan");
  writer.join();
  store.join();
  EXPECT_EQ(file.verify(), "");
}

// 10: a bump before every validation.
TEST_P(StaleIomapTest, AWriteEndsThoughEveryValidationFails) {
  const auto scenario = [&](TestFile& f) {
    f.truncate(blocks(8));
    auto bumps = std::make_shared<int>(0);
    SyncPoints::instance().call("write.after_folio_lock", [&f, bumps] {
      if (++*bumps <= 1000) f.bump();
    });
    EXPECT_EQ(f.write(100, blocks(6), 1), static_cast<int64_t>(blocks(6)));
    return *bumps < 1000;
  };
  TestFile file(GetParam());
  EXPECT_TRUE(scenario(file));
  SyncPoints::instance().reset();
  EXPECT_EQ(file.verify(), "");
  EXPECT_GE(file.counters.lockFirst, 2u);
  EXPECT_GE(file.counters.staleWrite, 4u);
  ScopedMutant mutant("iomap.no_lock_first");
  TestFile without(GetParam());
  EXPECT_FALSE(scenario(without));
}

// 11: reads past the cache.
TEST_P(StaleIomapTest, AReadPastTheCacheShowsNoZerosForWhatWasWrittenMeanwhile) {
  const auto scenario = [&](TestFile& f) {
    f.truncate(blocks(8));
    f.preallocate(0, blocks(8));
    callOnce("read.after_begin", [&] {
      f.write(blocks(2), blocks(1), 1);
      EXPECT_TRUE(f.cleanOut(indexOf(2)));
    });
    const auto bytes = f.read(0, blocks(8));
    EXPECT_EQ(bytes.size(), blocks(8));
    return bytes == f.model;
  };
  TestFile file(GetParam());
  EXPECT_TRUE(scenario(file));
  EXPECT_EQ(file.counters.staleRead, 1u);
  SyncPoints::instance().reset();
  EXPECT_EQ(file.verify(), "");
  ScopedMutant mutant("iomap.read_without_cookie");
  TestFile without(GetParam());
  EXPECT_FALSE(scenario(without));
}

TEST_P(StaleIomapTest, AReadPastTheCacheShowsNoForeignBytesOfABlockThatMoved) {
  const auto scenario = [&](TestFile& f, int times) {
    f.write(0, blocks(8), 1);
    f.flush();
    f.evictAll();
    auto left = std::make_shared<int>(times);
    SyncPoints::instance().call("read.after_begin", [&f, left] {
      if (--*left >= 0) f.relocate(3);
    });
    return f.read(0, blocks(8)) == f.model;
  };
  for (int times : {1, 2, 3}) {
    TestFile file(GetParam());
    EXPECT_TRUE(scenario(file, times));
    EXPECT_EQ(file.counters.staleRead, static_cast<unsigned>(times));
    EXPECT_EQ(file.counters.cachedReads, times == 1 ? 0u : 1u)
        << "the third time under the folio lock";
    SyncPoints::instance().reset();
    ScopedMutant mutant("iomap.read_without_cookie");
    TestFile without(GetParam());
    EXPECT_FALSE(scenario(without, times));
    SyncPoints::instance().reset();
  }
}

TEST_P(StaleIomapTest, TruncateWaitsForAReadPastTheCache) {
  TestFile file(GetParam());
  file.write(0, blocks(8), 1);
  file.flush();
  file.evictAll();
  const auto before = file.model;
  SyncPoints& sync = SyncPoints::instance();
  sync.park("read.after_begin");
  sync.count("truncate.after_cache_drop");
  std::vector<std::byte> bytes;
  std::thread reader([&] { bytes = file.read(0, blocks(8)); });
  ASSERT_TRUE(sync.awaitParked("read.after_begin"));
  std::thread truncate([&] { EXPECT_EQ(file.truncate(0), 0); });
  EXPECT_FALSE(file.mapping.invalidateLock.try_lock());
  EXPECT_EQ(sync.hits("truncate.after_cache_drop"), 0u);
  sync.release("read.after_begin");
  reader.join();
  truncate.join();
  EXPECT_EQ(bytes, before);
  EXPECT_EQ(file.space.used(), 0u);
}

// zero range: "not written, so zero" is false under a busy folio.
TEST_P(StaleIomapTest, ZeroRangeZeroesWhatIsDirtyOverUnwrittenSpace) {
  const auto scenario = [&](TestFile& f) {
    f.truncate(blocks(32));
    f.preallocate(0, blocks(16));
    f.write(blocks(3) + 5, blocks(2), 1);   // over Unwritten
    f.write(blocks(20) + 5, blocks(2), 2);  // over Delalloc
    f.write(blocks(9) + 5, 10, 3);
    f.submit(indexOf(9));  // in writeback
    f.zero(100, blocks(30));
    while (f.ioend()) {
    }
  };
  TestFile file(GetParam());
  EXPECT_EQ(run(file, scenario), "");
  EXPECT_NE(runMutant(scenario, "iomap.zero_skips_dirty_scan"), "");
}

TEST_P(StaleIomapTest, ZeroRangeLooksAgainWhenTheMapChangedUnderItsScan) {
  for (const char* when : {"begin", "scan"}) {
    const auto scenario = [&](TestFile& f) {
      f.truncate(blocks(32));
      f.preallocate(0, blocks(32));
      f.write(blocks(8) + 5, 100, 1);
      bool struck = false;
      const auto strike = [&] {
        if (!std::exchange(struck, true)) f.cleanOut(indexOf(8));
      };
      if (when == std::string("begin")) {
        f.ops.afterBegin = [&](const Iomap&, IomapIntent) { strike(); };
      } else {
        SyncPoints::instance().call("zero.after_dirty_scan", strike);
      }
      f.zero(100, blocks(30));
      f.ops.afterBegin = nullptr;
    };
    TestFile file(GetParam());
    EXPECT_EQ(run(file, scenario), "") << when;
    EXPECT_EQ(file.counters.staleWrite, 1u) << when;
    if (when == std::string("begin")) {
      EXPECT_NE(runMutant(scenario, "iomap.no_validation"), "");
    }
  }
}

TEST_P(StaleIomapTest, ZeroRangeEndsThoughEveryValidationFails) {
  TestFile file(GetParam());
  file.truncate(blocks(16));
  file.preallocate(0, blocks(8));
  file.write(blocks(3) + 5, 100, 1);
  int bumps = 0;
  SyncPoints::instance().call("zero.after_dirty_scan", [&] {
    if (++bumps < 1000) file.bump();
  });
  EXPECT_EQ(file.zero(100, blocks(15)), 0);
  EXPECT_LT(bumps, 1000);
  EXPECT_GE(file.counters.lockFirst, 1u);
  SyncPoints::instance().reset();
  EXPECT_EQ(file.verify(), "");
}

}  // namespace
}  // namespace ourfs
