#include "iomap/page_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <thread>

#include "random_seed.h"

namespace ourfs {
namespace {

class PageCacheTest : public ::testing::Test {
 protected:
  LockedFolio dirtyFolio(uint64_t index, uint32_t from = 0, uint32_t to = 4096) {
    LockedFolio folio = cache_.lockOrCreate(index);
    for (uint32_t b = 0; b < folio->blocks(); ++b) folio->setUptodate(b);
    cache_.markDirty(folio, from, to);
    return folio;
  }
  FolioPool pool_{4096, ByteCount(1 * MiB)};
  PageCache cache_{pool_, 1024};
};

TEST_F(PageCacheTest, AFolioIsCreatedOnceAndFoundAgain) {
  EXPECT_FALSE(cache_.lock(7));
  Folio* made = &*cache_.lockOrCreate(7);
  EXPECT_EQ(&*cache_.lock(7), made);
  EXPECT_EQ(&*cache_.lockOrCreate(7), made);
  EXPECT_EQ(cache_.folios(), 1u);
  EXPECT_EQ(pool_.used(), ByteCount(4096));
  EXPECT_EQ(made->blocks(), 4u);
}

TEST_F(PageCacheTest, TryLockGivesUpOnALockedFolio) {
  LockedFolio held = cache_.lockOrCreate(3);
  std::thread([&] { EXPECT_FALSE(cache_.tryLock(3)); }).join();
  held.unlock();
  EXPECT_TRUE(cache_.tryLock(3));
}

TEST_F(PageCacheTest, DirtyBlocksAreTheOnesThatWereTouched) {
  LockedFolio folio = dirtyFolio(0, 1000, 2049);
  EXPECT_TRUE(folio->dirty(0) && folio->dirty(1) && folio->dirty(2));
  EXPECT_FALSE(folio->dirty(3));
  EXPECT_EQ(pool_.dirty, 4096u);
  EXPECT_EQ(cache_.dirtyFolios(), 1u);
  cache_.clearDirty(folio, 0, 2);
  EXPECT_TRUE(folio->anyDirty());
  cache_.clearDirty(folio, 2, 4);
  EXPECT_FALSE(folio->anyDirty());
  EXPECT_EQ(pool_.dirty, 0u);
}

TEST_F(PageCacheTest, OnlyACleanFolioOutsideWritebackIsEvicted) {
  LockedFolio folio = dirtyFolio(5);
  EXPECT_FALSE(cache_.evict(std::move(folio)));
  folio = cache_.lock(5);
  cache_.startWriteback(folio, 0, 4);
  std::shared_ptr<Folio> inFlight = folio.share();
  EXPECT_EQ(pool_.writeback, 4096u);
  EXPECT_EQ(pool_.dirty, 0u);
  EXPECT_FALSE(cache_.evict(std::move(folio)));
  cache_.endWriteback(*inFlight);
  EXPECT_TRUE(cache_.evict(cache_.lock(5)));
  EXPECT_FALSE(cache_.lock(5));
  EXPECT_EQ(pool_.writeback, 0u);
}

TEST_F(PageCacheTest, WhoWaitedForAFolioThatWasEvictedGetsTheNewOne) {
  LockedFolio old = cache_.lockOrCreate(1);
  std::thread waiter([&] {
    LockedFolio found = cache_.lockOrCreate(1);
    EXPECT_FALSE(found->uptodate(0));
  });
  old->setUptodate(0);
  EXPECT_TRUE(cache_.evict(std::move(old)));
  waiter.join();
  EXPECT_EQ(cache_.folios(), 1u);
}

TEST_F(PageCacheTest, WaitWritebackReturnsWhenTheIoEnds) {
  LockedFolio folio = dirtyFolio(2);
  cache_.startWriteback(folio, 0, 4);
  std::thread ioend([&, same = folio.share()] { cache_.endWriteback(*same); });
  EXPECT_TRUE(cache_.waitWriteback(folio));
  EXPECT_FALSE(folio->inWriteback());
  folio.unlock();
  ioend.join();
  cache_.waitWriteback(FileOffset(0), FileOffset(1 * MiB));
}

TEST_F(PageCacheTest, WaitWritebackSaysThatTheFolioLeft) {
  LockedFolio folio = dirtyFolio(2);
  cache_.startWriteback(folio, 0, 4);
  std::thread ioend([&, same = folio.share()] {
    LockedFolio locked = cache_.lock(2);  // when the waiter has let go
    cache_.endWriteback(*same);
    cache_.discard(std::move(locked));
  });
  EXPECT_FALSE(cache_.waitWriteback(folio));
  EXPECT_FALSE(folio);
  ioend.join();
}

TEST_F(PageCacheTest, TheReferenceBitGivesOneSecondChance) {
  cache_.lockOrCreate(0).unlock();
  LockedFolio folio = cache_.tryLock(0);
  EXPECT_TRUE(folio->testAndClearReferenced());
  EXPECT_FALSE(folio->testAndClearReferenced());
}

TEST_F(PageCacheTest, RandomTagsAgreeWithSets) {
  test::Random random(test::randomSeed("PageCache"));
  std::set<uint64_t> cached, dirty, writeback;
  const auto next = [](const std::set<uint64_t>& s, uint64_t from, uint64_t to) {
    auto it = s.lower_bound(from);
    return it != s.end() && *it < to ? std::optional(*it) : std::nullopt;
  };
  for (int step = 0; step < 50000; ++step) {
    const uint64_t index = random.oneIn(20) ? (uint64_t{1} << 50) - 1 : random.below(300);
    LockedFolio folio = cache_.lock(index);
    ASSERT_EQ(bool(folio), cached.contains(index));
    switch (random.below(5)) {
      case 0:
        folio.unlock();
        dirtyFolio(index);
        cached.insert(index), dirty.insert(index);
        break;
      case 1:
        if (!dirty.contains(index) || writeback.contains(index)) break;
        cache_.startWriteback(folio, 0, 4);
        dirty.erase(index), writeback.insert(index);
        break;
      case 2:
        if (!writeback.erase(index)) break;
        cache_.endWriteback(*folio);
        break;
      case 3:
        if (!folio) break;
        if (cache_.evict(std::move(folio))) {
          ASSERT_FALSE(dirty.contains(index) || writeback.contains(index));
          cached.erase(index);
        }
        break;
      default:
        if (!folio || writeback.contains(index)) break;
        cache_.discard(std::move(folio));
        cached.erase(index), dirty.erase(index);
        break;
    }
    folio.unlock();
    const uint64_t from = random.below(320), to = from + random.below(320);
    ASSERT_EQ(cache_.nextCached(from, to), next(cached, from, to));
    ASSERT_EQ(cache_.nextDirty(from, to), next(dirty, from, to));
    ASSERT_EQ(cache_.anyDirtyOrWriteback(FileOffset(from * 4096), FileOffset(to * 4096)),
              next(dirty, from, to) || next(writeback, from, to));
    ASSERT_EQ(cache_.folios(), cached.size());
    ASSERT_EQ(pool_.dirty, dirty.size() * 4096);
    ASSERT_EQ(pool_.writeback, writeback.size() * 4096);
    ASSERT_EQ(pool_.used(), ByteCount(cached.size() * 4096));
  }
  for (uint64_t index : writeback) cache_.endWriteback(*cache_.lock(index));
}

TEST(FolioPoolTest, FreedMemoryIsUsedAgainAlsoAfterTrim) {
  FolioPool pool(16 * KiB, ByteCount(1 * MiB));
  std::set<std::byte*> first;
  for (int i = 0; i < 200; ++i) {
    std::byte* memory = pool.allocate();
    std::memset(memory, i, 16 * KiB);
    EXPECT_TRUE(isAligned(reinterpret_cast<uintptr_t>(memory), 4096));
    EXPECT_TRUE(first.insert(memory).second);
  }
  EXPECT_EQ(pool.used(), ByteCount(200 * 16 * KiB));
  for (std::byte* memory : first) pool.free(memory);
  pool.trim(10);
  for (int i = 0; i < 200; ++i) {
    std::byte* memory = pool.allocate();
    std::memset(memory, 1, 16 * KiB);
    EXPECT_TRUE(first.contains(memory));
  }
  for (std::byte* memory : first) pool.free(memory);
  EXPECT_EQ(pool.used(), ByteCount(0));
}

}  // namespace
}  // namespace ourfs
