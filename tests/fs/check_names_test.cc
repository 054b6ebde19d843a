// fsck: names, buckets and the tree.
#include "check_fixture.h"

namespace ourfs::test {
namespace {

class CheckNamesTest : public CheckTest {
 protected:
  // The name goes; its directory counts one less.
  void lose(Transaction& t, InodeNo dir, const std::string& name, bool directory = false) {
    InodeRecord parent = record(dir);
    --parent.entries;
    if (directory) --parent.nlink;
    putRecord(t, dir, parent);
    eraseName(t, dir, name);
  }
  std::string lostName(const std::string& path) { return "#" + std::to_string(ino_[path].v); }
  void putSlot(Transaction& t, InodeNo dir, std::string_view name, uint64_t slot,
               const DirentRecord& record) {
    t.put(direntKey(dir, cookieOf(name) + slot), encodeDirent(record));
  }
};

TEST_F(CheckNamesTest, ALostFileIsFoundInLostAndFoundWithItsBytes) {
  damage([&](Transaction& t) { lose(t, kRoot, "other"); });
  expectMended({"lost: no name leads to it"});
  EXPECT_TRUE(contentOf("lost+found/" + lostName("other")) == files_["other"]);
  EXPECT_EQ(fs_->getxattr(ino_["other"], "user.color").value(), "blue");
  const InodeRecord lostAndFound = stat(at("lost+found"));
  EXPECT_EQ(lostAndFound.mode, S_IFDIR | 0700u);
  EXPECT_EQ(lostAndFound.entries, 1u);
  EXPECT_NE(lostAndFound.btime.sec, 0);
  expectSample({"other"});
}

TEST_F(CheckNamesTest, AllKindsOfInodesAreFoundAgain) {
  damage([&](Transaction& t) {
    InodeRecord root = record(kRoot);
    root.entries -= 4;
    --root.nlink;
    putRecord(t, kRoot, root);
    for (const char* name : {"pipe", "symlink", "empty", "nothing"}) eraseName(t, kRoot, name);
  });
  expectMended(Lines(4, "lost: no name leads to it"));
  EXPECT_TRUE(S_ISFIFO(stat(at("lost+found/" + lostName("pipe"))).mode));
  EXPECT_EQ(fs_->readlink(at("lost+found/" + lostName("symlink"))).value(), "dir/inner");
  EXPECT_TRUE(S_ISDIR(stat(at("lost+found/" + lostName("empty"))).mode));
  EXPECT_EQ(contentOf("lost+found/" + lostName("nothing")), "");
  EXPECT_EQ(links(at("lost+found")), 3u);
  expectSample({"pipe", "symlink", "empty", "nothing"});
}

TEST_F(CheckNamesTest, ALostDirectoryKeepsWhatIsBelowIt) {
  damage([&](Transaction& t) { lose(t, kRoot, "dir", true); });
  expectMended({"lost: no name leads to it"});
  const std::string found = "lost+found/" + lostName("dir");
  EXPECT_TRUE(contentOf(found + "/sub/deep") == files_["dir/sub/deep"]);
  EXPECT_TRUE(contentOf(found + "/link") == files_["file"]);
  EXPECT_EQ(stat(ino_["dir"]).parent, at("lost+found").v);
  expectSample({"dir", "dir/inner", "dir/link", "dir/sub/deep"});
}

TEST_F(CheckNamesTest, LostAndFoundIsUsedAgainAndItsNamesAreNotTakenTwice) {
  mount();
  const InodeNo found = dir(kRoot, "lost+found");
  const InodeNo squatter = file(found, lostName("other"));
  unmount();
  damage([&](Transaction& t) { lose(t, kRoot, "other"); });
  expectMended({"lost: no name leads to it"});
  EXPECT_EQ(at("lost+found"), found);
  EXPECT_EQ(at("lost+found/" + lostName("other")), squatter);
  EXPECT_TRUE(contentOf("lost+found/" + lostName("other") + ".1") == files_["other"]);
  expectSample({"other"});
}

TEST_F(CheckNamesTest, AFileOfThatNameIsNotLostAndFound) {
  mount();
  fill(file(kRoot, "lost+found"), "mine");
  unmount();
  damage([&](Transaction& t) { lose(t, kRoot, "other"); });
  expectMended({"lost: no name leads to it"});
  EXPECT_EQ(contentOf("lost+found"), "mine");
  EXPECT_TRUE(contentOf("lost+found.1/" + lostName("other")) == files_["other"]);
}

TEST_F(CheckNamesTest, ANameThatLeadsNowhereGoes) {
  damage([&](Transaction& t) {
    InodeRecord dir = record(ino_["dir"]);
    ++dir.entries;
    putRecord(t, ino_["dir"], dir);
    putName(t, ino_["dir"], "ghost", InodeNo(999));
  });
  expectMended({"name \"ghost\" leads to inode 999, which does not exist",
                "number of names is 4, should be 3"});
  expectGone("dir/ghost");
  expectSample();
}

TEST_F(CheckNamesTest, AWrongTypeInANameIsSetRight) {
  damage([&](Transaction& t) { putName(t, kRoot, "file", ino_["file"], DT_DIR); });
  expectMended({"name \"file\" has the wrong type"});
  auto root = fs_->openDirectory(kRoot);
  for (const Listed& each : list(**root, 0, SIZE_MAX)) {
    EXPECT_TRUE(each.name != "file" || each.type == DT_REG);
  }
  fs_->release(std::move(*root));
  expectSample();
}

TEST_F(CheckNamesTest, AChainOfNamesLosesItsGaps) {
  const std::string line = "a chain of names with one hash has a gap";
  damage([&](Transaction& t) {  // the first slot is missing
    eraseName(t, kRoot, "file");
    putSlot(t, kRoot, "file", 1, direntTo("file", ino_["file"]));
  });
  expectMended({line});
  expectSample();
  unmount();
  damage([&](Transaction& t) {  // more is promised than there is
    DirentRecord record = direntTo("file", ino_["file"]);
    record.more = true;
    putSlot(t, kRoot, "file", 0, record);
  });
  expectMended({line});
  expectSample();
  unmount();
  damage([&](Transaction& t) {  // an empty slot at the end
    DirentRecord record = direntTo("file", ino_["file"]), vacated;
    record.more = true;
    vacated.kind = DirentKind::Vacated;
    putSlot(t, kRoot, "file", 0, record);
    putSlot(t, kRoot, "file", 1, vacated);
  });
  expectMended({line});
  expectSample();
}

TEST_F(CheckNamesTest, AnEmptySlotInTheMiddleIsAsItShouldBe) {
  damage([&](Transaction& t) {
    DirentRecord vacated;
    vacated.kind = DirentKind::Vacated;
    vacated.more = true;
    putSlot(t, kRoot, "file", 0, vacated);
    putSlot(t, kRoot, "file", 1, direntTo("file", ino_["file"]));
  });
  expectLines(look(), {});
  mount();
  expectSample();
}

TEST_F(CheckNamesTest, OfANameThatAppearsTwiceTheFirstStays) {
  damage([&](Transaction& t) {
    DirentRecord first = direntTo("file", ino_["file"]);
    first.more = true;
    putSlot(t, kRoot, "file", 0, first);
    putSlot(t, kRoot, "file", 1, direntTo("file", ino_["other"]));
    lose(t, kRoot, "other");
    InodeRecord root = record(kRoot);
    putRecord(t, kRoot, root);
  });
  expectMended({"name \"file\" appears twice", "lost: no name leads to it", "number of names is"});
  EXPECT_TRUE(contentOf("lost+found/" + lostName("other")) == files_["other"]);
  expectSample({"other"});
}

TEST_F(CheckNamesTest, ANameUnderAnotherHashGoesWhereItBelongs) {
  damage([&](Transaction& t) {
    eraseName(t, kRoot, "other");
    putSlot(t, kRoot, "elsewhere", 0, direntTo("other", ino_["other"]));
  });
  expectMended({"name \"other\" lies under the hash of another name"});
  expectGone("lost+found");
  expectSample();
}

TEST_F(CheckNamesTest, OfTwoNamesOfADirectoryTheOneThatItsParentSpeaksForStays) {
  // Inode numbers decide which of the names is seen first.
  for (const std::string wrong : {"empty", "root"}) {
    const InodeNo dir = wrong == "root" ? kRoot : ino_["empty"];
    damage([&](Transaction& t) { putName(t, dir, "again", ino_["dir/sub"], DT_DIR); });
    expectMended({"is a second name of a directory"});
    EXPECT_EQ(lookup(dir, "again").v, 0u);
    expectSample();
    unmount();
  }
  damage([&](Transaction& t) { putName(t, ino_["dir"], "top", kRoot, DT_DIR); });
  expectMended({"name \"top\" is a second name of a directory"});
  expectGone("dir/top");
  expectSample();
}

TEST_F(CheckNamesTest, NamesInWhatIsNoDirectoryGo) {
  damage([&](Transaction& t) {
    putName(t, ino_["file"], "a", ino_["other"]);
    putName(t, InodeNo(999), "b", ino_["other"]);
  });
  expectMended({"name \"a\" belongs to inode", "name \"b\" belongs to inode 999"});
  EXPECT_EQ(links(ino_["other"]), 1u);
  expectSample();
}

TEST_F(CheckNamesTest, AnUnreadableNameGoesAndItsFileIsFound) {
  damage([&](Transaction& t) { t.put(direntKey(kRoot, cookieOf("other")), "\x11\x08\x05.."); });
  expectMended({"a name cannot be read", "lost: no name leads to it", "number of names is"});
  EXPECT_TRUE(contentOf("lost+found/" + lostName("other")) == files_["other"]);
  expectSample({"other"});
}

TEST_F(CheckNamesTest, ACircleOfDirectoriesIsCutOnce) {
  damage([&](Transaction& t) {  // dir is moved into its own sub
    InodeRecord root = record(kRoot), dir = record(ino_["dir"]), sub = record(ino_["dir/sub"]);
    --root.entries;
    --root.nlink;
    dir.parent = ino_["dir/sub"].v;
    ++sub.entries;
    ++sub.nlink;
    putRecord(t, kRoot, root);
    putRecord(t, ino_["dir"], dir);
    putRecord(t, ino_["dir/sub"], sub);
    eraseName(t, kRoot, "dir");
    putName(t, ino_["dir/sub"], "dir", ino_["dir"], DT_DIR);
  });
  expectMended({"a directory in a circle that the root does not reach"});
  const std::string found = "lost+found/" + lostName("dir");
  EXPECT_TRUE(contentOf(found + "/inner") == files_["dir/inner"]);
  EXPECT_TRUE(contentOf(found + "/sub/deep") == files_["dir/sub/deep"]);
  expectGone(found + "/sub/dir");
  EXPECT_EQ(stat(ino_["dir"]).parent, at("lost+found").v);
  expectSample({"dir", "dir/inner", "dir/link", "dir/sub/deep"});
}

TEST_F(CheckNamesTest, ADirectoryThatNamesItselfIsACircle) {
  damage([&](Transaction& t) {
    InodeRecord root = record(kRoot), empty = record(ino_["empty"]);
    --root.entries;
    --root.nlink;
    empty.parent = ino_["empty"].v;
    ++empty.entries;
    ++empty.nlink;
    putRecord(t, kRoot, root);
    putRecord(t, ino_["empty"], empty);
    eraseName(t, kRoot, "empty");
    putName(t, ino_["empty"], "empty", ino_["empty"], DT_DIR);
  });
  expectMended({"a directory in a circle that the root does not reach"});
  EXPECT_TRUE(names(at("lost+found/" + lostName("empty"))).empty());
  expectSample({"empty"});
}

TEST_F(CheckNamesTest, ManyThingsWrongAtOnceAreAllMended) {
  damage([&](Transaction& t) {
    t.erase(inodeKey(kRoot));
    t.erase(inodeKey(ino_["dir"]));
    eraseName(t, kRoot, "small");
    putName(t, kRoot, "holes", ino_["holes"], DT_SOCK);
    t.put(orphanKey(ino_["other"]), "");
  });
  EXPECT_GT(look().problemCount, 8u);
  const CheckReport mended = mend();
  EXPECT_EQ(mended.exitCode(), 1);
  expectLines(look(), {});
  mount();
  const std::string found = "lost+found/";
  EXPECT_TRUE(contentOf(found + lostName("dir/inner")) == files_["dir/inner"]);
  EXPECT_TRUE(contentOf(found + lostName("dir/sub") + "/deep") == files_["dir/sub/deep"]);
  EXPECT_TRUE(contentOf(found + lostName("small")) == files_["small"]);
  expectSample({"dir", "dir/inner", "dir/link", "dir/sub/deep", "small"});
}

}  // namespace
}  // namespace ourfs::test
