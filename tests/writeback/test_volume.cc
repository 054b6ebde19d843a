#include "test_volume.h"

#include <algorithm>
#include <cstring>
#include <thread>

namespace ourfs::test {

namespace {

#if defined(__has_feature)
#define THREADS_WATCHED __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define THREADS_WATCHED 1
#else
#define THREADS_WATCHED 0
#endif
#if THREADS_WATCHED
#define UNWATCHED __attribute__((no_sanitize("thread"), noinline))
#else
#define UNWATCHED
#endif
UNWATCHED void copyUnwatched(std::byte* to, const std::byte* from, size_t n) {
  for (size_t i = 0; i < n; ++i) *const_cast<volatile std::byte*>(to + i) = from[i];
}

IomapType typeOf(ExtentState state) {
  switch (state) {
    case ExtentState::Hole:
      return IomapType::Hole;
    case ExtentState::Delalloc:
      return IomapType::Delalloc;
    case ExtentState::Mapped:
      return IomapType::Mapped;
    case ExtentState::Unwritten:
      return IomapType::Unwritten;
  }
  return IomapType::Hole;
}

std::vector<uint64_t> cached(const Mapping& mapping, uint64_t from, uint64_t to) {
  std::vector<uint64_t> found;
  for (;;) {
    const auto next = mapping.pages.nextCached(from, to);
    if (!next) return found;
    found.push_back(*next);
    from = *next + 1;
  }
}

}  // namespace

void CopyingDevice::submit(IoRequest request) {
  if (request.op != IoOp::Write) return inner_.submit(std::move(request));
  const bool data = request.cls == IoClass::Data;
  if (data) submitted_(request.offset, request.length);
  auto copy = std::make_shared<std::vector<std::byte>>(request.length.v);
  size_t at = 0;
  for (const IoVec& piece : request.pieces) {
    copyUnwatched(copy->data() + at, piece.data, piece.size);
    at += piece.size;
  }
  request.pieces = {{copy->data(), copy->size()}};
  request.done = [this, data, copy, at = request.offset, length = request.length,
                  done = std::move(request.done)](Status status) {
    if (data && status.isOk()) written_(at, length);
    done(std::move(status));
  };
  inner_.submit(std::move(request));
}

std::string pattern(uint64_t seed, size_t length) {
  std::string s(length, '\0');
  uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
  for (char& c : s) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    c = static_cast<char>('!' + (x >> 33) % 90);
  }
  return s;
}

TestVolume::TestVolume(const VolumeOptions& o)
    : options(o),
      memory(MemoryDevice::create(o.size)),
      record(RecordDevice::wrap(*memory)),
      fault(FaultDevice::wrap(o.recording ? static_cast<BlockDevice&>(*record) : *memory)),
      device(
          *fault, [this](DeviceOffset at, ByteCount n) { dataSubmitted(at, n); },
          [this](DeviceOffset at, ByteCount n) { dataWritten(at, n); }),
      pool(std::max(o.blockSize, 4096u), o.cacheLimit) {
  memory->setFill(std::byte{0xEE});  // what was never written must never show
  for (uint64_t b = 1; b < o.size.v / o.blockSize; ++b) free_.insert(b);
}

TestVolume::~TestVolume() { SyncPoints::instance().reset(); }

std::shared_ptr<Mapping> TestVolume::newFile() {
  auto file = std::make_shared<Mapping>(InodeNo(nextIno_++), options.blockSize, pool, counters);
  MutexLock lock(file->extents.mutex());
  file->extents.load({});
  return file;
}

void TestVolume::violated(const std::string& what) {
  std::lock_guard lock(mutex_);
  violations_.push_back(what);
}

// --- space ---

DeviceOffset TestVolume::allocate(uint64_t want, uint64_t& got) {
  std::lock_guard lock(mutex_);
  got = 0;
  if (free_.empty()) return DeviceOffset(0);
  auto at = options.largestPiece == UINT64_MAX ? free_.begin() : free_.lower_bound(cursor_);
  if (at == free_.end()) at = free_.begin();
  const uint64_t first = *at;
  want = std::min(want, options.largestPiece);
  while (got < want && at != free_.end() && *at == first + got) {
    written_.erase(*at);
    at = free_.erase(at);
    ++got;
  }
  cursor_ = first + got + 1;  // never adjacent to the piece before
  return DeviceOffset(first * options.blockSize);
}

void TestVolume::dataSubmitted(DeviceOffset at, ByteCount length) {
  std::lock_guard lock(mutex_);
  for (uint64_t b = at.v / options.blockSize; b * options.blockSize < (at + length).v; ++b)
    if (free_.count(b) != 0) violations_.push_back("a write to free block " + std::to_string(b));
}

void TestVolume::dataWritten(DeviceOffset at, ByteCount length) {
  std::lock_guard lock(mutex_);
  for (uint64_t b = at.v / options.blockSize; b * options.blockSize < (at + length).v; ++b) {
    if (free_.count(b) != 0)
      violations_.push_back("block " + std::to_string(b) + " was freed during a write to it");
    written_.insert(b);
  }
}

void TestVolume::release(const Extent& extent) {
  if (extent.state != ExtentState::Mapped && extent.state != ExtentState::Unwritten) return;
  std::lock_guard lock(mutex_);
  for (uint64_t b = 0; b < extent.length.v / options.blockSize; ++b)
    if (!free_.insert(extent.address.v / options.blockSize + b).second)
      violations_.push_back("a block was freed twice");
}

uint64_t TestVolume::freeBlocks() const {
  std::lock_guard lock(mutex_);
  return free_.size();
}

void TestVolume::setHole(Mapping& mapping, FileOffset from, FileOffset to) {
  if (from >= to) return;
  const Extent hole{.offset = from, .length = to - from, .address = {}};
  for (const Extent& gone : mapping.extents.set(hole).replaced) release(gone);
}

// --- maps ---

Iomap TestVolume::toMap(Mapping& mapping, const Extent& extent) const {
  return {.offset = extent.offset,
          .length = extent.length,
          .address = extent.address,
          .type = typeOf(extent.state),
          .flags = 0,
          .cookie = mapping.extents.sequence()};
}

Result<Iomap> TestVolume::begin(Mapping& mapping, FileOffset pos, ByteCount length,
                                IomapIntent intent) {
  MutexLock lock(mapping.extents.mutex());
  Extent e = mapping.extents.find(pos);
  if (e.state != ExtentState::Hole || intent != IomapIntent::Write) return toMap(mapping, e);
  Extent promise;
  promise.offset = FileOffset(roundDown(pos.v, options.blockSize));
  promise.length =
      std::min(FileOffset(roundUp((pos + length).v, options.blockSize)), e.end()) - promise.offset;
  promise.state = ExtentState::Delalloc;
  mapping.extents.set(promise);
  Iomap map = toMap(mapping, promise);
  map.flags = kIomapNew;
  return map;
}

Status TestVolume::end(Mapping&, const Iomap&, FileOffset, ByteCount, IomapIntent) { return {}; }

void TestVolume::punchDelalloc(Mapping& mapping, FileOffset from, FileOffset to) {
  MutexLock lock(mapping.extents.mutex());
  std::vector<Extent> promises;
  mapping.extents.forEach(from, to, [&](const Extent& e) {
    if (e.state == ExtentState::Delalloc) promises.push_back(e);
    return true;
  });
  for (const Extent& e : promises)
    setHole(mapping, std::max(e.offset, from), std::min(e.end(), to));
}

Result<Iomap> TestVolume::mapForWriteback(Mapping& mapping, FileOffset pos, ByteCount length) {
  if (mapError_ != 0) return Status::error(mapError_);
  MutexLock lock(mapping.extents.mutex());
  const Extent e = mapping.extents.find(pos);
  if (e.state != ExtentState::Delalloc) return toMap(mapping, e);
  Extent real = e;
  real.offset = FileOffset(roundDown(pos.v, options.blockSize));
  const uint64_t want =
      std::min(e.end() - real.offset, ByteCount(roundUp(length.v, options.blockSize))).v;
  uint64_t got = 0;
  real.address = allocate(want / options.blockSize, got);
  if (got == 0) return Status::error(ENOSPC);
  real.length = bytes(got);
  real.state = ExtentState::Unwritten;
  mapping.extents.set(real);
  return toMap(mapping, real);
}

Result<std::shared_ptr<void>> TestVolume::prepare() {
  if (prepareError_ != 0) return Status::error(prepareError_);
  std::unique_lock lock(mutex_);
  ++waiting_;
  reservationFreed_.wait(lock, [this] { return held_ < options.reservations + more_; });
  --waiting_;
  ++held_;
  return std::shared_ptr<void>(this, [](void* self) {
    auto& volume = *static_cast<TestVolume*>(self);
    std::lock_guard guard(volume.mutex_);
    --volume.held_;
    volume.reservationFreed_.notify_all();
  });
}

void TestVolume::waitForReserver() {
  const auto waits = [this] {
    std::lock_guard lock(mutex_);
    return waiting_ > 0;
  };
  while (!waits()) std::this_thread::yield();
}

void TestVolume::allowReservations(int more) {
  std::lock_guard lock(mutex_);
  more_ += more;
  reservationFreed_.notify_all();
}

int TestVolume::reservationsHeld() const {
  std::lock_guard lock(mutex_);
  return held_;
}

void TestVolume::checkDataFirst(const Ioend& ioend, DeviceOffset address, ByteCount length) {
  for (const auto& folio : ioend.folios)
    if (!folio->inWriteback()) violated("a folio left writeback before its conversion");
  if (!ioend.reservation) violated("no reservation for a commit");
  std::lock_guard lock(mutex_);
  for (uint64_t b = address.v / options.blockSize; b * options.blockSize < (address + length).v;
       ++b)
    if (written_.count(b) == 0) violations_.push_back("Mapped before its data was on disk");
}

Status TestVolume::finish(Ioend& ioend) {
  if (finishError_ != 0) return Status::error(finishError_);
  ExtentMap& map = ioend.mapping->extents;
  MutexLock lock(map.mutex());
  std::vector<Extent> ready;
  const FileOffset end = ioend.offset + ioend.length;
  map.forEach(ioend.offset, end, [&](const Extent& e) {
    const FileOffset from = std::max(e.offset, ioend.offset);
    const DeviceOffset address = e.address + (from - e.offset);
    if (e.state == ExtentState::Unwritten && address == ioend.address + (from - ioend.offset))
      ready.push_back({from, std::min(e.end(), end) - from, address, ExtentState::Mapped, true});
    return true;
  });
  for (const Extent& e : ready) {
    checkDataFirst(ioend, e.address, e.length);
    map.set(e);
  }
  const uint64_t size = std::min(end.v, ioend.sizeAtSubmit.v);
  if (size > ioend.mapping->storedSize) ioend.mapping->storedSize = size;
  std::lock_guard guard(mutex_);
  finished_.push_back({ioend.offset, ioend.length, FileOffset(size)});
  return {};
}

void TestVolume::abort(Ioend& ioend) {
  MutexLock lock(ioend.mapping->extents.mutex());
  const FileOffset from = ioend.offset, to = from + ioend.length;
  std::vector<Extent> given;
  ioend.mapping->extents.forEach(from, to, [&](const Extent& e) {
    if (!e.stored) given.push_back(e);
    return true;
  });
  for (const Extent& e : given)
    setHole(*ioend.mapping, std::max(e.offset, from), std::min(e.end(), to));
}

// --- file operations ---

void TestVolume::fillEdges(Mapping& mapping, LockedFolio& folio, uint32_t from, uint32_t to) {
  const uint32_t blockSize = folio->blockSize();
  for (uint32_t b = from / blockSize; b * blockSize < to; ++b) {
    if (folio->uptodate(b)) continue;
    const FileOffset pos = folio->offset() + ByteCount(uint64_t{b} * blockSize);
    const Extent e = extentAt(mapping, pos.v);
    const std::span<std::byte> into(folio->data() + uint64_t{b} * blockSize, blockSize);
    if (e.state == ExtentState::Mapped)
      EXPECT_TRUE(device.read(e.address + (pos - e.offset), into).isOk());
    else
      std::fill(into.begin(), into.end(), std::byte{0});
    folio->setUptodate(b);
  }
}

Status TestVolume::storeInFolio(Mapping& mapping, uint64_t pos, std::string_view data) {
  const uint32_t folioSize = pool.folioSize();
  LockedFolio folio = mapping.pages.lockOrCreate(pos / folioSize);
  const auto from = static_cast<uint32_t>(pos % folioSize);
  const auto to = from + static_cast<uint32_t>(data.size());
  fillEdges(mapping, folio, from, to);
  for (uint64_t at = pos; at < pos + data.size();) {
    TRY_ASSIGN(const Iomap map, begin(mapping, FileOffset(at), ByteCount(pos + data.size() - at),
                                      IomapIntent::Write));
    at = map.end().v;
  }
  std::memcpy(folio->data() + from, data.data(), data.size());
  mapping.pages.markDirty(folio, from, to);
  if (mapping.size < pos + data.size()) mapping.size = pos + data.size();
  return {};
}

Status TestVolume::store(Mapping& mapping, uint64_t pos, const std::string& data) {
  for (size_t done = 0; done < data.size();) {
    const uint64_t at = pos + done;
    const size_t n = std::min<size_t>(data.size() - done, pool.folioSize() - at % pool.folioSize());
    TRY(storeInFolio(mapping, at, std::string_view(data).substr(done, n)));
    done += n;
  }
  return {};
}

void TestVolume::truncate(Mapping& mapping, uint64_t size) {
  ExclusiveLock invalidate(mapping.invalidateLock);
  IoContext context = io();
  EXPECT_TRUE(truncateCache(mapping, context, FileOffset(size)).isOk());
  MutexLock lock(mapping.extents.mutex());
  mapping.storedSize = size;
  setHole(mapping, FileOffset(roundUp(size, options.blockSize)), kFileEnd);
}

void TestVolume::preallocate(Mapping& mapping, uint64_t length) {
  uint64_t got = 0;
  const uint64_t blocks = length / options.blockSize;
  const DeviceOffset address = allocate(blocks, got);
  ASSERT_EQ(got, blocks);
  MutexLock lock(mapping.extents.mutex());
  mapping.extents.set({FileOffset(0), bytes(got), address, ExtentState::Unwritten, true});
  mapping.size = mapping.storedSize = length;
}

void TestVolume::punch(Mapping& mapping, uint64_t from, uint64_t to) {
  ExclusiveLock invalidate(mapping.invalidateLock);
  dropFolios(mapping, FileOffset(from), FileOffset(to));
  MutexLock lock(mapping.extents.mutex());
  setHole(mapping, FileOffset(from), FileOffset(to));
}

void TestVolume::freeRange(Mapping& mapping, uint64_t from, uint64_t to) {
  MutexLock lock(mapping.extents.mutex());
  setHole(mapping, FileOffset(from), FileOffset(to));
}

void TestVolume::freeBehind(Mapping& mapping, uint64_t size) {
  MutexLock lock(mapping.extents.mutex());
  mapping.storedSize = size;
  setHole(mapping, FileOffset(roundUp(size, options.blockSize)), kFileEnd);
}

// --- what a test asks ---

Extent TestVolume::extentAt(Mapping& mapping, uint64_t pos) {
  MutexLock lock(mapping.extents.mutex());
  return mapping.extents.find(FileOffset(pos));
}

std::vector<Extent> TestVolume::extents(Mapping& mapping) {
  MutexLock lock(mapping.extents.mutex());
  std::vector<Extent> all;
  mapping.extents.forEach(FileOffset(0), kFileEnd, [&](const Extent& e) {
    all.push_back(e);
    return true;
  });
  return all;
}

std::string TestVolume::onDisk(Mapping& mapping) {
  std::string all(mapping.size, '\0');
  for (const Extent& e : extents(mapping)) {
    if (e.state != ExtentState::Mapped || e.offset.v >= all.size()) continue;
    std::string part(e.length.v, '\0');
    std::span<char> chars(part);
    EXPECT_TRUE(memory->read(e.address, std::as_writable_bytes(chars)).isOk());
    part.resize(std::min<size_t>(part.size(), all.size() - e.offset.v));
    all.replace(e.offset.v, part.size(), part);
  }
  return all;
}

std::string TestVolume::behindTheEnd(Mapping& mapping) {
  const uint64_t size = mapping.size, start = roundDown(size, options.blockSize);
  const Extent e = extentAt(mapping, start);
  if (size == start || e.state != ExtentState::Mapped) return "";
  std::string block(options.blockSize, '\0');
  std::span<char> chars(block);
  EXPECT_TRUE(
      memory->read(e.address + (FileOffset(start) - e.offset), std::as_writable_bytes(chars))
          .isOk());
  const size_t at = block.find_first_not_of('\0', size - start);
  return at == std::string::npos
             ? ""
             : "a byte that is not zero behind the end, at " + std::to_string(start + at);
}

std::string TestVolume::content(Mapping& mapping) {
  std::string all = onDisk(mapping);
  for (const uint64_t index : cached(mapping, 0, UINT64_MAX)) {
    LockedFolio folio = mapping.pages.lock(index);
    if (!folio) continue;
    for (uint32_t b = 0; b < folio->blocks(); ++b) {
      const uint64_t at = folio->offset().v + uint64_t{b} * folio->blockSize();
      if (!folio->uptodate(b) || at >= all.size()) continue;
      const size_t n = std::min<size_t>(folio->blockSize(), all.size() - at);
      std::memcpy(all.data() + at, folio->data() + uint64_t{b} * folio->blockSize(), n);
    }
  }
  return all;
}

std::vector<FinishedIo> TestVolume::finished() const {
  std::lock_guard lock(mutex_);
  return finished_;
}

std::vector<std::string> TestVolume::violations() const {
  std::lock_guard lock(mutex_);
  return violations_;
}

std::string TestVolume::dirtyWithoutSpace(Mapping& mapping) {
  for (const uint64_t index : cached(mapping, 0, UINT64_MAX)) {
    LockedFolio folio = mapping.pages.lock(index);
    for (uint32_t b = 0; folio && b < folio->blocks(); ++b) {
      const uint64_t at = folio->offset().v + uint64_t{b} * folio->blockSize();
      if (folio->dirty(b) && extentAt(mapping, at).state == ExtentState::Hole)
        return "dirty without space at " + std::to_string(at);
    }
  }
  return "";
}

std::vector<RecordedIo> TestVolume::dataWrites() const {
  std::vector<RecordedIo> writes;
  for (RecordedIo& io : record->log())
    if (io.op == IoOp::Write && io.cls == IoClass::Data) writes.push_back(std::move(io));
  return writes;
}

namespace {
FaultRule onDataWrites(FaultKind kind, uint64_t times) {
  FaultRule rule;
  rule.kind = kind;
  rule.op = IoOp::Write;
  rule.cls = IoClass::Data;
  rule.times = times;
  return rule;
}
}  // namespace

int TestVolume::holdWrites(uint64_t times, std::optional<DeviceOffset> at) {
  FaultRule rule = onDataWrites(FaultKind::Hold, times);
  rule.at = at;
  return fault->addRule(rule);
}

int TestVolume::failWrites(int errnum, uint64_t times) {
  FaultRule rule = onDataWrites(FaultKind::Error, times);
  rule.errnum = errnum;
  return fault->addRule(rule);
}

void TestVolume::waitForHeld(uint64_t count) {
  while (fault->held() < count) std::this_thread::yield();
}

}  // namespace ourfs::test
