// Directory: names, buckets and cookies, on a real index.
#include "../../fs/src/directory.h"

#include "filesystem_fixture.h"
#include "random_seed.h"

namespace ourfs::test {
namespace {

constexpr InodeNo kDir{4711};

class DirectoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    device_ = MemoryDevice::create(ByteCount(64 * MiB));
    ASSERT_TRUE(formatVolume(*device_, FormatOptions()).isOk());
    auto volume = Volume::open(*device_, OpenOptions());
    ASSERT_TRUE(volume.isOk()) << volume.status().message();
    volume_ = std::move(*volume);
  }
  void TearDown() override { SyncPoints::instance().reset(); }

  Directory names() { return {volume_->index(), volume_->superblock().nameKey, kDir}; }
  void commit(const Directory& directory) {
    Transaction t;
    directory.emit(t);
    auto room = volume_->log().reserve(kNamespaceRoom);
    ASSERT_TRUE(room.isOk());
    ASSERT_TRUE(volume_->log().commit(std::move(t), std::move(*room)).isOk());
  }
  uint64_t add(std::string_view name, uint64_t ino) {
    Directory d = names();
    auto cookie = d.insert(name, InodeNo(ino), DT_REG);
    EXPECT_TRUE(cookie.isOk());
    commit(d);
    return cookie.isOk() ? *cookie : 0;
  }
  int remove(std::string_view name) {
    Directory d = names();
    Status removed = d.remove(name);
    commit(d);
    return removed.errnum();
  }
  uint64_t inoOf(std::string_view name) {
    auto found = names().find(name);
    EXPECT_TRUE(found.isOk());
    return found.isOk() && *found ? (*found)->ino.v : 0;
  }
  // The raw slots of the directory, by cookie.
  std::map<uint64_t, DirentRecord> slots() {
    std::map<uint64_t, DirentRecord> all;
    std::string prefix = direntPrefix(kDir);
    EXPECT_TRUE(volume_->index()
                    .scan(prefix, prefixEnd(prefix),
                          [&](auto key, auto value) {
                            all[parseKey(key)->number] = *decodeDirent(value);
                            return true;
                          })
                    .isOk());
    return all;
  }
  // No gap, `more` on all but the last, and the last is a name.
  void expectBucketsWellFormed() {
    auto all = slots();
    for (const auto& [cookie, record] : all) {
      const uint64_t slot = cookie % kSlotsPerBucket;
      if (slot > 0) {
        EXPECT_TRUE(all.contains(cookie - 1)) << "gap before " << cookie;
      }
      EXPECT_EQ(record.more, all.contains(cookie + 1)) << cookie;
      if (!record.more) {
        EXPECT_EQ(record.kind, DirentKind::Entry) << cookie;
      }
    }
  }

  std::unique_ptr<MemoryDevice> device_;
  std::unique_ptr<Volume> volume_;
};

TEST_F(DirectoryTest, ANameIsFoundUntilItIsRemoved) {
  EXPECT_EQ(inoOf("a"), 0u);
  const uint64_t cookie = add("a", 10);
  EXPECT_GE(cookie, kFirstCookie);
  EXPECT_EQ(inoOf("a"), 10u);
  EXPECT_EQ(remove("a"), 0);
  EXPECT_EQ(inoOf("a"), 0u);
  EXPECT_EQ(remove("a"), ENOENT);
  EXPECT_TRUE(slots().empty());
}

TEST_F(DirectoryTest, ReplaceKeepsTheCookie) {
  const uint64_t cookie = add("a", 10);
  Directory d = names();
  ASSERT_TRUE(d.replace("a", InodeNo(11), DT_DIR).isOk());
  EXPECT_EQ(d.replace("b", InodeNo(11), DT_DIR).errnum(), ENOENT);
  commit(d);
  auto found = names().find("a");
  ASSERT_TRUE(found.isOk() && *found);
  EXPECT_EQ((*found)->cookie, cookie);
  EXPECT_EQ((*found)->ino, InodeNo(11));
  EXPECT_EQ((*found)->type, DT_DIR);
}

TEST_F(DirectoryTest, NamesMayBe255BytesOfAnything) {
  std::string a(255, '\xff'), b(255, '\xff');
  b.back() = '\x01';
  add(a, 1);
  add(b, 2);
  EXPECT_EQ(inoOf(a), 1u);
  EXPECT_EQ(inoOf(b), 2u);
}

class CollisionTest : public DirectoryTest {
 protected:
  void SetUp() override {
    DirectoryTest::SetUp();
    SyncPoints::instance().setMutant("directory.few_buckets", true);
    // Names of one bucket.
    const uint64_t bucket = bucketOf("0", volume_->superblock().nameKey);
    for (int i = 0; together_.size() < 6; ++i) {
      std::string name = std::to_string(i);
      if (bucketOf(name, volume_->superblock().nameKey) == bucket) together_.push_back(name);
    }
  }
  std::vector<std::string> together_;
};

TEST_F(CollisionTest, ASlotInTheMiddleIsVacatedAndReused) {
  std::vector<uint64_t> cookies;
  for (size_t i = 0; i < 4; ++i) cookies.push_back(add(together_[i], 100 + i));
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(cookies[i], cookies[0] + i);
  EXPECT_EQ(remove(together_[1]), 0);
  EXPECT_EQ(slots().at(cookies[1]).kind, DirentKind::Vacated);
  expectBucketsWellFormed();
  EXPECT_EQ(inoOf(together_[3]), 103u);
  EXPECT_EQ(add(together_[4], 104), cookies[1]);
  EXPECT_EQ(add(together_[5], 105), cookies[0] + 4);
  expectBucketsWellFormed();
}

TEST_F(CollisionTest, RemovingTheLastTakesVacatedOnesBeforeItAlong) {
  for (size_t i = 0; i < 4; ++i) add(together_[i], 100 + i);
  for (size_t i : {1u, 2u, 3u}) EXPECT_EQ(remove(together_[i]), 0);
  EXPECT_EQ(slots().size(), 1u);
  EXPECT_FALSE(slots().begin()->second.more);
  EXPECT_EQ(remove(together_[0]), 0);
  EXPECT_TRUE(slots().empty());
}

TEST_F(CollisionTest, SeveralChangesOfOneBucketFitIntoOneTransaction) {
  for (size_t i = 0; i < 3; ++i) add(together_[i], 100 + i);
  Directory d = names();
  ASSERT_TRUE(d.remove(together_[0]).isOk());
  ASSERT_TRUE(d.insert(together_[3], InodeNo(103), DT_REG).isOk());
  ASSERT_TRUE(d.remove(together_[2]).isOk());
  commit(d);
  expectBucketsWellFormed();
  EXPECT_EQ(inoOf(together_[0]), 0u);
  EXPECT_EQ(inoOf(together_[1]), 101u);
  EXPECT_EQ(inoOf(together_[2]), 0u);
  EXPECT_EQ(inoOf(together_[3]), 103u);
}

TEST_F(CollisionTest, AFullBucketIsNoSpaceAndChangesNothing) {
  const SipKey& key = volume_->superblock().nameKey;
  Directory d = names();
  std::string extra;
  uint64_t inserted = 0;
  for (int i = 0; extra.empty(); ++i) {
    std::string name = "n" + std::to_string(i);
    if (bucketOf(name, key) != bucketOf("0", key)) continue;
    if (inserted == kSlotsPerBucket) {
      extra = name;
    } else {
      ASSERT_TRUE(d.insert(name, InodeNo(++inserted), DT_REG).isOk());
    }
  }
  EXPECT_EQ(d.insert(extra, InodeNo(1), DT_REG).errnum(), ENOSPC);
}

TEST_F(CollisionTest, RandomInsertsAndRemovalsAgreeWithAModel) {
  Random random(randomSeed("directory"));
  std::map<std::string, std::pair<uint64_t, uint64_t>> model;  // name -> cookie, ino
  for (uint64_t step = 1; step <= 1500; ++step) {
    std::string name = "f" + std::to_string(random.below(60));
    auto known = model.find(name);
    if (known == model.end()) {
      EXPECT_EQ(inoOf(name), 0u);
      model[name] = {add(name, step), step};
    } else if (random.oneIn(2)) {
      EXPECT_EQ(remove(name), 0);
      model.erase(known);
    } else {
      auto found = names().find(name);
      ASSERT_TRUE(found.isOk() && *found);
      EXPECT_EQ((*found)->cookie, known->second.first) << "cookies stay";
      EXPECT_EQ((*found)->ino.v, known->second.second);
    }
    if (step % 100 == 0) expectBucketsWellFormed();
  }
  std::map<std::string, uint64_t> expected, got;
  for (const auto& [name, entry] : model) expected[name] = entry.second;
  uint64_t from = 0;
  for (bool more = true; more;) {
    auto batch = names().read(from, 7);
    ASSERT_TRUE(batch.isOk());
    for (const Dirent& e : *batch) {
      EXPECT_GE(e.cookie, from);
      from = e.cookie + 1;
      EXPECT_TRUE(got.emplace(e.name, e.ino.v).second) << e.name << " twice";
    }
    more = batch->size() == 7;
  }
  EXPECT_EQ(got, expected);
}

}  // namespace
}  // namespace ourfs::test
