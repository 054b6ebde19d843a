// ourfs-stale-demo: the corruption of the stale cached map, before your eyes.
//
// On a scratch image, without a mount, it runs the race between a writer and writeback three times:
// with the check of the cookie switched off, with the RFC's way to carry NEW over a remap, and as
// ourfs is. The threads stop and go on at sync points, so the order is the same in every run.
// docs/design.md, "The stale cached map", tells the story.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "block/uring_device.h"
#include "common/sync_point.h"
#include "fs/filesystem.h"
#include "fs/volume.h"

namespace ourfs {
namespace {

constexpr uint64_t kBlock = 64 * KiB;  // two pages of the kernel share a block
constexpr uint64_t kFileSize = 2 * kBlock;
constexpr uint64_t kEarlierAt = kBlock + kBlock / 2;
const Caller kCaller{};

[[noreturn]] void fail(const std::string& what, const Status& why) {
  std::fprintf(stderr, "ourfs-stale-demo: %s: %s\n", what.c_str(), why.message().c_str());
  std::exit(2);
}
void must(const std::string& what, const Status& status) {
  if (!status) fail(what, status);
}
template <class T>
T must(const std::string& what, Result<T> result) {
  if (!result) fail(what, result.status());
  return std::move(result).value();
}

// ---- the time line: the writer on the left, everybody else on the right ----

void left(const std::string& line) { std::printf("    %s\n", line.c_str()); }
void right(const std::string& line) { std::printf("    %-42s%s\n", "", line.c_str()); }

thread_local bool isWriter = false;

void narrate() {
  SyncPoints& points = SyncPoints::instance();
  points.call("writeback.after_submit", [] { right("writes the second block to disk"); });
  points.call("ioend.after_convert", [] { right("ioend: the block is Mapped now"); });
  points.call("reclaim.before_evict", [] { right("reclaim: drops the clean folio"); });
}

// ---- a volume of one file ----

class Scratch {
 public:
  Scratch() {
    const char* folder = std::getenv("TMPDIR");
    std::string path = std::string(folder ? folder : "/var/tmp") + "/ourfs-stale-demo-XXXXXX";
    const int fd = mkstemp(path.data());
    if (fd < 0 || ftruncate(fd, 64 * MiB) != 0) fail(path, Status::error(errno));
    auto image = UringDevice::open(path, UringOptions());
    unlink(path.c_str());
    close(fd);
    image_ = must(path, std::move(image));
    FormatOptions format;
    format.blockSize = kBlock;
    must("mkfs", formatVolume(*image_, format));
    mount();
    ino_ = must("create", filesystem_->mknod(kCaller, InodeNo(1), "file", S_IFREG | 0644, 0)).ino;
  }
  // Two blocks: a hole, or reserved and Unwritten.
  void prepare(bool hole) {
    if (hole) {
      AttributeChange size;
      size.size = kFileSize;
      (void)must("truncate", filesystem_->setattr(kCaller, ino_, size));
      return;
    }
    OpenFilePtr file = open();
    must("fallocate", filesystem_->fallocate(*file, 0, FileOffset(0), ByteCount(kFileSize)));
    filesystem_->release(std::move(file));
  }

  void write(const std::string& bytes, uint64_t at, bool throughMapping = false) {
    OpenFilePtr file = open();
    FileData::WriteFlags flags;
    flags.fromKernelCache = throughMapping;
    flags.mayExtend = false;
    const auto data = std::as_bytes(std::span(bytes));
    const auto done = filesystem_->write(*file, FileOffset(at), data, flags);
    if (must("write", done).v != bytes.size()) fail("write", Status::error(EIO, "short"));
    filesystem_->release(std::move(file));
  }
  // All that is dirty is written, its ioends are awaited, and its folios leave the cache.
  void writeBackAndEvict() {
    FileData& data = filesystem_->data();
    must("writeback", data.writeback().flushAll());
    data.writeback().reclaim(data.pool().limit());
  }
  // As it is on disk.
  std::string readAgain() {
    unmount();
    mount();
    OpenFilePtr file = open();
    std::string bytes(kFileSize, '?');
    const auto into = std::as_writable_bytes(std::span(bytes));
    bytes.resize(must("read", filesystem_->read(*file, FileOffset(0), into)).v);
    filesystem_->release(std::move(file));
    return bytes;
  }
  uint64_t staleWrites() { return filesystem_->data().counters().staleWrite; }
  ~Scratch() { unmount(); }

 private:
  void mount() {
    volume_ = must("mount", Volume::open(*image_, OpenOptions()));
    filesystem_ = must("mount", Filesystem::start(*volume_, FilesystemOptions()));
  }
  OpenFilePtr open() { return must("open", filesystem_->open(ino_, O_RDWR)); }
  void unmount() {
    must("unmount", filesystem_->stop());
    filesystem_.reset();
    must("unmount", volume_->close());
    volume_.reset();
  }
  std::unique_ptr<UringDevice> image_;
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<Filesystem> filesystem_;
  InodeNo ino_;
};

// ---- the races ----

struct Run {
  const char* title;
  const char* mutant;  // the rule that is left out; null: none
  bool newSpace;       // the file is a hole, and the writer itself reserves its blocks
};

// The writer covers the first block and a quarter of the second one. The other half of that one
// holds somebody else's bytes, which come to disk while the writer is busy with the first.
bool race(const Run& run) {
  std::printf("\n%s\n\n    %-42s%s\n", run.title, "WRITER", "EVERYBODY ELSE");
  Scratch scratch;
  SyncPoints& points = SyncPoints::instance();
  const std::string earlier(4096, 'E'), bytes(kBlock + kBlock / 4, 'W');
  scratch.prepare(run.newSpace);
  if (!run.newSpace) {
    scratch.write(earlier, kEarlierAt);
    right("an earlier write: E into the second block");
  }
  if (run.mutant) points.setMutant(run.mutant, true);
  narrate();
  int maps = 0;
  uint64_t stale = 0;
  points.call("write.after_begin", [&] {
    if (!isWriter) return;
    const bool again = scratch.staleWrites() > stale;
    stale = scratch.staleWrites();
    if (++maps == 1)
      left(run.newSpace ? "maps both blocks: new, delayed" : "maps both blocks: Unwritten");
    else
      left(again ? "its cookie does not match: maps again" : "maps the rest");
  });
  points.park("write.before_folio_lock");
  std::thread writer([&] {
    isWriter = true;
    scratch.write(bytes, 0);
  });
  if (!points.awaitParked("write.before_folio_lock")) fail("writer", Status::error(ETIMEDOUT));
  left("is about to copy the first block …");
  if (run.newSpace) {
    scratch.write(earlier, kEarlierAt, true);
    right("a shared mapping stores E into the second");
  }
  scratch.writeBackAndEvict();
  left("… goes on, and fills the second block");
  points.release("write.before_folio_lock");
  writer.join();
  points.reset();

  std::string expected(kFileSize, '\0');
  expected.replace(0, bytes.size(), bytes);
  expected.replace(kEarlierAt, earlier.size(), earlier);
  const std::string found = scratch.readAgain();
  size_t wrong = 0, first = std::string::npos;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (i < found.size() && found[i] == expected[i]) continue;
    if (wrong++ == 0) first = i;
  }
  if (wrong == 0) {
    std::printf("\n  clean: every byte is what was written last\n");
  } else {
    std::printf(
        "\n  CORRUPT: %zu bytes from offset %zu on; there should be '%c', there is 0x%02x\n", wrong,
        first, expected[first], static_cast<unsigned char>(found[first]));
  }
  return wrong == 0;
}

int run() {
  const Run off{"1. Without the check: no cookie is compared", "iomap.no_validation", false};
  const Run blind{"2. The RFC's NEW: carried over a remap, whatever that says",
                  "iomap.carry_new_blindly", true};
  const Run on{"3. ourfs: the same race with all rules", nullptr, false};
  const Run onNew{"   and the second race with all rules", nullptr, true};
  const bool shown = !race(off) && !race(blind);
  const bool clean = race(on) && race(onNew);
  if (shown && clean) return 0;
  std::fprintf(
      stderr, "ourfs-stale-demo: %s\n",
      clean ? "a rule was left out, and nothing went wrong" : "bytes were lost with all rules on");
  return 1;
}

}  // namespace
}  // namespace ourfs

int main() { return ourfs::run(); }
