// ourfs-fsx: random operations on one file, against a copy of it in memory.
//
//   ourfs-fsx [--seed N] [--operations N] [--size BYTES] [--log FILE] FILE
//   ourfs-fsx --replay LOG FILE
//
// The idea is Apple's and NeXT's fsx: every kind of access mixed on the same bytes finds what each
// alone does not. FILE is made anew. Before an operation that lets the file grow, but a direct
// write, its last page is polluted behind the end through a mapping: what becomes part of the file
// has to read as zeros all the same. Exit code 1: the file is not what it should be; seed,
// operation and the wrong range are printed, and the log (FILE.fsxlog) holds all operations, to be
// run again with --replay. 2: wrong use, or an operation failed.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "random_seed.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kWholeCheck = 500;  // operations from one look at the whole file to the next

enum class Kind {
  Write,
  Read,
  DirectWrite,
  DirectRead,
  MapWrite,
  MapRead,
  Truncate,
  Allocate,
  AllocateKeep,
  Punch,
  Zero,
  ZeroKeep,
  Copy,
  Fsync,
  Forget,  // the kernel's clean pages
  Reopen,
};
struct KindName {
  Kind kind;
  const char* name;
  int weight;
};
constexpr KindName kKinds[] = {
    {Kind::Write, "write", 20},
    {Kind::Read, "read", 15},
    {Kind::DirectWrite, "direct-write", 6},
    {Kind::DirectRead, "direct-read", 6},
    {Kind::MapWrite, "map-write", 12},
    {Kind::MapRead, "map-read", 8},
    {Kind::Truncate, "truncate", 8},
    {Kind::Allocate, "allocate", 3},
    {Kind::AllocateKeep, "allocate-keep", 2},
    {Kind::Punch, "punch", 5},
    {Kind::Zero, "zero", 3},
    {Kind::ZeroKeep, "zero-keep", 3},
    {Kind::Copy, "copy", 4},
    {Kind::Fsync, "fsync", 2},
    {Kind::Forget, "forget", 3},
    {Kind::Reopen, "reopen", 1},
};

struct Operation {
  Kind kind = Kind::Read;
  uint64_t at = 0, length = 0, to = 0;
  bool pollute = false;
};

const char* nameOf(Kind kind) {
  for (const KindName& k : kKinds)
    if (k.kind == kind) return k.name;
  return "?";
}

struct Options {
  uint64_t seed = 0, operations = 10000, size = 256 * 1024;
  std::string path, log, replay;
};

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "ourfs-fsx: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(2);
}
[[noreturn]] void refuse(const std::string& what) {
  std::fprintf(stderr, "ourfs-fsx: %s\n", what.c_str());
  std::exit(2);
}

class Exerciser {
 public:
  explicit Exerciser(const Options& options)
      : options_(options), random_(options.seed), good_(options.size) {
    if (options.replay.empty()) {
      log_.open(options.log, std::ios::trunc);
      log_ << "size " << options.size << " seed " << options.seed << "\n";
      if (!log_) die(options.log);
    }
    open(O_CREAT | O_TRUNC);
  }
  ~Exerciser() { closeAll(); }
  Exerciser(const Exerciser&) = delete;
  Exerciser& operator=(const Exerciser&) = delete;

  // Whether the file was right all the time.
  bool run() {
    std::ifstream replay(options_.replay);
    if (!options_.replay.empty()) {
      std::string header;
      if (!std::getline(replay, header)) die(options_.replay);
    }
    for (uint64_t n = 1; options_.replay.empty() ? n <= options_.operations : true; ++n) {
      Operation operation;
      if (options_.replay.empty()) {
        operation = choose();
        write(operation, n);
      } else if (!read(replay, operation, n)) {
        break;
      }
      now_ = n;
      apply(operation);
      if (!wrong_ && (n % kWholeCheck == 0 || operation.kind == Kind::Reopen)) checkWhole();
      if (wrong_) {
        std::printf("  in operation %lu, %s at %lu, %lu bytes; seed %lu; again with --replay %s\n",
                    n, nameOf(operation.kind), operation.at, operation.length, options_.seed,
                    options_.log.c_str());
        return false;
      }
    }
    reopen();
    checkWhole();
    return !wrong_;
  }

 private:
  // ---- choosing ----
  uint64_t pick(uint64_t below) { return random_.below(below); }
  Operation choose() {
    Operation o;
    int total = 0;
    for (const KindName& k : kKinds) total += k.weight;
    int dice = static_cast<int>(pick(static_cast<uint64_t>(total)));
    for (const KindName& k : kKinds) {
      o.kind = k.kind;
      if ((dice -= k.weight) < 0) break;
    }
    const uint64_t most = good_.size();
    // Short and long, at the end of the file and anywhere.
    const uint64_t longest = pick(3) == 0 ? 64 * 1024 : 8 * 1024;
    o.at = pick(4) == 0 ? std::min(size_, most - 1) : pick(most);
    o.length = 1 + pick(std::min(longest, most - o.at));
    o.pollute = pick(2) == 0;
    switch (o.kind) {
      case Kind::DirectWrite:
      case Kind::DirectRead:
        o.at = o.at / kPage * kPage;
        o.length = std::min((o.length + kPage - 1) / kPage * kPage, most - o.at);
        break;
      case Kind::MapWrite:
      case Kind::MapRead:
      case Kind::Read:
        o.at = pick(std::max<uint64_t>(size_, 1));
        break;
      case Kind::Copy:
        o.to = pick(most);
        o.length = 1 + pick(std::min({longest, most - o.to, most - o.at}));
        break;
      default:
        break;
    }
    return o;
  }
  void write(const Operation& o, uint64_t n) {
    log_ << n << " " << nameOf(o.kind) << " " << o.at << " " << o.length << " " << o.to << " "
         << o.pollute << "\n";
  }
  bool read(std::istream& in, Operation& o, uint64_t& n) {
    std::string line, kind;
    if (!std::getline(in, line)) return false;
    std::istringstream words(line);
    if (!(words >> n >> kind >> o.at >> o.length >> o.to >> o.pollute))
      refuse("cannot read '" + line + "'");
    for (const KindName& k : kKinds) {
      if (kind != k.name) continue;
      o.kind = k.kind;
      return true;
    }
    refuse("no operation '" + kind + "'");
  }

  // ---- doing ----
  void open(int flags) {
    file_ = ::open(options_.path.c_str(), O_RDWR | O_CLOEXEC | flags, 0644);
    if (file_ < 0) die(options_.path);
    direct_ = ::open(options_.path.c_str(), O_RDWR | O_CLOEXEC | O_DIRECT);
    if (direct_ < 0) die(options_.path + " with O_DIRECT");
  }
  void closeAll() { ::close(file_), ::close(direct_); }
  void reopen() {
    closeAll();
    open(0);
  }
  // No two operations write the same bytes anywhere.
  char byteAt(uint64_t pos) const {
    uint64_t x = (now_ * 0x9E3779B97F4A7C15u) ^ (pos * 0xD1B54A32D192ED03u);
    x ^= x >> 29;
    return static_cast<char>(1 + x % 255);
  }
  // The bytes that this operation writes, also put into the copy.
  const char* fresh(uint64_t at, uint64_t length) {
    for (uint64_t i = 0; i < length; ++i) buffer()[i] = good_[at + i] = byteAt(at + i);
    return buffer();
  }
  char* buffer() { return static_cast<char*>(buffer_.get()); }
  void zero(uint64_t from, uint64_t to) {
    if (from < to) std::memset(good_.data() + from, 0, to - from);
  }
  void grow(uint64_t size) {
    if (size <= size_) return;
    zero(size_, size);
    size_ = size;
  }
  void must(bool done, const char* what) {
    if (!done) die("operation " + std::to_string(now_) + ", " + what);
  }

  // Bytes behind the end of the file, which are nobody's.
  void storeBehindTheEnd(char byte) {
    if (size_ == 0 || size_ % kPage == 0) return;
    const uint64_t page = size_ / kPage * kPage;
    char* map = mapping(page, kPage);
    for (uint64_t i = size_ - page; i < kPage; ++i) map[i] = byte;
    munmap(map, kPage);
  }
  char* mapping(uint64_t page, uint64_t length) {
    void* map =
        mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, file_, static_cast<off_t>(page));
    must(map != MAP_FAILED, "mmap");
    return static_cast<char*>(map);
  }

  // How much of a copy is done: no more than there is, and nothing between ranges that overlap.
  uint64_t copied(const Operation& o) const {
    const uint64_t length = o.at < size_ ? std::min(o.length, size_ - o.at) : 0;
    const uint64_t apart = o.at < o.to ? o.to - o.at : o.at - o.to;
    return apart < length ? 0 : length;
  }
  // To which size, or 0; not by a direct write.
  uint64_t growsBy(const Operation& o) const {
    if (o.kind == Kind::Truncate) return o.at;
    if (o.kind == Kind::Copy) return copied(o) == 0 ? 0 : o.to + copied(o);
    const bool grows = o.kind == Kind::Write || o.kind == Kind::Allocate || o.kind == Kind::Zero;
    return grows ? o.at + o.length : 0;
  }

  void apply(const Operation& o) {
    const auto at = static_cast<off_t>(o.at), length = static_cast<off_t>(o.length);
    const uint64_t end = o.at + o.length;
    if (o.pollute && growsBy(o) > size_) storeBehindTheEnd('P');
    // What a mapping stored there shows on ext4 (Linux 6.18) after a direct write further out.
    if (o.kind == Kind::DirectWrite && end > size_) storeBehindTheEnd(0);
    switch (o.kind) {
      case Kind::Write:
      case Kind::DirectWrite: {
        grow(end);
        const int fd = o.kind == Kind::Write ? file_ : direct_;
        must(pwrite(fd, fresh(o.at, o.length), o.length, at) == length, "pwrite");
        return;
      }
      case Kind::Read:
        return check(file_, o.at, o.length);
      case Kind::DirectRead:
        return check(direct_, o.at, o.length);
      case Kind::MapWrite:
      case Kind::MapRead:
        return throughMapping(o);
      case Kind::Truncate:
        must(ftruncate(file_, at) == 0, "ftruncate");
        if (o.at < size_) size_ = o.at;
        return grow(o.at);
      case Kind::Allocate:
        must(fallocate(file_, 0, at, length) == 0, "fallocate");
        return grow(end);
      case Kind::AllocateKeep:
        must(fallocate(file_, FALLOC_FL_KEEP_SIZE, at, length) == 0, "fallocate");
        return;
      case Kind::Punch:
        must(fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length) == 0,
             "punch");
        return zero(o.at, std::min(end, size_));
      case Kind::Zero:
        must(fallocate(file_, FALLOC_FL_ZERO_RANGE, at, length) == 0, "zero range");
        grow(end);
        return zero(o.at, end);
      case Kind::ZeroKeep:
        must(fallocate(file_, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at, length) == 0,
             "zero range");
        return zero(o.at, std::min(end, size_));
      case Kind::Copy:
        return copy(o);
      case Kind::Fsync:
        must(fsync(file_) == 0, "fsync");
        return;
      case Kind::Forget:
        must(posix_fadvise(file_, 0, 0, POSIX_FADV_DONTNEED) == 0, "fadvise");
        return;
      case Kind::Reopen:
        return reopen();
    }
  }
  void throughMapping(const Operation& o) {
    if (o.at >= size_) return;
    const uint64_t length = std::min(o.length, size_ - o.at), page = o.at / kPage * kPage;
    const uint64_t mapped = o.at + length - page;
    char* map = mapping(page, mapped);
    if (o.kind == Kind::MapWrite)
      std::memcpy(map + (o.at - page), fresh(o.at, length), length);
    else
      compare(map + (o.at - page), o.at, length);
    munmap(map, mapped);
  }
  void copy(const Operation& o) {
    const uint64_t length = copied(o);
    if (length == 0) return;
    for (uint64_t done = 0; done < length;) {
      auto from = static_cast<off64_t>(o.at + done), to = static_cast<off64_t>(o.to + done);
      const ssize_t n = copy_file_range(file_, &from, file_, &to, length - done, 0);
      must(n > 0, "copy_file_range");
      done += static_cast<uint64_t>(n);
    }
    grow(o.to + length);
    std::memcpy(good_.data() + o.to, good_.data() + o.at, length);
  }

  // ---- judging ----
  void check(int fd, uint64_t at, uint64_t length) {
    const uint64_t there = at < size_ ? std::min(length, size_ - at) : 0;
    const ssize_t got = pread(fd, buffer(), length, static_cast<off_t>(at));
    if (got < 0) die("operation " + std::to_string(now_) + ", pread");
    if (static_cast<uint64_t>(got) != there) {
      std::printf("%s: read %zd bytes at %lu, there are %lu\n", options_.path.c_str(), got, at,
                  there);
      wrong_ = true;
      return;
    }
    compare(buffer(), at, there);
  }
  void compare(const char* bytes, uint64_t at, uint64_t length) {
    if (std::memcmp(bytes, good_.data() + at, length) == 0) return;
    uint64_t first = 0, last = length - 1;
    while (bytes[first] == good_[at + first]) ++first;
    while (bytes[last] == good_[at + last]) --last;
    std::printf("%s: wrong from %lu to %lu of %lu: 0x%02x, not 0x%02x\n", options_.path.c_str(),
                at + first, at + last, size_, static_cast<unsigned char>(bytes[first]),
                static_cast<unsigned char>(good_[at + first]));
    wrong_ = true;
  }
  void checkWhole() {
    struct stat st {};
    if (fstat(file_, &st) != 0) die("fstat");
    if (static_cast<uint64_t>(st.st_size) != size_) {
      std::printf("%s: the size is %lu, not %lu\n", options_.path.c_str(),
                  static_cast<uint64_t>(st.st_size), size_);
      wrong_ = true;
      return;
    }
    check(file_, 0, good_.size());
  }

  const Options options_;
  ourfs::test::Random random_;
  std::vector<char> good_;  // the file as it should be; behind size_ it means nothing
  uint64_t size_ = 0, now_ = 0;
  bool wrong_ = false;
  std::ofstream log_;
  int file_ = -1, direct_ = -1;
  std::unique_ptr<void, decltype(&std::free)> buffer_{
      std::aligned_alloc(kPage, (good_.size() + kPage - 1) / kPage * kPage), std::free};
};

}  // namespace

int main(int argc, char** argv) {
  Options o;
  o.seed = std::random_device()();
  CLI::App app("Random operations on one file, against a copy of it in memory.", "ourfs-fsx");
  app.add_option("FILE", o.path, "made anew")->required();
  app.add_option("--seed", o.seed, "of the random operations");
  app.add_option("--operations", o.operations)->capture_default_str();
  app.add_option("--size", o.size, "largest, in bytes")
      ->check(CLI::Range(kPage, uint64_t{1} << 30))
      ->capture_default_str();
  app.add_option("--log", o.log, "where the operations go; FILE.fsxlog");
  app.add_option("--replay", o.replay, "the operations of this log");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (!o.replay.empty()) {
    std::ifstream log(o.replay);
    std::string word;
    if (!(log >> word >> o.size >> word >> o.seed) || o.size < kPage)
      refuse("cannot read " + o.replay);
    o.log = o.replay;
    std::printf("fsx: seed %lu, again from %s\n", o.seed, o.replay.c_str());
  } else {
    std::printf("fsx: seed %lu, %lu operations\n", o.seed, o.operations);
  }
  if (o.log.empty()) o.log = o.path + ".fsxlog";
  return Exerciser(o).run() ? 0 : 1;
}
