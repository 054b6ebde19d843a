#include "check_fixture.h"

#include <spdlog/spdlog.h>

#include <cstring>

#include "rounds.h"

namespace ourfs::test {

namespace {

std::string pattern(size_t length, unsigned seed) {
  std::string text(length, '\0');
  for (size_t i = 0; i < length; ++i) text[i] = static_cast<char>('a' + (i / 512 + i + seed) % 26);
  return text;
}

// Byte for byte.
bool sameBytes(BlockDevice& a, BlockDevice& b) {
  std::vector<std::byte> fromA(MiB), fromB(MiB);
  for (uint64_t at = 0; at < a.size().v; at += MiB) {
    EXPECT_TRUE(a.read(DeviceOffset(at), fromA).isOk());
    EXPECT_TRUE(b.read(DeviceOffset(at), fromB).isOk());
    if (fromA != fromB) return false;
  }
  return a.size() == b.size();
}

}  // namespace

void CheckTest::SetUp() {
  if (onlyThreadsCount()) GTEST_SKIP() << "one thread";
  makeVolume(FormatOptions());
}

void CheckTest::makeVolume(const FormatOptions& options) {
  device_ = MemoryDevice::create(ByteCount(32 * MiB));
  ASSERT_EQ(formatVolume(*device_, options).message(), Status().message());
  mount();
  makeSample();
  unmount();
}

void CheckTest::TearDown() {
  if (fs_) unmount();
  volume_.reset();
  SyncPoints::instance().reset();
}

void CheckTest::add(const std::string& path, const std::string& content) {
  const size_t slash = path.rfind('/');
  const InodeNo parent = slash == std::string::npos ? kRoot : ino_[path.substr(0, slash)];
  ino_[path] = file(parent, slash == std::string::npos ? path : path.substr(slash + 1));
  fill(ino_[path], content);
  files_[path] = content;
}

void CheckTest::makeSample() {
  ino_["dir"] = dir(kRoot, "dir");
  ino_["dir/sub"] = dir(ino_["dir"], "sub");
  ino_["empty"] = dir(kRoot, "empty");
  add("file", pattern(10 * kBlock, 1));
  add("other", pattern(3 * kBlock + 100, 2));
  add("small", "a few bytes");
  add("nothing", "");
  add("dir/inner", pattern(2 * kBlock, 3));
  add("dir/sub/deep", pattern(5 * kBlock - 1, 4));
  const std::string start = pattern(kBlock, 5), far = pattern(2 * kBlock, 6);
  add("holes", start);
  OpenFilePtr holes = open(ino_["holes"]);
  write(*holes, 20 * kBlock, far);
  fs_->release(std::move(holes));
  files_["holes"] = start + std::string(19 * kBlock, '\0') + far;

  ino_["dir/link"] = must(fs_->link(caller_, ino_["file"], ino_["dir"], "link")).ino;
  files_["dir/link"] = files_["file"];
  ino_["symlink"] = must(fs_->symlink(caller_, kRoot, "symlink", "dir/inner")).ino;
  ino_["pipe"] = must(fs_->mknod(caller_, kRoot, "pipe", S_IFIFO | 0600, 0)).ino;
  EXPECT_TRUE(fs_->setxattr(caller_, ino_["other"], "user.color", "blue", 0).isOk());
  const std::string acl = aclOf("u::rwx,u:100:r--,g::r-x,m::rwx,o::---");
  EXPECT_TRUE(fs_->setxattr(caller_, ino_["dir"], "system.posix_acl_access", acl, 0).isOk());
}

void CheckTest::openRaw() {
  OpenOptions options;
  options.forCheck = true;
  auto volume = Volume::open(*device_, options);
  ASSERT_TRUE(volume.isOk()) << volume.status().message();
  volume_ = std::move(*volume);
}

void CheckTest::closeRaw() {
  const Status closed = volume_->close();
  ASSERT_TRUE(closed.isOk()) << closed.message();
  volume_.reset();
}

void CheckTest::damage(const std::function<void(Transaction&)>& change) {
  openRaw();
  if (HasFatalFailure()) return;
  Transaction t;
  change(t);
  auto room = volume_->log().reserve(
      ByteCount(std::max<uint64_t>(kNamespaceRoom.v, t.batch().encodedSize())));
  ASSERT_TRUE(room.isOk()) << room.status().message();
  const auto done = volume_->log().commit(std::move(t), std::move(*room));
  ASSERT_TRUE(done.isOk()) << done.status().message();
  closeRaw();
  openRaw();
  closeRaw();
}

void CheckTest::damageIndex(const std::function<void(IndexBatch&)>& change) {
  IndexOptions options;
  options.geometry = indexGeometry(SuperblockStore(*device_).load().value());
  options.beforePersist = [] { return Status::ok(); };
  auto index = Index::open(*device_, std::move(options));
  ASSERT_TRUE(index.isOk()) << index.status().message();
  IndexBatch batch;
  change(batch);
  ASSERT_TRUE((*index)->apply(batch, (*index)->applied()).isOk());
  ASSERT_TRUE((*index)->close().isOk());
}

InodeRecord CheckTest::record(InodeNo ino) {
  const auto value = volume_->index().get(inodeKey(ino));
  EXPECT_TRUE(value.isOk() && *value) << "inode " << ino.v;
  if (!value.isOk() || !*value) return {};
  const auto decoded = decodeInode(ino, **value);
  EXPECT_TRUE(decoded.isOk()) << decoded.status().message();
  return decoded.isOk() ? *decoded : InodeRecord();
}

void CheckTest::changeRecord(InodeNo ino, const std::function<void(InodeRecord&)>& change) {
  damage([&](Transaction& t) {
    InodeRecord changed = record(ino);
    change(changed);
    putRecord(t, ino, changed);
  });
}

DirentRecord CheckTest::direntTo(std::string_view name, InodeNo ino, uint8_t type) {
  DirentRecord dirent;
  dirent.type = type;
  dirent.ino = ino.v;
  dirent.name = name;
  return dirent;
}

std::map<uint64_t, ExtentRecord> CheckTest::extents(InodeNo ino) {
  std::map<uint64_t, ExtentRecord> found;
  const std::string prefix = extentPrefix(ino);
  const Status scanned =
      volume_->index().scan(prefix, prefixEnd(prefix), [&](auto key, auto value) {
        const auto parsed = parseKey(key);
        const auto extent = decodeExtent(ino, FileOffset(parsed->number), value);
        EXPECT_TRUE(extent.isOk());
        if (extent) found[parsed->number] = *extent;
        return true;
      });
  EXPECT_TRUE(scanned.isOk());
  return found;
}

CheckReport CheckTest::check(bool repair) {
  CheckOptions options;
  options.repair = repair;
  auto report = checkVolume(*device_, options);
  EXPECT_TRUE(report.isOk()) << report.status().message();
  return report.isOk() ? std::move(*report) : CheckReport();
}

CheckReport CheckTest::look() {
  const auto before = device_->clone();
  CheckReport report = check(false);
  EXPECT_TRUE(sameBytes(*before, *device_)) << "a look has changed the device";
  EXPECT_EQ(report.repaired, 0u);
  return report;
}

void CheckTest::expectLines(const CheckReport& report, const Lines& lines) {
  EXPECT_EQ(report.problemCount, report.problems.size());
  std::vector<::testing::Matcher<std::string>> wanted;
  for (const std::string& line : lines) wanted.emplace_back(::testing::HasSubstr(line));
  EXPECT_THAT(report.problems, ::testing::UnorderedElementsAreArray(wanted));
}

void CheckTest::expectMended(const Lines& lines) {
  const CheckReport found = look();
  expectLines(found, lines);
  EXPECT_FALSE(found.clean());
  EXPECT_EQ(found.exitCode(), 4);

  const CheckReport mended = mend();
  expectLines(mended, lines);
  EXPECT_EQ(mended.repaired, mended.problemCount);
  EXPECT_EQ(mended.exitCode(), 1);

  const CheckReport again = look();
  expectLines(again, {});
  EXPECT_EQ(again.exitCode(), 0);
  EXPECT_TRUE(again.mount.wasClean);
  EXPECT_EQ(again.freeBlocks, mended.freeBlocks);
  if (!mountAfterwards_) return;
  mount();
  EXPECT_TRUE(volume_->summary().snapshotUsed);
  EXPECT_EQ(volume_->space().counts().free, again.freeBlocks);
}

InodeNo CheckTest::at(const std::string& path) {
  InodeNo ino = kRoot;
  for (size_t from = 0; from <= path.size() && ino.v != 0;) {
    const size_t slash = std::min(path.find('/', from), path.size());
    ino = lookup(ino, path.substr(from, slash - from));
    from = slash + 1;
  }
  return ino;
}

std::string CheckTest::contentOf(const std::string& path) {
  const InodeNo ino = at(path);
  EXPECT_NE(ino.v, 0u) << path << " is gone";
  if (ino.v == 0) return "";
  OpenFilePtr opened = open(ino, O_RDONLY);
  if (!opened) return "";
  std::string text = read(*opened, 0, stat(ino).size);
  fs_->release(std::move(opened));
  return text;
}

void CheckTest::expectSample(const std::set<std::string>& except) {
  const auto kept = [&](const std::string& path) { return !except.contains(path); };
  for (const auto& [path, content] : files_) {
    EXPECT_TRUE(!kept(path) || contentOf(path) == content) << path << " has changed";
  }
  EXPECT_TRUE(!kept("symlink") || fs_->readlink(at("symlink")).value() == "dir/inner");
  EXPECT_TRUE(!kept("pipe") || S_ISFIFO(stat(at("pipe")).mode));
  EXPECT_TRUE(!kept("empty") || S_ISDIR(stat(at("empty")).mode));
  EXPECT_TRUE(!kept("other") || fs_->getxattr(at("other"), "user.color").value() == "blue");
  EXPECT_TRUE(!kept("dir") || fs_->getxattr(at("dir"), "system.posix_acl_access").isOk());
}

void DamagedDeviceTest::SetUp() {
  spdlog::set_level(spdlog::level::off);
  CheckTest::SetUp();
  if (!IsSkipped()) superblock_ = SuperblockStore(*device_).load().value();
}

void DamagedDeviceTest::TearDown() {
  CheckTest::TearDown();
  spdlog::set_level(spdlog::level::info);
}

}  // namespace ourfs::test
