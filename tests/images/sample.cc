#include "images/sample.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include "common/codec.h"

namespace ourfs::images {

namespace {

constexpr InodeNo kTop{1};
constexpr int kNamesPerRound = 9;  // few: a look reads everything, and there are many looks

std::string numbered(const char* name, int number) { return name + std::to_string(number); }

// Calls on a filesystem of which none may fail; the first error stays.
class Author {
 public:
  explicit Author(Filesystem& fs) : fs_(fs) {}
  Status status() const { return status_; }

  InodeNo file(InodeNo dir, const std::string& name, uint32_t mode = S_IFREG | 0644,
               uint32_t rdev = 0) {
    return known(fs_.mknod(caller_, dir, name, mode, rdev));
  }
  InodeNo directory(InodeNo dir, const std::string& name) {
    return known(fs_.mkdir(caller_, dir, name, 0755));
  }
  void symlink(InodeNo dir, const std::string& name, const std::string& target) {
    (void)known(fs_.symlink(caller_, dir, name, target));
  }
  void link(InodeNo ino, InodeNo dir, const std::string& name) {
    (void)known(fs_.link(caller_, ino, dir, name));
  }
  void write(InodeNo ino, uint64_t at, const std::string& bytes) {
    onOpen(ino, [&](OpenFile& file) {
      return fs_.write(file, FileOffset(at), asBytes(bytes), {}).status();
    });
  }
  void fallocate(InodeNo ino, int mode, uint64_t at, uint64_t length) {
    onOpen(ino, [&](OpenFile& file) {
      return fs_.fallocate(file, mode, FileOffset(at), ByteCount(length));
    });
  }
  void fsync(InodeNo ino) {
    onOpen(ino, [&](OpenFile& file) { return fs_.fsync(file, false); });
  }
  void attribute(InodeNo ino, const std::string& name, const std::string& value) {
    note(fs_.setxattr(caller_, ino, name, value, 0));
  }
  void change(InodeNo ino, const AttributeChange& change) {
    note(fs_.setattr(caller_, ino, change).status());
  }
  void unlink(InodeNo dir, const std::string& name) { note(fs_.unlink(caller_, dir, name)); }
  void rename(InodeNo dir, const std::string& name, InodeNo to, const std::string& newName) {
    note(fs_.rename(caller_, dir, name, to, newName, 0));
  }
  OpenFilePtr open(InodeNo ino) {
    auto file = fs_.open(ino, O_RDWR);
    note(file.status());
    return file.isOk() ? std::move(*file) : OpenFilePtr();
  }
  void sync() { note(fs_.syncAll()); }
  void checkpoint() {
    sync();
    note(fs_.volume().checkpoint());
  }

 private:
  void note(const Status& status) {
    if (status_.isOk()) status_ = status;
  }
  // Nobody forgets what was looked up: the sample ends with a crash or an unmount.
  InodeNo known(const Result<Attributes>& made) {
    note(made.status());
    return made.isOk() ? made->ino : kTop;
  }
  void onOpen(InodeNo ino, const std::function<Status(OpenFile&)>& use) {
    OpenFilePtr file = open(ino);
    if (!file) return;
    note(use(*file));
    fs_.release(std::move(file));
  }

  Filesystem& fs_;
  Caller caller_{1000, 100, 1, 0};
  Status status_;
};

std::string accessList() {
  std::string out;
  Encoder e(out);
  e.u32(2);
  const auto entry = [&](uint16_t tag, uint16_t rights, uint32_t id) {
    e.u16(tag), e.u16(rights), e.u32(id);
  };
  entry(1, 6, UINT32_MAX);
  entry(2, 4, 1234);
  entry(4, 4, UINT32_MAX);
  entry(16, 4, UINT32_MAX);
  entry(32, 0, UINT32_MAX);
  return out;
}

// Every block has a byte of its own.
std::string patterned(uint64_t bytes, uint32_t blockSize, char first) {
  std::string out;
  for (uint64_t i = 0; i < bytes; i += blockSize) {
    out.append(std::min<uint64_t>(blockSize, bytes - i),
               static_cast<char>(first + static_cast<char>(i / blockSize)));
  }
  return out;
}

// One of every kind.
void writeKinds(Author& a, uint32_t block) {
  const InodeNo kinds = a.directory(kTop, "kinds");
  a.file(kinds, "fifo", S_IFIFO | 0600);
  a.file(kinds, "socket", S_IFSOCK | 0777);
  a.file(kinds, "block", S_IFBLK | 0660, 0x801);
  a.file(kinds, "char", S_IFCHR | 0666, 0x103);
  a.symlink(kinds, "link", "../files/whole");
  a.symlink(kinds, "long-link", std::string(4000, 'l'));
  a.file(kinds, std::string(255, 'n'));
  a.file(kinds, "not utf-8: \xff\xfe \n");
  const InodeNo files = a.directory(kTop, "files");
  const InodeNo whole = a.file(files, "whole");
  a.write(whole, 0, patterned(8 * uint64_t{block}, block, 'A'));
  a.write(a.file(files, "short"), 0, "a few bytes");
  a.file(files, "empty");
  const InodeNo sparse = a.file(files, "sparse");
  a.write(sparse, 5 * uint64_t{block} + 100, patterned(2 * uint64_t{block}, block, 'a'));
  const InodeNo punched = a.file(files, "punched");
  a.write(punched, 0, patterned(6 * uint64_t{block}, block, 'p'));
  a.fsync(punched);
  a.fallocate(punched, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * uint64_t{block}, block);
  const InodeNo reserved = a.file(files, "reserved");
  a.write(reserved, 0, "x");
  a.fallocate(reserved, FALLOC_FL_KEEP_SIZE, block, 3 * uint64_t{block});
  a.link(whole, kinds, "second-name");
  a.attribute(whole, "user.small", "value");
  a.attribute(whole, "trusted.empty", "");
  a.attribute(files, "user.of.directory", std::string(1000, 'd'));
  a.attribute(sparse, "system.posix_acl_access", accessList());
  AttributeChange change;
  change.mode = 04711;
  change.uid = 70000;
  change.gid = 80000;
  change.atime = Timestamp{-1, 999999999};
  change.mtime = Timestamp{4102444800, 1};
  a.change(a.file(files, "old and new times"), change);
}

// Makes and removes names, so that the index has something to merge.
void writeManyNames(Author& a, int round) {
  const InodeNo dir = a.directory(kTop, numbered("round", round));
  for (int i = 0; i < kNamesPerRound; ++i) {
    const InodeNo file = a.file(dir, numbered("file", i));
    if (i % 3 == 0) a.write(file, 0, patterned(3000, 1024, static_cast<char>('0' + i)));
    if (i % 4 == 0) a.attribute(file, "user.round", numbered("", round));
  }
  for (int i = 0; i < kNamesPerRound; i += 5) a.unlink(dir, numbered("file", i));
  a.rename(dir, "file1", kTop, numbered("moved", round));
}

void writeLargeAttributes(Author& a) {
  const InodeNo file = a.file(kTop, "large-attribute");
  for (int i = 0; i < 24; ++i) {
    a.attribute(file, "user.large", std::string(60000, static_cast<char>('a' + i)));
    if (i % 4 == 3) a.checkpoint();
  }
  a.attribute(file, "user.large", std::string(100, 'z'));
}

// With records that are not in the index.
Status leaveRecords(Author& a, uint32_t block) {
  const InodeNo dir = a.directory(kTop, "replayed");
  for (int i = 0; i < 6; ++i) {
    const InodeNo file = a.file(dir, numbered("file", i));
    a.write(file, 0, patterned(2 * uint64_t{block}, block, static_cast<char>('k' + i)));
    a.fsync(file);
  }
  a.unlink(dir, "file5");
  a.sync();
  AttributeChange last;
  last.mode = 0600;
  const InodeNo file = a.file(dir, "last");
  a.sync();
  a.change(file, last);
  a.sync();
  return a.status();
}

using Work = std::function<Status(Author&, Filesystem&)>;

// One mount; it ends as a crash does if `clean` is not set.
Status mountAnd(BlockDevice& device, bool clean, const Work& work) {
  TRY_ASSIGN(auto volume, Volume::open(device, OpenOptions()));
  TRY_ASSIGN(auto filesystem, Filesystem::start(*volume, quietOptions()));
  Author author(*filesystem);
  TRY(work(author, *filesystem));
  TRY(author.status());
  if (!clean) return Status::ok();
  TRY(filesystem->stop());
  filesystem.reset();
  return volume->close();
}

}  // namespace

FilesystemOptions quietOptions() {
  FilesystemOptions options;
  options.atime = AtimeMode::None;
  options.commitInterval = std::chrono::seconds(3600);
  options.data.cacheLimit = ByteCount(8 * MiB);
  options.data.writeback.expire = std::chrono::hours(1);
  options.data.writeback.interval = std::chrono::hours(1);
  return options;
}

Result<Sample> makeSample(const SampleOptions& options) {
  Sample sample;
  sample.device = MemoryDevice::create(ByteCount(kSampleSize));
  FormatOptions format;
  format.blockSize = options.blockSize;
  format.label = "sample";
  TRY(formatVolume(*sample.device, format));
  TRY(mountAnd(*sample.device, true, [&](Author& a, Filesystem&) {
    writeKinds(a, options.blockSize);
    a.checkpoint();
    for (int round = 0; round < 3; ++round) {
      writeManyNames(a, round);
      a.checkpoint();
    }
    return a.status();
  }));
  sample.earlier = sample.device->clone();
  TRY(mountAnd(*sample.device, true, [&](Author& a, Filesystem&) {
    if (options.roundTheRing) writeLargeAttributes(a);
    for (int round = 3; round < 5; ++round) {
      writeManyNames(a, round);
      a.checkpoint();
    }
    return a.status();
  }));
  if (options.clean) return sample;
  std::unique_ptr<MemoryDevice> crashed;
  const Work work = [&](Author& a, Filesystem&) -> Status {
    const InodeNo orphan = a.file(kTop, "orphan");
    a.write(orphan, 0, "read by whoever has it open");
    const OpenFilePtr held = a.open(orphan);
    a.unlink(kTop, "orphan");
    TRY(leaveRecords(a, options.blockSize));
    crashed = sample.device->clone();
    return Status::ok();
  };
  TRY(mountAnd(*sample.device, false, work));
  sample.device = std::move(crashed);
  return sample;
}

}  // namespace ourfs::images
