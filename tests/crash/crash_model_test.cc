// The oracle itself: it accepts what happened, and each thing that did not happen it notices.
#include "crash/crash_model.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>

#include "crash/crash_actor.h"
#include "crash/crash_history.h"

namespace ourfs::crash {
namespace {

struct Tampering {
  const char* name;
  const char* noticed;  // a part of the verdict
  // Behind the model's back: of two files and their directory.
  Status (*run)(Filesystem&, InodeNo a, InodeNo dir);
};

Status changeByte(Filesystem& filesystem, InodeNo a, InodeNo) {
  TRY_ASSIGN(OpenFilePtr file, filesystem.open(a, O_RDWR));
  const std::byte byte{0xdb};
  TRY(filesystem.write(*file, FileOffset(1234), std::span(&byte, 1), {}).status());
  filesystem.release(std::move(file));
  return Status::ok();
}

Status changeSector(Filesystem& filesystem, InodeNo a, std::span<const std::byte> bytes) {
  TRY_ASSIGN(OpenFilePtr file, filesystem.open(a, O_RDWR));
  TRY(filesystem.write(*file, FileOffset(kSector), bytes, {}).status());
  filesystem.release(std::move(file));
  return Status::ok();
}

Status showPoison(Filesystem& filesystem, InodeNo a, InodeNo) {
  const std::vector<std::byte> poison(kSector, kPoison);
  return changeSector(filesystem, a, poison);
}

Status showAnotherFile(Filesystem& filesystem, InodeNo a, InodeNo dir) {
  TRY_ASSIGN(const Attributes b, filesystem.lookup(dir, "b"));
  TRY_ASSIGN(OpenFilePtr file, filesystem.open(b.ino, O_RDONLY));
  std::vector<std::byte> bytes(kSector);
  TRY(filesystem.read(*file, FileOffset(kSector), bytes).status());
  filesystem.release(std::move(file));
  return changeSector(filesystem, a, bytes);
}

Status changeAttributes(Filesystem& filesystem, InodeNo ino, const AttributeChange& change) {
  return filesystem.setattr({}, ino, change).status();
}

constexpr std::array kTamperings{
    Tampering{"Nothing", "", [](Filesystem&, InodeNo, InodeNo) { return Status::ok(); }},
    Tampering{"AByte", "is none of", changeByte},
    Tampering{"ASectorOfFreeSpace", "sector 1 shows free space (poison)", showPoison},
    Tampering{"ASectorOfAnotherFile", "sector 1 begins with", showAnotherFile},
    Tampering{"TheSize", "size 900, may be 5000 to 5000",
              [](Filesystem& fs, InodeNo a, InodeNo) {
                AttributeChange change;
                change.size = 900;
                return changeAttributes(fs, a, change);
              }},
    Tampering{"TheTimeOfAFile", "are none that it may have",
              [](Filesystem& fs, InodeNo a, InodeNo) {
                AttributeChange change;
                change.mtime = Timestamp{1, 2};
                return changeAttributes(fs, a, change);
              }},
    Tampering{"TheTimeOfADirectory", "the tree is none",
              [](Filesystem& fs, InodeNo, InodeNo dir) {
                AttributeChange change;
                change.mtime = Timestamp{1, 2};
                return changeAttributes(fs, dir, change);
              }},
    Tampering{"ThePermissions", "the tree is none",
              [](Filesystem& fs, InodeNo a, InodeNo) {
                AttributeChange change;
                change.mode = 0600;
                return changeAttributes(fs, a, change);
              }},
    Tampering{"AnAttribute", "the tree is none",
              [](Filesystem& fs, InodeNo a, InodeNo) {
                return fs.setxattr({}, a, "user.other", "x", 0);
              }},
    Tampering{
        "ALinkMore", "the tree is none",
        [](Filesystem& fs, InodeNo a, InodeNo dir) { return fs.link({}, a, dir, "c").status(); }},
    Tampering{"AFileLess", "the tree is none",
              [](Filesystem& fs, InodeNo, InodeNo dir) { return fs.unlink({}, dir, "b"); }},
    Tampering{"TwoFilesForEachOther", "the tree is none",
              [](Filesystem& fs, InodeNo, InodeNo dir) {
                return fs.rename({}, dir, "a", dir, "b", RENAME_EXCHANGE);
              }},
};

class CrashModelTest : public testing::TestWithParam<Tampering> {};

TEST_P(CrashModelTest, IsNoticed) {
  const ExplorerOptions options;
  auto base = makeBase(options);
  ASSERT_TRUE(base.isOk());
  const History history = recordHistory(
      options, **base, [&](Filesystem& filesystem, RecordDevice& device, History& h) -> Status {
        CrashActor actor(filesystem, device, h.model);
        TRY(actor.makeDirectory("d"));
        TRY(actor.createFile("d/a"));
        TRY(actor.createFile("d/b"));
        TRY(actor.writeFile("d/a", 0, 5000, Writing::Buffered));
        TRY(actor.writeFile("d/b", 0, 5000, Writing::Buffered));
        TRY(actor.syncAll());
        TRY_ASSIGN(const Attributes dir, filesystem.lookup(InodeNo(1), "d"));
        TRY_ASSIGN(const Attributes a, filesystem.lookup(dir.ino, "a"));
        TRY(GetParam().run(filesystem, a.ino, dir.ino));
        const std::string wrong = h.model.judge(filesystem, device.mark()).wrong;
        const std::string expected = GetParam().noticed;
        EXPECT_EQ(wrong.empty(), expected.empty()) << wrong;
        EXPECT_NE(wrong.find(expected), std::string::npos) << wrong;
        return Status::ok();
      });
  EXPECT_TRUE(history.status.isOk()) << history.status.message();
}

INSTANTIATE_TEST_SUITE_P(Tamperings, CrashModelTest, testing::ValuesIn(kTamperings),
                         [](const auto& param) { return std::string(param.param.name); });

// A crash before the answer of a sync may show any moment; after it, only the last.
TEST(CrashModelTimeTest, WhatASyncCoveredHasToBeThere) {
  const ExplorerOptions options;
  auto base = makeBase(options);
  ASSERT_TRUE(base.isOk());
  const History history = recordHistory(
      options, **base, [&](Filesystem& filesystem, RecordDevice& device, History& h) -> Status {
        CrashActor actor(filesystem, device, h.model);
        TRY(actor.createFile("a"));
        TRY(actor.writeFile("a", 0, 700, Writing::Buffered));
        TRY(actor.syncAll());
        const uint64_t before = device.mark();
        TRY(actor.writeFile("a", 100, 300, Writing::Buffered));
        const uint64_t open = device.mark();
        EXPECT_NE(h.model.judge(filesystem, before).wrong, "") << "bytes from the future";
        EXPECT_EQ(h.model.judge(filesystem, open).wrong, "");
        TRY(actor.syncFile("a", false));
        EXPECT_EQ(h.model.judge(filesystem, device.mark()).wrong, "");
        // As if the last write had been lost.
        CrashModel lost = h.model;
        std::vector<std::byte> other(300, std::byte{7});
        const uint64_t id = actor.idOf("a"), begin = device.mark();
        lost.wrote(id, 100, other, {begin, device.mark()});
        const uint64_t sync = device.mark();
        lost.synced(id, true, {sync, device.mark()});
        EXPECT_NE(lost.judge(filesystem, device.mark()).wrong, "");
        return Status::ok();
      });
  EXPECT_TRUE(history.status.isOk()) << history.status.message();
}

FoundNode nodeOf(char kind, uint64_t ino, uint32_t links) {
  FoundNode node;
  node.node.kind = kind;
  node.ino = InodeNo(ino);
  node.record.nlink = links;
  return node;
}

TEST(CrashModelLinksTest, LinkCountsAreThoseOfTheNames) {
  const FoundTree right{{"", nodeOf('d', 1, 3)},
                        {"d", nodeOf('d', 2, 2)},
                        {"d/a", nodeOf('f', 3, 2)},
                        {"e", nodeOf('f', 3, 2)},
                        {"l", nodeOf('l', 4, 1)}};
  EXPECT_EQ("", judgeLinks(right));
  for (const char* path : {"", "d", "d/a", "e", "l"}) {
    for (const int by : {-1, 1}) {
      FoundTree wrong = right;
      wrong.at(path).record.nlink += static_cast<uint32_t>(by);
      EXPECT_NE(judgeLinks(wrong).find(std::string("\"") + path + "\" has "), std::string::npos)
          << path << ": " << judgeLinks(wrong);
    }
  }
}

}  // namespace
}  // namespace ourfs::crash
