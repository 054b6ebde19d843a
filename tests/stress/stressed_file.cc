#include "stress/stressed_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace ourfs::stress {
namespace {

std::atomic<uint64_t> numbers;  // of operations, in all files
std::mutex reportMutex;         // one report at a time

}  // namespace

void die(const std::string& what) {
  std::fprintf(stderr, "ourfs-stress: %s: %s\n", what.c_str(), std::strerror(errno));
  std::fflush(nullptr);
  std::_Exit(2);  // the other threads still run
}

Buffer makeBuffer(uint64_t size) {
  return {static_cast<char*>(std::aligned_alloc(kApart, (size / kApart + 1) * kApart)), std::free};
}

StressedFile::StressedFile(std::string path, const Plan& plan)
    : path_(std::move(path)), seed_(plan.seed), kinds_(plan.kinds), good_(plan.size), log_(4096) {
  open(path_, O_CREAT | O_TRUNC);
  struct statvfs volume {};
  must(fstatvfs(file_, &volume) == 0, "statvfs");
  block_ = volume.f_bsize;
}
StressedFile::~StressedFile() { ::close(file_), ::close(direct_); }

void StressedFile::open(const std::string& path, int flags) {
  file_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC | flags, 0644);
  if (file_ < 0) die(path);
  direct_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_DIRECT);
  if (direct_ < 0) die(path + " with O_DIRECT");
}
void StressedFile::must(bool done, const char* what) const {
  if (!done) die(path_ + ": " + what);
}

// ---- choosing ----

bool StressedFile::begin(test::Random& random, unsigned thread, Operation& operation) {
  std::unique_lock lock(mutex_);
  for (int tries = 0; tries < 8; ++tries) {
    operation = choose(random);
    if (std::any_of(held_.begin(), held_.end(),
                    [&](const Operation* o) { return mayNotMeet(*o, operation); }))
      continue;
    operation.thread = thread;
    operation.number = ++numbers;
    operation.place = begun_++ % log_.size();
    held_.push_back(&operation);
    log_[operation.place] = operation;
    return true;
  }
  released_.wait_for(lock, std::chrono::milliseconds(5));
  return false;
}

void StressedFile::end(const Operation& operation) {
  const std::scoped_lock lock(mutex_);
  if (operation.newSize() != operation.size) size_ = operation.newSize();
  std::erase(held_, &operation);
  Operation& logged = log_[operation.place];
  if (logged.number == operation.number) logged.ended = numbers;
  released_.notify_all();
}

// Mostly right beside the bytes of another operation, under way or not: in its block and folio.
uint64_t StressedFile::place(test::Random& random, uint64_t length) const {
  const uint64_t dice = random.below(8), recent = std::min<uint64_t>({begun_, log_.size(), 16});
  if (dice == 0 || recent == 0) return random.below(good_.size());
  if (dice == 1) return size_ - std::min(size_, random.below(length + 5000));
  const Operation& other = dice < 5 && !held_.empty()
                               ? *held_[random.below(held_.size())]
                               : log_[(begun_ - 1 - random.below(recent)) % log_.size()];
  return random.oneIn(2) ? other.to : other.from - std::min(other.from, length);
}

uint64_t StressedFile::newEnd(test::Random& random, uint64_t length) const {
  if (random.oneIn(8)) return random.below(good_.size());
  return random.oneIn(2) ? size_ - std::min(size_, length)
                         : std::min<uint64_t>(size_ + length, good_.size());
}

Operation StressedFile::choose(test::Random& random) const {
  Operation o;
  o.kind = kinds_[random.below(kinds_.size())];
  const uint64_t most = good_.size();
  const uint64_t length = 1 + random.below(random.oneIn(12) ? kLongest : 9000);
  o.size = size_;
  o.from = std::min(place(random, length), most - 1);
  o.to = std::min(o.from + length, most);
  switch (o.kind) {
    case Kind::Fsync:
    case Kind::Fdatasync:
    case Kind::Forget:
      o.from = 0;
      o.to = most;
      return o;
    case Kind::Flush:
    case Kind::AllocateKeep:
      return o;  // changes no byte and looks at none: may run under those that do
    case Kind::Replace:
      o.from = 0;
      o.to = random.below(most);
      return o;
    case Kind::DirectWrite:
    case Kind::DirectRead: {
      const uint64_t unit = std::array{uint64_t{512}, kPage, block_}[random.below(3)];
      o.from = o.from / unit * unit;
      o.to = (o.to + unit - 1) / unit * unit;
      break;
    }
    case Kind::MapStore:
    case Kind::MapRead:  // behind the end is SIGBUS; the bytes held keep the file from being cut
      o.to = std::min(o.to, size_);
      if (o.from < o.to) break;
      o.kind = Kind::Forget;
      o.from = 0;
      o.to = most;
      return o;
    case Kind::Truncate:
      o.from = newEnd(random, length);
      o.to = std::max(o.from, size_);
      break;
    default:
      break;
  }
  o.holdFrom = o.from;
  o.holdTo = o.to;
  if (o.kind == Kind::Truncate || o.to > size_) {  // may change the end, or sees it
    o.holdFrom = std::min(o.from, size_);
    o.holdTo = kForever;
  } else if (o.kind == Kind::Allocate) {
    o.holdFrom = o.to - 1;  // enough to keep the file from being cut; no byte changes
  }
  return o;
}

// ---- doing ----

bool StressedFile::apply(const Operation& o, char* bytes) {
  const auto at = static_cast<off_t>(o.from), length = static_cast<off_t>(o.length());
  switch (o.kind) {
    case Kind::Write:
    case Kind::DirectWrite: {
      const int fd = o.kind == Kind::Write ? file_ : direct_;
      if (o.to > o.size) cleanEnd(o.size);
      const ssize_t done = pwrite(fd, fresh(o, bytes), o.length(), at);
      if (done >= 0 && done != length) errno = EMSGSIZE;  // short
      must(done == length, infoOf(o.kind).name);
      return true;
    }
    case Kind::Read:
      return check(file_, o, bytes, "in a read");
    case Kind::DirectRead:
      return check(direct_, o, bytes, "in a direct read");
    case Kind::MapStore:
    case Kind::MapRead:
      return throughMapping(o, bytes);
    case Kind::Truncate:
      zero(o.from, o.to);
      must(ftruncate(file_, at) == 0, "ftruncate");
      return true;
    case Kind::Allocate:
      changeSpace(o, 0);
      return true;
    case Kind::AllocateKeep:
      changeSpace(o, FALLOC_FL_KEEP_SIZE);
      return true;
    case Kind::Punch:
      zero(o.from, o.to);
      changeSpace(o, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
      return true;
    case Kind::Zero:
      zero(o.from, o.to);
      changeSpace(o, FALLOC_FL_ZERO_RANGE);
      return true;
    case Kind::ZeroKeep:
      zero(o.from, o.to);
      changeSpace(o, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
      return true;
    case Kind::Fsync:
      must(fsync(file_) == 0, "fsync");
      return true;
    case Kind::Fdatasync:
      must(fdatasync(file_) == 0, "fdatasync");
      return true;
    case Kind::Forget:
      must(posix_fadvise(file_, 0, 0, POSIX_FADV_DONTNEED) == 0, "fadvise");
      return true;
    case Kind::Flush:
      must(sync_file_range(file_, at, length, SYNC_FILE_RANGE_WRITE) == 0, "sync_file_range");
      return true;
    case Kind::Replace:
      replace(o);
      return true;
  }
  return false;
}

// The bytes that this operation stores, also put into the copy.
const char* StressedFile::fresh(const Operation& o, char* bytes) {
  for (uint64_t i = o.from; i < o.to; ++i) bytes[i - o.from] = good_[i] = byteAt(o.number, i);
  return bytes;
}
void StressedFile::zero(uint64_t from, uint64_t to) {
  if (from < to) std::memset(good_.data() + from, 0, to - from);
}
void StressedFile::changeSpace(const Operation& o, int mode) const {
  const auto at = static_cast<off_t>(o.from), length = static_cast<off_t>(o.length());
  must(fallocate(file_, mode, at, length) == 0, infoOf(o.kind).name);
}

// No dirty page where the file grows by a write, see Side.
void StressedFile::cleanEnd(uint64_t size) const {
  constexpr unsigned kAll =
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  const auto unit = static_cast<off_t>(size / kApart * kApart);
  must(sync_file_range(file_, unit, kApart, kAll) == 0, "sync_file_range");
}

bool StressedFile::throughMapping(const Operation& o, char* bytes) {
  const uint64_t page = o.from / kPage * kPage, mapped = o.to - page;
  void* map =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file_, static_cast<off_t>(page));
  must(map != MAP_FAILED, "mmap");
  char* there = static_cast<char*>(map) + (o.from - page);
  bool right = true;
  if (o.kind == Kind::MapStore)
    std::memcpy(there, fresh(o, bytes), o.length());
  else
    right = compare(o, there, o.length(), "in a mapping");
  munmap(map, mapped);
  return right;
}

// Another file in its place: by unlink, or renamed over it. The old one goes with its last close.
void StressedFile::replace(const Operation& o) {
  const int oldFile = file_, oldDirect = direct_;
  const bool over = o.number % 2 == 0;
  const std::string other = over ? path_ + ".new" : path_;
  if (!over) must(unlink(path_.c_str()) == 0, "unlink");
  open(other, O_CREAT | O_EXCL);
  if (over) must(rename(other.c_str(), path_.c_str()) == 0, "rename");
  ::close(oldFile), ::close(oldDirect);
  zero(0, good_.size());
  must(ftruncate(file_, static_cast<off_t>(o.to)) == 0, "ftruncate");
}

// ---- judging ----

bool StressedFile::check(int fd, const Operation& o, char* bytes, const std::string& how) {
  const uint64_t there = o.from < o.size ? std::min(o.length(), o.size - o.from) : 0;
  const ssize_t got = pread(fd, bytes, o.length(), static_cast<off_t>(o.from));
  must(got >= 0, "pread");
  if (static_cast<uint64_t>(got) == there) return compare(o, bytes, there, how);
  const std::scoped_lock report(reportMutex);
  std::printf("%s: wrong from %lu: %zd bytes read, not %lu, %s; seed %lu\n", path_.c_str(), o.from,
              got, there, how.c_str(), seed_);
  tellLast(o.from, kForever, 0);
  return false;
}

bool StressedFile::compare(const Operation& o, const char* bytes, uint64_t length,
                           const std::string& how) {
  const char* good = good_.data() + o.from;
  if (std::memcmp(bytes, good, length) == 0) return true;
  const std::scoped_lock report(reportMutex);
  uint64_t first = 0, last = length - 1;
  while (first < last && bytes[first] == good[first]) ++first;
  while (last > first && bytes[last] == good[last]) --last;
  std::printf("%s: wrong from %lu to %lu of %lu, %s; seed %lu\n", path_.c_str(), o.from + first,
              o.from + last, o.size, how.c_str(), seed_);
  const uint64_t shown = std::min(last + 1, first + 16);
  for (const char* text : {"found   ", "expected"}) {
    std::printf("  %s", text);
    for (uint64_t i = first; i < shown; ++i)
      std::printf(" %02x", (*text == 'f' ? bytes : good)[i] & 0xff);
    std::printf("\n");
  }
  tellLast(o.from + first, o.from + last + 1, bytes[first]);
  // The bytes are still held: which of the two caches is it?
  const Buffer again = makeBuffer(last + 1 - first);
  const ssize_t got =
      pread(direct_, again.get(), last + 1 - first, static_cast<off_t>(o.from + first));
  const bool right = got == static_cast<ssize_t>(last + 1 - first) &&
                     std::memcmp(again.get(), good + first, last + 1 - first) == 0;
  std::printf("  past the page cache they are %s\n", right ? "right" : "wrong, too");
  return false;
}

// `found` was found at `from`: says also who wrote that. Leaves out what is for the whole file.
void StressedFile::tellLast(uint64_t from, uint64_t to, char found) {
  const std::scoped_lock lock(mutex_);
  const uint64_t around = from / kApart * kApart;
  std::printf(
      "  the last of %lu operations there, the newest first, with * those on the wrong bytes:\n",
      numbers.load());
  uint64_t told = 0;
  for (uint64_t i = 0; i < std::min<uint64_t>(begun_, log_.size()) && told < 24; ++i) {
    const Operation& o = log_[(begun_ - 1 - i) % log_.size()];
    const uint64_t end = std::max(o.to, o.from + 1);
    if (o.kind == Kind::Fsync || o.kind == Kind::Fdatasync || o.kind == Kind::Forget) continue;
    if (o.kind != Kind::Replace && !overlap(around, std::max(to, around + kApart), o.from, end))
      continue;
    ++told;
    const bool its = o.stores() && from >= o.from && from < o.to && byteAt(o.number, from) == found;
    std::printf("  %s #%lu %s from %lu to %lu, size %lu, thread %u, %s%s\n",
                overlap(from, to, o.from, end) ? "*" : " ", o.number, infoOf(o.kind).name, o.from,
                o.to, o.size, o.thread,
                o.ended == 0 ? "under way" : ("ended after #" + std::to_string(o.ended)).c_str(),
                its ? "; the first byte found is its own" : "");
  }
}

bool StressedFile::checkWhole(char* bytes, const std::string& when) {
  struct stat st {};
  must(fstat(file_, &st) == 0, "fstat");
  Operation whole{.kind = Kind::Read, .from = 0, .to = good_.size(), .size = size_};
  if (static_cast<uint64_t>(st.st_size) == size_)
    return check(file_, whole, bytes, when + ", through the page cache") &&
           check(direct_, whole, bytes, when + ", past the page cache");
  const std::scoped_lock report(reportMutex);
  const auto size = static_cast<uint64_t>(st.st_size);
  std::printf("%s: wrong from %lu: the size is %lu, not %lu, %s; seed %lu\n", path_.c_str(),
              std::min(size, size_), size, size_, when.c_str(), seed_);
  tellLast(std::min(size, size_), kForever, 0);
  return false;
}

void StressedFile::writeExpected(const std::string& path) const {
  std::ofstream out(path, std::ios::binary);
  out.write(good_.data(), static_cast<std::streamsize>(size_)).flush();
  if (!out) die(path);
}

}  // namespace ourfs::stress
