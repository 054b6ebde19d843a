// The index against power loss: what opens is a prefix of what was applied, at least what a flush
// has acknowledged, at most what the journal had made durable.
#include <map>

#include "../../index/src/index_file_system.h"
#include "crash_points.h"
#include "index_fixture.h"
#include "mutant.h"
#include "rounds.h"

namespace ourfs {
namespace {

using namespace test;

constexpr uint64_t kKeys = 400;
constexpr uint64_t kValue = 60;

// Batch n, for n = 1, 2, …: the same on every run with the same seed.
IndexBatch batchAt(uint64_t seed, uint64_t n) {
  Random random(seed * 1'000'003 + n);
  IndexBatch batch;
  for (int i = 0; i < 4; ++i) {
    const std::string key = numberKey(random.below(kKeys));
    if (random.oneIn(5)) {
      batch.erase(key);
    } else {
      batch.put(key, std::to_string(n) + random.bytes(kValue));
    }
  }
  return batch;
}

using Contents = std::map<std::string, std::string>;

void applyTo(Contents& model, const IndexBatch& batch) {
  for (const IndexBatch::Change& c : batch.changes()) {
    if (c.isPut) {
      model[c.key] = c.value;
    } else {
      model.erase(c.key);
    }
  }
}

// A run of batches on a recorded device, with everything that was acknowledged and when.
class Recording {
 public:
  struct Known {
    uint64_t clock, position;
  };

  explicit Recording(uint64_t seed)
      : seed_(seed), volume_(geometryOf(32 * MiB)), recorder_(RecordDevice::wrap(*volume_.device)) {
    expectOk(volume_.format());
    base_ = volume_.device->clone();
  }

  // Several mounts of the same volume, each dropped without close.
  void work(int mounts, uint64_t batches) {
    for (int m = 0; m < mounts; ++m) {
      IndexOptions o = volume_.options();
      std::atomic<Index*> self = nullptr;
      o.beforePersist = [&] {
        if (self == nullptr) return Status::ok();
        const uint64_t position = self.load()->applied().end.v;
        MutexLock l(mu_);
        confirmed_.push_back({recorder_->mark(), position});
        return Status::ok();
      };
      auto index = Volume::openOn(*recorder_, std::move(o));
      ASSERT_NE(index, nullptr);
      self = index.get();
      next_ = index->applied().end.v + 1;
      // What the crash took is applied again, as replay does.
      ASSERT_OK(index->startBackground());
      for (uint64_t i = 0; i < batches; ++i, ++next_) {
        ASSERT_OK(commit(*index, batchAt(seed_, next_), next_));
        if (i % 1500 != 1499) continue;
        ASSERT_OK(index->flush());
        flushed_.push_back({recorder_->mark(), next_});
      }
    }
    end_ = recorder_->clock();
    log_ = recorder_->log();
  }

  uint64_t flushedAt(uint64_t clock) const { return latest(flushed_, clock, 0); }
  uint64_t confirmedAt(uint64_t clock) const { return latest(confirmed_, clock, 0); }
  std::unique_ptr<MemoryDevice> crash(uint64_t point, Random& random) const {
    return randomCrash(*base_, log_, point, random);
  }
  uint64_t end() const { return end_; }
  Volume& volume() { return volume_; }
  const Contents& modelAt(uint64_t position) {
    if (position < modelPosition_) model_.clear(), modelPosition_ = 0;
    while (modelPosition_ < position) applyTo(model_, batchAt(seed_, ++modelPosition_));
    return model_;
  }

 private:
  static uint64_t latest(const std::vector<Known>& list, uint64_t clock, uint64_t otherwise) {
    uint64_t value = otherwise;
    for (const Known& k : list) {
      if (k.clock <= clock) value = std::max(value, k.position);
    }
    return value;
  }

  const uint64_t seed_;
  Volume volume_;
  std::unique_ptr<RecordDevice> recorder_;
  std::unique_ptr<MemoryDevice> base_;
  std::vector<RecordedIo> log_;
  uint64_t next_ = 1, end_ = 0;
  Mutex mu_;
  std::vector<Known> confirmed_, flushed_;
  Contents model_;
  uint64_t modelPosition_ = 0;
};

// Every unit of every file that a durable table names is what was written there.
bool tableIsIntact(MemoryDevice& image, const IndexGeometry& geometry) {
  auto table = FileTable::load(image, geometry, true);
  EXPECT_TRUE(table.isOk()) << table.status().message();
  if (!table.isOk()) return false;
  auto pool = ChunkPool::build((*table)->pool(), (*table)->usedRuns());
  EXPECT_TRUE(pool.isOk()) << pool.status().message();
  FileContext context{image, geometry, **table, **pool, {}, {}};
  bool intact = true;
  IndexFileSystem(context, true).verify([&](const std::string&) { intact = false; }, nullptr);
  return intact;
}

// What opens on the image, or nothing if it does not; position and contents.
struct Opened {
  uint64_t position = 0;
  Contents contents;
};
std::optional<Opened> openImage(MemoryDevice& image, Recording& run) {
  IndexOptions o = run.volume().options();
  o.takeSpace = nullptr;
  auto index = Index::open(image, std::move(o));
  if (!index.isOk()) return {};
  Opened opened;
  opened.position = (*index)->applied().end.v;
  EXPECT_EQ((*index)->persisted()->end.v, opened.position);
  const Status scanned = (*index)->scan("I", "J", [&](std::string_view k, std::string_view v) {
    opened.contents.emplace(k, v);
    return true;
  });
  if (!scanned) return {};
  return opened;
}

class IndexCrashTest : public IndexTest {};

TEST_F(IndexCrashTest, AnyCrashLeavesAPrefixBetweenTheFlushedAndTheConfirmed) {
  Random random;
  SCOPED_TRACE(random.trace());
  Recording run(random.seed());
  run.work(3, 4000);
  if (HasFatalFailure()) return;
  std::set<uint64_t> positions;
  for (int i = 0; i < test::rounds(120); ++i) {
    const uint64_t point = random.below(run.end() + 1);
    auto image = run.crash(point, random);
    ASSERT_TRUE(tableIsIntact(*image, run.volume().geometry)) << "at " << point;
    const std::optional<Opened> opened = openImage(*image, run);
    ASSERT_TRUE(opened.has_value()) << "at " << point;
    ASSERT_GE(opened->position, run.flushedAt(point)) << "at " << point;
    ASSERT_LE(opened->position, run.confirmedAt(point)) << "at " << point;
    ASSERT_EQ(opened->contents, run.modelAt(opened->position)) << "at " << point;
    positions.insert(opened->position);
  }
  EXPECT_GT(positions.size(), 5u);
}

TEST_F(IndexCrashTest, WithoutTheHookTheIndexOutrunsTheJournal) {
  Random random;
  SCOPED_TRACE(random.trace());
  ScopedMutant mutant("index.no_persist_hook");
  Recording run(random.seed());
  run.work(1, 3000);
  if (HasFatalFailure()) return;
  auto image = run.crash(run.end(), random);
  const std::optional<Opened> opened = openImage(*image, run);
  ASSERT_TRUE(opened.has_value());
  EXPECT_GT(opened->position, run.confirmedAt(run.end()));
  reportCaught("index.no_persist_hook", 1, "the log comes first");
}

TEST_F(IndexCrashTest, BlocksReusedEarlyLeaveATableThatNamesForeignBlocks) {
  Random random;
  SCOPED_TRACE(random.trace());
  ScopedMutant mutant("index.reuse_freed_early");
  Recording run(random.seed());
  run.work(2, 6000);
  if (HasFatalFailure()) return;
  int broken = 0, states = 0;
  for (; states < 200 && broken == 0; ++states) {
    auto image = run.crash(random.below(run.end() + 1), random);
    if (!tableIsIntact(*image, run.volume().geometry)) ++broken;
  }
  EXPECT_GT(broken, 0);
  reportCaught("index.reuse_freed_early", states, "a durable table names its own blocks only");
}

// ---- the file system alone ----

class IndexFilesTest : public IndexTest {
 protected:
  IndexFilesTest() : volume_(geometryOf(32 * MiB)) {
    expectOk(FileTable::format(*volume_.device, volume_.geometry, volume_.pool));
    base_ = volume_.device->clone();
    recorder_ = RecordDevice::wrap(*volume_.device);
    table_ = std::move(FileTable::load(*recorder_, volume_.geometry, false)).value();
    pool_ = std::move(ChunkPool::build(table_->pool(), {})).value();
    context_.reset(new FileContext{*recorder_, volume_.geometry, *table_, *pool_, {}, {}});
    files_ = std::make_unique<IndexFileSystem>(*context_, false);
  }
  void syncNewFile(const std::string& name, const std::string& bytes) {
    std::unique_ptr<rocksdb::FSWritableFile> file;
    ASSERT_TRUE(files_->NewWritableFile("/index/" + name, {}, &file, nullptr).ok());
    ASSERT_TRUE(file->Append(bytes, {}, nullptr).ok());
    ASSERT_TRUE(file->Sync({}, nullptr).ok());
    ASSERT_TRUE(file->Close({}, nullptr).ok());
  }
  void syncDirectory() {
    std::unique_ptr<rocksdb::FSDirectory> directory;
    ASSERT_TRUE(files_->NewDirectory("/index", {}, &directory, nullptr).ok());
    ASSERT_TRUE(directory->Fsync({}, nullptr).ok());
  }
  std::string read(IndexFileSystem& files, const std::string& name) {
    std::unique_ptr<rocksdb::FSSequentialFile> file;
    if (!files.NewSequentialFile("/index/" + name, {}, &file, nullptr).ok()) return "(none)";
    std::string scratch(100'000, 0), all;
    rocksdb::Slice piece;
    do {
      if (!file->Read(scratch.size(), {}, &piece, scratch.data(), nullptr).ok()) return "(error)";
      all.append(piece.data(), piece.size());
    } while (!piece.empty());
    return all;
  }
  // What a mount finds after a crash now that took everything it could.
  std::string readAfterCrash(const std::string& name) {
    auto image = crashImage(*base_, recorder_->log(), recorder_->mark(),
                            [](size_t, size_t) { return false; });
    auto table = std::move(FileTable::load(*image, volume_.geometry, true)).value();
    FileContext context{*image, volume_.geometry, *table, *pool_, {}, {}};
    IndexFileSystem files(context, true);
    return read(files, name);
  }

  Volume volume_;
  std::unique_ptr<MemoryDevice> base_;
  std::unique_ptr<RecordDevice> recorder_;
  std::unique_ptr<FileTable> table_;
  std::unique_ptr<ChunkPool> pool_;
  std::unique_ptr<FileContext> context_;
  std::unique_ptr<IndexFileSystem> files_;
};

TEST_F(IndexFilesTest, ASyncedFileIsDurableWhenTheDirectorySyncReturns) {
  Random random;
  const std::string bytes = random.bytes(700'000);
  syncNewFile("000007.sst", bytes);
  EXPECT_EQ(readAfterCrash("000007.sst"), "(none)");
  syncDirectory();
  EXPECT_EQ(readAfterCrash("000007.sst"), bytes);
}

TEST_F(IndexFilesTest, AnEntryThatIsSyncedLateIsLost) {
  ScopedMutant mutant("index.entry_late");
  syncNewFile("000007.sst", "bytes");
  syncDirectory();
  EXPECT_EQ(readAfterCrash("000007.sst"), "(none)");
  reportCaught("index.entry_late", 1, "a synced file is there when its directory was synced");
}

TEST_F(IndexFilesTest, AManifestSyncIsDurableByItselfAndKeepsTheExactSize) {
  std::unique_ptr<rocksdb::FSWritableFile> file;
  ASSERT_TRUE(files_->NewWritableFile("/index/MANIFEST-000001", {}, &file, nullptr).ok());
  Random random;
  std::string all;
  for (int i = 0; i < 50; ++i) {
    const std::string piece = random.bytes(1 + random.below(9000));
    ASSERT_TRUE(file->Append(piece, {}, nullptr).ok());
    ASSERT_TRUE(file->Sync({}, nullptr).ok());
    all += piece;
    ASSERT_EQ(readAfterCrash("MANIFEST-000001"), all);
  }
  ASSERT_TRUE(file->Append("not synced", {}, nullptr).ok());
  EXPECT_EQ(readAfterCrash("MANIFEST-000001"), all);
}

TEST_F(IndexFilesTest, ARenameOverCurrentIsAtomicAndConfirmedFirst) {
  int hooks = 0;
  context_->beforePersist = [&] {
    ++hooks;
    return Status::ok();
  };
  syncNewFile("000001.dbtmp", "old");
  ASSERT_TRUE(files_->RenameFile("/index/000001.dbtmp", "/index/CURRENT", {}, nullptr).ok());
  syncDirectory();
  EXPECT_EQ(hooks, 1);
  syncNewFile("000002.dbtmp", "new");
  ASSERT_TRUE(files_->RenameFile("/index/000002.dbtmp", "/index/CURRENT", {}, nullptr).ok());
  EXPECT_EQ(readAfterCrash("CURRENT"), "old");
  syncDirectory();
  EXPECT_EQ(readAfterCrash("CURRENT"), "new");
  EXPECT_EQ(hooks, 2);
  context_->beforePersist = [] { return Status::error(EIO); };
  syncNewFile("000003.dbtmp", "never");
  EXPECT_FALSE(files_->RenameFile("/index/000003.dbtmp", "/index/CURRENT", {}, nullptr).ok());
  syncDirectory();
  EXPECT_EQ(readAfterCrash("CURRENT"), "new");
}

TEST_F(IndexFilesTest, LogsNeverReachTheDeviceAndOptionsAreRefused) {
  const size_t before = recorder_->log().size();
  syncNewFile("000004.log", std::string(100'000, 'x'));
  std::unique_ptr<rocksdb::FSWritableFile> options;
  EXPECT_FALSE(files_->NewWritableFile("/index/OPTIONS-000005.dbtmp", {}, &options, nullptr).ok());
  syncDirectory();
  EXPECT_EQ(recorder_->log().size(), before);
  EXPECT_EQ(read(*files_, "000004.log").size(), 100'000u);
}

TEST_F(IndexFilesTest, ReadsAtAnyOffsetAgree) {
  Random random;
  SCOPED_TRACE(random.trace());
  const std::string bytes = random.bytes(300'000);
  syncNewFile("000007.sst", bytes);
  std::unique_ptr<rocksdb::FSRandomAccessFile> file;
  ASSERT_TRUE(files_->NewRandomAccessFile("/index/000007.sst", {}, &file, nullptr).ok());
  std::string scratch(70'000, 0);
  for (int i = 0; i < 2000; ++i) {
    const size_t at = random.below(301'000), n = random.below(scratch.size());
    rocksdb::Slice got;
    ASSERT_TRUE(file->Read(at, n, {}, &got, scratch.data(), nullptr).ok());
    ASSERT_EQ(got.ToString(), at < bytes.size() ? bytes.substr(at, n) : "");
  }
}

}  // namespace
}  // namespace ourfs
