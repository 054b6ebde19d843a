// Filesystem: after a crash the tree is what it was at some moment, not before the last sync; and
// many threads at once leave a tree that agrees with itself.
#include <linux/fs.h>

#include <thread>

#include "block/record_device.h"
#include "filesystem_fixture.h"
#include "random_seed.h"

namespace ourfs::test {
namespace {

class NamesCrashTest : public FilesystemTest {
 protected:
  // The tree as text: path, inode, mode, link count.
  std::string dump(InodeNo d = kRoot, const std::string& path = "") {
    std::string text;
    auto directory = fs_->openDirectory(d);
    EXPECT_TRUE(directory.isOk());
    std::map<std::string, Listed> sorted;
    for (Listed& each : list(**directory, 0, SIZE_MAX)) {
      if (each.name != "." && each.name != "..") sorted[each.name] = each;
    }
    fs_->release(std::move(*directory));
    const InodeRecord self = stat(d);
    EXPECT_EQ(self.entries, sorted.size()) << path;
    text += path + "/ " + std::to_string(d.v) + " " + std::to_string(self.nlink) + "\n";
    for (const auto& [name, each] : sorted) {
      const InodeRecord r = stat(each.ino);
      EXPECT_EQ(IFTODT(r.mode), each.type) << path << "/" << name;
      if (S_ISDIR(r.mode)) {
        EXPECT_EQ(r.parent, d.v) << path << "/" << name;
        text += dump(each.ino, path + "/" + name);
      } else {
        text += path + "/" + name + " " + std::to_string(each.ino.v) + " " +
                std::to_string(r.mode) + " " + std::to_string(r.nlink) + "\n";
      }
    }
    return text;
  }

  // One random change; failures are part of the game.
  void randomChange(Random& random, const std::vector<InodeNo>& dirs,
                    const std::string& suffix = "") {
    auto directory = [&] { return dirs[random.below(dirs.size())]; };
    auto name = [&] { return "n" + std::to_string(random.below(8)) + suffix; };
    Result<Attributes> made = Status::error(ENOENT);
    switch (random.below(9)) {
      case 0:
      case 1:
        made = fs_->mknod(caller_, directory(), name(), S_IFREG | 0644, 0);
        break;
      case 2:
        made = fs_->mkdir(caller_, directory(), name(), 0755);
        break;
      case 3:
        made = fs_->symlink(caller_, directory(), name(), "target");
        break;
      case 4: {
        auto found = fs_->lookup(directory(), name());
        if (!found) break;
        made = fs_->link(caller_, found->ino, directory(), name());
        fs_->forget(found->ino, 1);
        break;
      }
      case 5:
        (void)fs_->unlink(caller_, directory(), name()).isOk();
        break;
      case 6:
        (void)fs_->rmdir(caller_, directory(), name()).isOk();
        break;
      default: {
        const uint32_t flags[] = {0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT};
        (void)fs_->rename(caller_, directory(), name(), directory(), name(), flags[random.below(5)])
            .isOk();
      }
    }
    if (made) fs_->forget(made->ino, 1);
  }
};

TEST_F(NamesCrashTest, WhatIsLeftIsThePrefixOfWhatHappened) {
  Random random(randomSeed("names crash"));
  const bool few = random.oneIn(2);
  if (few) SyncPoints::instance().setMutant("directory.few_buckets", true);
  std::vector<InodeNo> dirs = {kRoot, dir(kRoot, "A"), dir(kRoot, "B")};
  dirs.push_back(dir(dirs[1], "C"));
  unmount();
  std::unique_ptr<MemoryDevice> base = device_->clone();
  std::unique_ptr<RecordDevice> recorder = RecordDevice::wrap(*device_);
  options_.commitInterval = std::chrono::seconds(1000);
  mount(*recorder);

  struct Moment {
    uint64_t clock;  // when it was acknowledged
    bool synced;     // and was durable by then
    std::string tree;
  };
  std::vector<Moment> moments = {{recorder->mark(), true, dump()}};
  for (int i = 0; i < 150; ++i) {
    randomChange(random, dirs);
    const bool sync = random.oneIn(12);
    if (sync) {
      auto d = fs_->openDirectory(dirs[random.below(dirs.size())]);
      EXPECT_TRUE(fs_->fsyncDirectory(**d).isOk());
      fs_->release(std::move(*d));
      EXPECT_TRUE(volume_->log().flush(volume_->log().journal().head().end).isOk());
    }
    moments.push_back({recorder->mark(), sync, dump()});
  }
  const std::vector<RecordedIo> log = recorder->log();
  const uint64_t first = moments.front().clock, last = recorder->clock();
  crash();

  for (int image = 0; image < 12; ++image) {
    const uint64_t point = random.between(first, last);
    const uint64_t chance = random.below(4);
    SCOPED_TRACE("crash at " + std::to_string(point));
    device_ =
        crashImage(*base, log, point, [&](size_t, size_t) { return random.below(3) < chance; });
    mount();
    const std::string tree = dump();
    bool known = false;
    for (size_t i = moments.size(); i-- > 0 && !known;) {
      known = moments[i].tree == tree;
      if (moments[i].synced && moments[i].clock <= point) break;
    }
    EXPECT_TRUE(known) << "no moment since the last sync looked like this:\n" << tree;
    unmount();
    if (!few) expectSound(*device_);
  }
}

TEST_F(NamesCrashTest, ThreadsThatChangeTheSameNamesLeaveASoundTree) {
  const uint64_t seed = randomSeed("names threads");
  std::vector<InodeNo> dirs = {kRoot, dir(kRoot, "A"), dir(kRoot, "B")};
  dirs.push_back(dir(dirs[1], "C"));
  dirs.push_back(dir(dirs[3], "D"));
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Random random(seed + t);
      for (int i = 0; i < 600; ++i) {
        randomChange(random, dirs);
        if (random.oneIn(10)) {
          auto d = fs_->openDirectory(dirs[random.below(dirs.size())]);
          if (!d) continue;
          for (const Listed& each : list(**d, 0, SIZE_MAX)) {
            AttributeChange change;
            change.mtimeNow = true;
            (void)fs_->setattr(caller_, each.ino, change).isOk();
          }
          fs_->release(std::move(*d));
        }
        // Directories move too, across parents.
        if (random.oneIn(10)) {
          (void)fs_
              ->rename(caller_, random.oneIn(2) ? dirs[1] : dirs[2], random.oneIn(2) ? "C" : "D",
                       random.oneIn(2) ? dirs[4] : dirs[2], "C", 0)
              .isOk();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string before = dump();
  unmountClean();
  mount();
  EXPECT_EQ(dump(), before);
}

}  // namespace
}  // namespace ourfs::test
