// The races that the cookie is for, with the real writeback and the real reclaim; and everything at
// once.
#include <deque>
#include <thread>

#include "random_seed.h"
#include "writeback_fixture.h"

namespace ourfs::test {
namespace {

std::span<const std::byte> bytesOf(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

// One large Unwritten extent. A small write fills the second half of folio 5. A second writer has
// its map, for folios 0 to 5, and is on its way to the first half of folio 5.
class StaleWriterTest : public WritebackFixture {
 protected:
  void SetUp() override {
    VolumeOptions o;
    o.cacheLimit = ByteCount(64 * KiB);
    start(o);
    volume->preallocate(*file, MiB);
  }
  void smallWrite() {
    IoContext io = volume->io();
    ASSERT_TRUE(bufferedWrite(*file, io, FileOffset(5 * 4096 + 2048), bytesOf(small_)).isOk());
    writeback->dirtied(file);
  }
  std::thread largeWriter() {
    SyncPoints::instance().park("write.before_folio_lock");
    std::thread writer([this] {
      IoContext io = volume->io();
      const auto done = bufferedWrite(*file, io, FileOffset(0), bytesOf(large_));
      EXPECT_TRUE(done.isOk() && done->v == large_.size())
          << done.status().message() << (done.isOk() ? done->v : 0);
    });
    EXPECT_TRUE(SyncPoints::instance().awaitParked("write.before_folio_lock"));
    return writer;
  }
  void letWriterGo(std::thread& writer) {
    SyncPoints::instance().release("write.before_folio_lock");
    writer.join();
    writeback->dirtied(file);
  }
  bool nothingLost() {
    EXPECT_TRUE(flush().isOk());
    return volume->onDisk(*file).substr(0, 6 * 4096) == large_ + small_;
  }
  // The I/O of folio 5 stands before its conversion while the writer goes on.
  void writerDuringIoend() {
    smallWrite();
    std::thread writer = largeWriter();
    SyncPoints::instance().park("ioend.before_convert");
    std::thread flusher([this] { EXPECT_TRUE(flush().isOk()); });
    ASSERT_TRUE(SyncPoints::instance().awaitParked("ioend.before_convert"));
    writeback->reclaim(ByteCount(64 * KiB));
    letWriterGo(writer);
    SyncPoints::instance().release("ioend.before_convert");
    flusher.join();
  }
  const std::string small_ = pattern(1, 2048), large_ = pattern(2, 5 * 4096 + 2048);
};

TEST_F(StaleWriterTest, WrittenConvertedAndEvictedMeanwhileMustBeRead) {
  smallWrite();
  std::thread writer = largeWriter();
  ASSERT_TRUE(flush().isOk());
  writeback->reclaim(ByteCount(64 * KiB));
  ASSERT_EQ(file->pages.folios(), 0u);
  letWriterGo(writer);
  EXPECT_TRUE(nothingLost());
  EXPECT_GE(volume->counters.staleWrite, 1u);
  EXPECT_EQ(volume->counters.filledByRead, 1u);
  expectSound();
}
TEST_F(StaleWriterTest, AFolioBeforeItsConversionCannotBeEvicted) {
  writerDuringIoend();
  EXPECT_TRUE(nothingLost());
  EXPECT_EQ(volume->counters.foliosReclaimed, 0u);
  expectSound();
}
TEST_F(StaleWriterTest, MutantEndBeforeConvertLosesData) {
  {
    ScopedMutant mutant("writeback.end_before_convert");
    writerDuringIoend();
  }
  EXPECT_FALSE(nothingLost());
}
TEST_F(StaleWriterTest, MutantPublishMappedEarlyShowsForeignBytesAfterACrash) {
  ScopedMutant mutant("writeback.publish_mapped_early");
  smallWrite();
  const int rule = volume->holdWrites();
  std::thread flusher([this] { EXPECT_TRUE(flush().isOk()); });
  volume->waitForHeld(1);
  // What a crash now would leave: the extent says Mapped, the block holds what nobody wrote.
  EXPECT_EQ(volume->extentAt(*file, 5 * 4096).state, ExtentState::Mapped);
  EXPECT_EQ(volume->onDisk(*file)[5 * 4096], '\xEE');
  volume->fault->removeRule(rule);
  flusher.join();
}
TEST_F(StaleWriterTest, WithoutTheMutantACrashShowsZeros) {
  smallWrite();
  const int rule = volume->holdWrites();
  std::thread flusher([this] { EXPECT_TRUE(flush().isOk()); });
  volume->waitForHeld(1);
  EXPECT_EQ(volume->extentAt(*file, 5 * 4096).state, ExtentState::Unwritten);
  EXPECT_EQ(volume->onDisk(*file)[5 * 4096], '\0');
  volume->fault->removeRule(rule);
  flusher.join();
}

// --- everything at once ---

struct ModelFile {
  std::mutex inode;
  std::shared_ptr<Mapping> mapping;
  std::string model;
};

class StressTest : public WritebackFixture, public ::testing::WithParamInterface<uint32_t> {
 protected:
  static constexpr uint64_t kMaxSize = 600000;

  void step(Random& random) {
    ModelFile& f = files_[random.below(files_.size())];
    std::lock_guard inode(f.inode);
    switch (random.below(8)) {
      case 0:
        return truncate(f, random);
      case 1:
        return punch(f, random);
      case 2:
        return compare(f);
      case 3: {
        const uint64_t from = random.below(kMaxSize);
        EXPECT_TRUE(
            writeback->flush(f.mapping, FileOffset(from), FileOffset(from + 100000)).isOk());
        return;
      }
      default:
        return overwrite(f, random);
    }
  }
  void overwrite(ModelFile& f, Random& random) {
    const uint64_t pos = random.below(kMaxSize), length = 1 + random.below(1u << random.below(17));
    const std::string data = pattern(random.below(UINT64_MAX), length);
    writeback->throttle(ByteCount(length));
    if (random.oneIn(2)) {
      ASSERT_TRUE(volume->store(*f.mapping, pos, data).isOk());
    } else {
      IoContext io = volume->io();
      const auto done = bufferedWrite(*f.mapping, io, FileOffset(pos), bytesOf(data));
      ASSERT_TRUE(done.isOk() && done->v == length)
          << done.status().message() << (done.isOk() ? done->v : 0) << " of " << length;
    }
    writeback->dirtied(f.mapping);
    if (f.model.size() < pos + length) f.model.resize(pos + length);
    f.model.replace(pos, length, data);
  }
  void truncate(ModelFile& f, Random& random) {
    const uint64_t size = random.below(kMaxSize);
    volume->truncate(*f.mapping, size);
    writeback->dirtied(f.mapping);
    f.model.resize(size);
  }
  void punch(ModelFile& f, Random& random) {
    const uint64_t unit = volume->pool.folioSize(), blocks = f.model.size() / unit;
    const uint64_t from = random.below(blocks + 1) * unit;
    const uint64_t to = std::min(blocks * unit, from + random.below(10) * unit);
    if (from >= to) return;
    volume->punch(*f.mapping, from, to);
    std::fill_n(f.model.begin() + static_cast<int64_t>(from), to - from, '\0');
  }
  void compare(ModelFile& f) {
    std::string got(f.model.size(), '?');
    IoContext io = volume->io();
    const auto read =
        readFile(*f.mapping, io, FileOffset(0), std::as_writable_bytes(std::span(got)));
    ASSERT_TRUE(read.isOk() && read->v == got.size());
    ASSERT_TRUE(got == f.model) << "inode " << f.mapping->ino.v << " differs at "
                                << std::mismatch(got.begin(), got.end(), f.model.begin()).first -
                                       got.begin();
  }
  std::deque<ModelFile> files_ = std::deque<ModelFile>(5);
};

TEST_P(StressTest, WritersFlushersAndReclaimAgreeWithAModel) {
  const uint64_t seed = randomSeed("stress");
  VolumeOptions o;
  o.blockSize = GetParam();
  o.largestPiece = 5;
  o.cacheLimit = ByteCount(2 * MiB);
  o.reservations = 3;
  o.recording = false;
  WritebackOptions w;
  w.expire = w.interval = std::chrono::milliseconds(2);
  w.threads = 2;
  w.ioSize = ByteCount(64 * KiB);
  w.maxInFlight = 4;
  start(o, w);
  for (ModelFile& f : files_) f.mapping = volume->newFile();
  std::atomic<bool> stop{false};
  std::thread reclaimer([&] {
    while (!stop) writeback->reclaim(ByteCount(MiB));
  });
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      Random random(seed + t);
      for (int i = 0; i < 400 && !HasFatalFailure(); ++i) step(random);
    });
  }
  for (auto& t : threads) t.join();
  stop = true;
  reclaimer.join();
  ASSERT_TRUE(writeback->flushAll().isOk());
  uint64_t used = 1;  // block 0
  for (ModelFile& f : files_) {
    compare(f);
    EXPECT_TRUE(volume->onDisk(*f.mapping) == f.model) << "inode " << f.mapping->ino.v;
    EXPECT_EQ(f.mapping->storedSize, f.model.size());
    for (const Extent& e : volume->extents(*f.mapping)) used += e.length.v / o.blockSize;
    writeback->forget(f.mapping);
  }
  EXPECT_EQ(volume->freeBlocks() + used, o.size.v / o.blockSize);
  expectSound();
}

INSTANTIATE_TEST_SUITE_P(BlockSizes, StressTest, ::testing::Values(1024, 4096, 16384));

}  // namespace
}  // namespace ourfs::test
