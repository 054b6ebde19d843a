// Direct writes against the page cache: what is cached goes before and after, stores that come
// meanwhile lose nothing in silence, and a reader sees the file before or after.
#include <gtest/gtest.h>

#include <thread>

#include "iomap/test_file.h"

namespace ourfs {
namespace {

using test::callOnce;
using test::TestFile;

class DirectBase : public ::testing::TestWithParam<uint32_t> {
 protected:
  ~DirectBase() override { SyncPoints::instance().reset(); }
  static uint64_t blocks(uint64_t n) { return n * GetParam(); }
};
using DirectTest = DirectBase;
INSTANTIATE_TEST_SUITE_P(Blocks, DirectTest, ::testing::Values(1024, 4096, 16384, 65536),
                         [](const auto& p) { return std::to_string(p.param / 1024) + "K"; });

TEST_P(DirectTest, WhatIsDirtyIsWrittenAndDroppedBeforeADirectWrite) {
  const auto replacesWhatIsDirty = [] {
    TestFile file(GetParam());
    ErrSeq::Cursor cursor = file.mapping.errors.sample();
    file.write(10, blocks(8), 1);
    EXPECT_EQ(file.direct(blocks(2), blocks(4), 2), static_cast<int64_t>(blocks(4)));
    return file.verify().empty() && file.mapping.errors.checkAndAdvance(cursor) == 0;
  };
  EXPECT_TRUE(replacesWhatIsDirty());
  ScopedMutant mutant("iomap.direct_no_drop_before");
  EXPECT_FALSE(replacesWhatIsDirty());
}

// Blocks up to the kernel's page: reads and stores go on during a write over data, under the shared
// lock. With larger ones, or if the write fills space or makes the file longer, they wait for its
// end.
class DirectSharedTest : public DirectBase {
 protected:
  static constexpr uint64_t kPage = 4096;
  // Between the map of a direct write and its I/O, a reader makes a folio: its maps go stale twice.
  static void readIntoAFolioBeforeTheIo(TestFile& file) {
    auto bumps = std::make_shared<int>(2);
    SyncPoints::instance().call("read.after_begin", [&file, bumps] {
      if (--*bumps >= 0) file.bump();
    });
    auto struck = std::make_shared<bool>(false);
    file.ops.afterBegin = [&file, struck](const Iomap&, IomapIntent intent) {
      if (intent != IomapIntent::DirectWrite || std::exchange(*struck, true)) return;
      std::thread([&file] { (void)file.read(0, kPage); }).join();
    };
  }
  static bool oneWhole(const std::vector<std::byte>& got, const std::vector<std::byte>& before,
                       const std::vector<std::byte>& after) {
    return got == before || got == after;
  }

  static bool readsAreNewAfterADirectWrite() {
    TestFile file(GetParam());
    file.write(0, 2 * kPage, 1);
    file.flush();
    file.evictAll();
    readIntoAFolioBeforeTheIo(file);
    EXPECT_EQ(file.direct(0, kPage, 2), static_cast<int64_t>(kPage));
    EXPECT_EQ(file.counters.cachedReads, 1u) << "a folio came in between";
    file.ops.afterBegin = nullptr;
    return file.verify().empty();
  }
  // A direct write makes a file longer whose old tail is in a folio. It keeps readers out for that
  // time; the order of its steps is right without that, too.
  static bool readersSeeTheOldFileOrTheNew() {
    ScopedMutant shared("iomap.direct_grows_shared");
    TestFile file(GetParam());
    file.write(0, kPage - 100, 1);
    file.flush();
    file.evictAll();
    const auto before = file.model;
    readIntoAFolioBeforeTheIo(file);
    std::vector<std::byte> got;
    callOnce("direct.after_end_io", [&] { got = file.read(0, kPage); });
    EXPECT_EQ(file.direct(0, kPage, 2), static_cast<int64_t>(kPage));
    EXPECT_EQ(file.counters.cachedReads, 2u);
    file.ops.afterBegin = nullptr;
    EXPECT_EQ(file.verify(), "");
    return oneWhole(got, before, file.model);
  }
  // A page of the kernel's writeback cache, further out, comes while a direct write goes over the
  // end of the file.
  static std::string storeBehindADirectWriteThatGrows() {
    TestFile file(GetParam());
    file.write(0, 2 * kPage - 100, 1);
    file.flush();
    file.evictAll();
    std::thread store;
    callOnce("direct.after_end_io", [&] {
      store = std::thread([&] { EXPECT_EQ(file.cacheWrite(5 * kPage, kPage, 2), kPage); });
      // With the rule it waits for the end of the write.
      if (mutantEnabled("iomap.direct_grows_shared")) store.join();
    });
    const std::vector<std::byte> bytes = test::pattern(3, kPage);
    {
      ExclusiveLock inode(file.inodeLock);
      EXPECT_TRUE(
          directWrite(file.mapping, file.io, file.hooks(), FileOffset(kPage), bytes).isOk());
    }
    if (store.joinable()) store.join();
    std::copy(bytes.begin(), bytes.end(), file.model.begin() + kPage);
    return file.verify();
  }
  static bool lostOverwriteIsTold() {
    TestFile file(GetParam());
    file.write(0, 2 * kPage, 1);
    file.flush();
    file.evictAll();
    ErrSeq::Cursor cursor = file.mapping.errors.sample();
    callOnce("direct.after_end_io", [&] { file.mmapStore(0, kPage, 2); });
    EXPECT_EQ(file.direct(0, kPage, 3), static_cast<int64_t>(kPage));
    return file.mapping.errors.checkAndAdvance(cursor) == EIO;
  }
  // A store comes to space that a direct write has allocated and then fails to convert; without the
  // rule it is dirty by then, or on its way to the disk.
  static std::string storeBesideADirectWriteThatFails(bool submitted) {
    TestFile file(GetParam());
    file.truncate(4 * kPage);
    auto& sync = SyncPoints::instance();
    std::thread store;
    callOnce("test.convert", [&] {
      store = std::thread([&] { file.mmapStore(kPage, kPage, 1); });
      if (!mutantEnabled("iomap.direct_fills_shared")) return;
      store.join();
      EXPECT_TRUE(!submitted || file.submit(1));
    });
    sync.forceError("test.convert", EIO);
    sync.call("folio.before_wait", [&] { file.ioend(); });
    EXPECT_EQ(file.direct(0, 4 * kPage, 2), -EIO);
    if (store.joinable()) store.join();
    return file.verify();
  }
};
INSTANTIATE_TEST_SUITE_P(Blocks, DirectSharedTest, ::testing::Values(1024, 4096),
                         [](const auto& p) { return std::to_string(p.param / 1024) + "K"; });

TEST_P(DirectSharedTest, WhatWasCachedDuringADirectWriteIsDroppedAfterIt) {
  EXPECT_TRUE(readsAreNewAfterADirectWrite());
  ScopedMutant mutant("iomap.direct_no_drop_after");
  EXPECT_FALSE(readsAreNewAfterADirectWrite());
}

TEST_P(DirectSharedTest, TheSizeGrowsOnlyAfterTheOldTailIsGone) {
  EXPECT_TRUE(readersSeeTheOldFileOrTheNew());
  ScopedMutant mutant("iomap.direct_size_first");
  EXPECT_FALSE(readersSeeTheOldFileOrTheNew());
}

TEST_P(DirectSharedTest, AStoreFurtherOutWaitsForADirectWriteThatGrowsTheFile) {
  EXPECT_EQ(storeBehindADirectWriteThatGrows(), "");
  ScopedMutant mutant("iomap.direct_grows_shared");
  EXPECT_NE(storeBehindADirectWriteThatGrows(), "");
}

TEST_P(DirectSharedTest, AFolioThatStaysIsToldByTheNextFsync) {
  EXPECT_TRUE(lostOverwriteIsTold());
  ScopedMutant mutant("iomap.direct_drop_untold");
  EXPECT_FALSE(lostOverwriteIsTold());
}

TEST_P(DirectSharedTest, AStoreWaitsForADirectWriteThatFillsSpace) {
  for (const bool submitted : {false, true}) {
    EXPECT_EQ(storeBesideADirectWriteThatFails(submitted), "") << submitted;
    ScopedMutant mutant("iomap.direct_fills_shared");
    EXPECT_NE(storeBesideADirectWriteThatFails(submitted), "") << submitted;
  }
}

}  // namespace
}  // namespace ourfs
