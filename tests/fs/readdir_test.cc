// Filesystem: reading directories, and cookies that stay.
#include "filesystem_fixture.h"
#include "random_seed.h"

namespace ourfs::test {
namespace {

class ReaddirTest : public FilesystemTest {
 protected:
  void TearDown() override {
    if (directory_) fs_->release(std::move(directory_));
    FilesystemTest::TearDown();
  }
  void openDir(InodeNo ino) {
    if (directory_) fs_->release(std::move(directory_));
    auto opened = fs_->openDirectory(ino);
    ASSERT_TRUE(opened.isOk());
    directory_ = std::move(*opened);
  }
  OpenFilePtr directory_;
};

TEST_F(ReaddirTest, DotAndDotDotComeFirst) {
  InodeNo d = dir(kRoot, "d"), e = dir(d, "e");
  openDir(e);
  auto found = list(*directory_, 0, 10);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].name, ".");
  EXPECT_EQ(found[0].ino, e);
  EXPECT_EQ(found[1].name, "..");
  EXPECT_EQ(found[1].ino, d);
  EXPECT_EQ(list(*directory_, found[0].next, 10).front().name, "..");
  EXPECT_TRUE(list(*directory_, found[1].next, 10).empty());
}

TEST_F(ReaddirTest, EveryStepSizeShowsEveryNameOnce) {
  std::set<std::string> expected;
  for (int i = 0; i < 700; ++i) {
    expected.insert("name" + std::to_string(i));
    file(kRoot, "name" + std::to_string(i));
  }
  openDir(kRoot);
  for (size_t step : {1u, 7u, 64u, 65u, 300u, 10000u}) {
    std::set<std::string> seen;
    uint64_t cookie = 0;
    for (;;) {
      auto found = list(*directory_, cookie, step);
      if (found.empty()) break;
      for (const Listed& each : found) {
        EXPECT_TRUE(seen.insert(each.name).second) << each.name << " twice";
        EXPECT_GT(each.next, cookie);
        EXPECT_LT(each.next, uint64_t{1} << 63);
        cookie = each.next;
      }
    }
    seen.erase(".");
    seen.erase("..");
    EXPECT_EQ(seen, expected) << step;
  }
}

TEST_F(ReaddirTest, TypesAreThoseOfTheInodes) {
  file(kRoot, "f");
  dir(kRoot, "d");
  must(fs_->symlink(caller_, kRoot, "l", "x"));
  must(fs_->mknod(caller_, kRoot, "p", S_IFIFO, 0));
  const std::map<std::string, uint8_t> expected = {{".", DT_DIR}, {"..", DT_DIR}, {"f", DT_REG},
                                                   {"d", DT_DIR}, {"l", DT_LNK},  {"p", DT_FIFO}};
  openDir(kRoot);
  std::map<std::string, uint8_t> got;
  for (const Listed& each : list(*directory_, 0, SIZE_MAX)) got[each.name] = each.type;
  EXPECT_EQ(got, expected);
}

TEST_F(ReaddirTest, NamesThatStayAreSeenOnceWhateverHappensBetweenTheCalls) {
  unmount();
  ASSERT_TRUE(formatVolume(*device_, FormatOptions()).isOk());
  Random random(randomSeed("readdir"));
  if (random.oneIn(2)) SyncPoints::instance().setMutant("directory.few_buckets", true);
  mount();
  std::set<std::string> stay, come;
  for (int i = 0; i < 100; ++i) {
    stay.insert("stay" + std::to_string(i));
    file(kRoot, "stay" + std::to_string(i));
  }
  openDir(kRoot);
  for (int round = 0; round < 10; ++round) {
    std::multiset<std::string> seen;
    uint64_t cookie = 0;
    for (;;) {
      auto found = list(*directory_, cookie, 1 + random.below(20));
      if (found.empty()) break;
      for (const Listed& each : found) seen.insert(each.name);
      cookie = found.back().next;
      for (uint64_t n = random.below(8); n > 0; --n) {
        std::string name = "come" + std::to_string(random.below(60));
        if (come.erase(name) > 0) {
          EXPECT_TRUE(fs_->unlink(caller_, kRoot, name).isOk());
        } else {
          come.insert(name);
          file(kRoot, name);
        }
      }
    }
    for (const std::string& name : stay) EXPECT_EQ(seen.count(name), 1u) << name;
  }
  fs_->release(std::move(directory_));
  unmount();
}

TEST_F(ReaddirTest, WithAttributesTakenEntriesCountAsLookups) {
  InodeNo f = file(kRoot, "f"), g = file(kRoot, "g");
  fs_->forget(f, 1);
  fs_->forget(g, 1);
  openDir(kRoot);
  InodeNo taken;
  auto take = [&](const DirectoryEntry& e) {
    if (e.name == "." || e.name == "..") {
      EXPECT_EQ(e.attributes, nullptr);
      return true;
    }
    EXPECT_NE(e.attributes, nullptr);
    EXPECT_EQ(e.attributes->ino, e.ino);
    EXPECT_EQ(e.attributes->record.mode, S_IFREG | 0644u);
    if (taken.v != 0) return false;
    taken = e.ino;
    return true;
  };
  EXPECT_TRUE(fs_->readDirectory(*directory_, 0, true, take).isOk());
  const std::string name = taken == f ? "f" : "g", other = taken == f ? "g" : "f";
  EXPECT_TRUE(fs_->unlink(caller_, kRoot, name).isOk());
  EXPECT_TRUE(fs_->unlink(caller_, kRoot, other).isOk());
  const StatfsReply waiting = fs_->statfs();
  EXPECT_EQ(waiting.files - waiting.filesFree, 2u) << "the root, and the one that was looked up";
  fs_->forget(taken, 1);
  const StatfsReply done = fs_->statfs();
  EXPECT_EQ(done.files - done.filesFree, 1u);
}

TEST_F(ReaddirTest, AnEmptiedDirectoryIsReadWithoutTouchingTheIndex) {
  for (int i = 0; i < 300; ++i) file(kRoot, std::to_string(i));
  openDir(kRoot);
  EXPECT_EQ(list(*directory_, 0, SIZE_MAX).size(), 302u);
  for (int i = 0; i < 300; ++i) EXPECT_TRUE(fs_->unlink(caller_, kRoot, std::to_string(i)).isOk());
  const uint64_t scans = volume_->index().counters().scans;
  EXPECT_EQ(list(*directory_, 0, SIZE_MAX).size(), 2u);
  EXPECT_EQ(volume_->index().counters().scans, scans);
  file(kRoot, "new");
  EXPECT_EQ(list(*directory_, 0, SIZE_MAX).size(), 3u);
}

}  // namespace
}  // namespace ourfs::test
