// TestFile: one file on a device in memory, with verbs for everything that can happen to it, and a
// byte model of what it must hold. Writeback is driven by the test, step by step: submit, ioend,
// evict.
//
// The verbs that change data also change the model; they may be called from several threads only
// where the test keeps the model out of it (use the operations on `mapping` then).
#pragma once

#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <thread>

#include "common/sync_point.h"
#include "iomap/test_ops.h"

namespace ourfs::test {

// `length` bytes that no other seed gives, none of them zero or poison.
inline std::vector<std::byte> pattern(uint64_t seed, size_t length) {
  std::vector<std::byte> bytes(length);
  uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
  for (std::byte& b : bytes) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    b = static_cast<std::byte>(1 + (x >> 33) % 200);
  }
  return bytes;
}

class TestFile {
 public:
  static constexpr uint64_t kDeviceSize = 32 * MiB;
  explicit TestFile(uint32_t block = 4096, uint64_t deviceSize = kDeviceSize)
      : blockSize(block),
        device(MemoryDevice::create(ByteCount(deviceSize))),
        space(*device, block),
        pool(std::max<uint32_t>(block, 4096), ByteCount(64 * MiB)),
        ops(space, block),
        mapping(InodeNo(42), block, pool, counters),
        io{*device, ops, [this](Mapping&) { ++dirtiedCalls; }} {}
  ~TestFile() { dropFolios(mapping, FileOffset(0), kFileEnd); }

  const uint32_t blockSize;
  std::unique_ptr<MemoryDevice> device;
  TestSpace space;
  FolioPool pool;
  MappingCounters counters;
  TestOps ops;
  Mapping mapping;
  IoContext io;
  SharedMutex inodeLock;
  std::atomic<uint64_t> dirtiedCalls{0}, lostWrites{0};
  std::vector<std::byte> model;

  // ---- what users do; each answers bytes done or -errno ----
  int64_t write(uint64_t pos, uint64_t length, uint64_t seed) {
    const std::vector<std::byte> bytes = pattern(seed, length);
    ExclusiveLock inode(inodeLock);
    return record(pos, bytes, bufferedWrite(mapping, io, FileOffset(pos), bytes));
  }
  int64_t direct(uint64_t pos, uint64_t length, uint64_t seed) {
    const std::vector<std::byte> bytes = pattern(seed, length);
    ExclusiveLock inode(inodeLock);
    return record(pos, bytes, directWrite(mapping, io, hooks(), FileOffset(pos), bytes));
  }
  // A store through a shared mapping: whole pages below i_size.
  int64_t mmapStore(uint64_t pos, uint64_t length, uint64_t seed) {
    std::vector<std::byte> bytes = pattern(seed, length);
    auto done = cacheStore(mapping, io, FileOffset(pos), bytes, false);
    if (pos + length > mapping.size) bytes.resize(mapping.size > pos ? mapping.size - pos : 0);
    return record(pos, bytes, done);
  }
  // In the kernel's writeback-cache mode.
  int64_t cacheWrite(uint64_t pos, uint64_t length, uint64_t seed) {
    const std::vector<std::byte> bytes = pattern(seed, length);
    return record(pos, bytes, cacheStore(mapping, io, FileOffset(pos), bytes, true));
  }
  int truncate(uint64_t size) { return -tryTruncate(size).errnum(); }
  int zero(uint64_t pos, uint64_t length) { return -tryZero(pos, length).errnum(); }
  int punch(uint64_t pos, uint64_t length) { return -tryPunch(pos, length).errnum(); }
  int preallocate(uint64_t pos, uint64_t length) {
    return -ops.preallocate(mapping, FileOffset(roundDown(pos, blockSize)),
                            FileOffset(roundUp(pos + length, blockSize)))
                .errnum();
  }
  std::vector<std::byte> read(uint64_t pos, uint64_t length) {
    std::vector<std::byte> bytes(length, std::byte{0xEE});
    auto done = readFile(mapping, io, FileOffset(pos), bytes);
    bytes.resize(done ? done->v : 0);
    return bytes;
  }

  // ---- writeback, step by step ----
  // Writes the folio to the device and leaves it in writeback. False: nothing to do, or already
  // there.
  bool submit(uint64_t index) {
    LockedFolio folio = mapping.pages.lock(index);
    if (!folio || !folio->anyDirty() || folio->inWriteback()) return false;
    InFlight flight{folio.share(), {}, mapping.size};
    const uint64_t base = folio->offset().v;
    const uint64_t live = flight.size > base ? flight.size - base : 0;
    if (live < folio->size())
      std::fill(folio->data() + live, folio->data() + folio->size(), std::byte{0});
    for (uint32_t b = 0; b < folio->blocks(); ++b) {
      if (!folio->dirty(b)) continue;
      const FileOffset pos(base + uint64_t{b} * blockSize);
      const auto map = ops.mapForWriteback(mapping, pos, ByteCount(blockSize));
      if (!map || map->state == ExtentState::Hole || pos.v >= flight.size) {
        ++lostWrites;  // dirty without space: never
        continue;
      }
      const Extent piece = clipped(*map, pos, pos + ByteCount(blockSize));
      (void)device->write(piece.address, {folio->data() + uint64_t{b} * blockSize, blockSize},
                          IoClass::Data);
      flight.pieces.push_back(piece);
    }
    mapping.pages.startWriteback(folio, 0, folio->blocks());
    MutexLock lock(flightMutex_);
    flights_.push_back(std::move(flight));
    return true;
  }
  // Converts, stores the size and ends writeback of what was submitted first.
  bool ioend() {
    InFlight flight;
    {
      MutexLock lock(flightMutex_);
      if (flights_.empty()) return false;
      flight = std::move(flights_.front());
      flights_.pop_front();
    }
    for (const Extent& piece : flight.pieces) {
      ops.convert(mapping, piece);
      const uint64_t reached = std::min(piece.end().v, flight.size);
      if (reached > mapping.storedSize) mapping.storedSize = reached;
    }
    mapping.pages.endWriteback(*flight.folio);
    return true;
  }
  bool evict(uint64_t index) {
    LockedFolio folio = mapping.pages.lock(index);
    return folio && mapping.pages.evict(std::move(folio));
  }
  // The whole way of one folio: on disk, Mapped, gone.
  bool cleanOut(uint64_t index) {
    if (!submit(index)) return false;
    while (ioend()) {
    }
    return evict(index);
  }
  void flush(uint64_t from = 0, uint64_t to = kFileEnd.v) {
    const uint64_t size = pool.folioSize();
    endAll(from, to);  // a folio in writeback may be dirty again
    for (uint64_t i = from / size;; ++i) {
      const auto next = mapping.pages.nextDirty(i, roundUp(to, size) / size);
      if (!next) break;
      i = *next;
      (void)submit(i);
    }
    endAll(from, to);
  }
  void endAll(uint64_t from, uint64_t to) {
    while (ioend()) {
    }
    mapping.pages.waitWriteback(FileOffset(from), FileOffset(to));
  }
  void evictAll() {
    for (auto next = mapping.pages.nextCached(0, UINT64_MAX); next;
         next = mapping.pages.nextCached(*next + 1, UINT64_MAX))
      evict(*next);
  }
  void bump() {
    MutexLock lock(mapping.extents.mutex());
    mapping.extents.bump();
  }
  // Moves a Mapped block elsewhere, as a defragmenter would; the old place is poison.
  void relocate(uint64_t block) {
    MutexLock lock(mapping.extents.mutex());
    Extent e = clipped(mapping.extents.find(FileOffset(block * blockSize)),
                       FileOffset(block * blockSize), FileOffset((block + 1) * blockSize));
    std::vector<std::byte> bytes(blockSize);
    (void)device->read(e.address, bytes);
    const DeviceOffset old = e.address;
    e.address = space.allocate(1, false)->address;
    (void)device->write(e.address, bytes);
    (void)mapping.extents.set(e);
    space.free(old, e.length);
  }
  // What a crash may leave behind i_size in the block at the end of the file.
  void polluteTail() {
    MutexLock lock(mapping.extents.mutex());
    const uint64_t size = mapping.size;
    const Extent e = mapping.extents.find(FileOffset(size));
    std::vector<std::byte> bytes(blockSize);
    const DeviceOffset at = e.address + (FileOffset(roundDown(size, blockSize)) - e.offset);
    (void)device->read(at, bytes);
    std::fill(bytes.begin() + static_cast<ptrdiff_t>(size % blockSize), bytes.end(), kPoison);
    (void)device->write(at, bytes);
  }

  // ---- what must hold ----
  // The first difference between file and model, or "".
  std::string compare() {
    if (mapping.size != model.size()) return "size " + std::to_string(mapping.size);
    const std::vector<std::byte> bytes = read(0, model.size());
    if (bytes.size() != model.size()) return "short read";
    // Not byte by byte: tests are built without optimisation.
    if (bytes.empty() || std::memcmp(bytes.data(), model.data(), bytes.size()) == 0) return "";
    const auto at = std::mismatch(bytes.begin(), bytes.end(), model.begin()).first - bytes.begin();
    const auto byte = static_cast<size_t>(at);
    return "byte " + std::to_string(at) + " is " +
           std::to_string(std::to_integer<int>(bytes[byte])) + ", not " +
           std::to_string(std::to_integer<int>(model[byte]));
  }
  // The same in the cache, on disk, and in the accounts.
  std::string verify() {
    std::string wrong = compare();
    if (wrong.empty()) wrong = accounts();
    if (!wrong.empty()) return wrong;
    flush();
    evictAll();
    if (mapping.pages.folios() != 0) return "folios stay";
    wrong = compare();
    if (!wrong.empty()) return "on disk, " + wrong;
    return accounts();
  }
  // dirty <=> reserved, nothing leaked, nothing lost.
  std::string accounts() {
    if (lostWrites != 0) return "a dirty block had no space";
    if (ops.open != 0) return "a begin without its end";
    std::vector<Extent> all;
    uint64_t delalloc = 0, used = 0;
    {
      MutexLock lock(mapping.extents.mutex());
      mapping.extents.forEach(FileOffset(0), kFileEnd, [&](const Extent& e) {
        all.push_back(e);
        (e.state == ExtentState::Delalloc ? delalloc : used) += e.length.v / blockSize;
        return true;
      });
    }
    if (space.reserved() != delalloc) return "reserved " + std::to_string(space.reserved());
    if (space.used() != used) return "allocated " + std::to_string(space.used());
    for (const Extent& e : all) {
      if (e.stored) continue;
      for (uint64_t pos = e.offset.v; pos < e.end().v; pos += blockSize)
        if (!isBusy(pos)) return "space without dirty data at " + std::to_string(pos);
    }
    return "";
  }

  DirectHooks hooks() {
    return {[this](Mapping&, FileOffset from, FileOffset to) {
              flush(from.v, to.v);
              return Status::ok();
            },
            [this](Mapping&, FileOffset pos, ByteCount length) {
              SYNC_POINT_TRY("test.convert");
              convertAll(pos, pos + length);
              if ((pos + length).v > mapping.storedSize) mapping.storedSize = (pos + length).v;
              return Status::ok();
            }};
  }

 private:
  struct InFlight {
    std::shared_ptr<Folio> folio;
    std::vector<Extent> pieces;
    uint64_t size = 0;
  };

  Status tryTruncate(uint64_t size) {
    ExclusiveLock inode(inodeLock);
    ExclusiveLock invalidate(mapping.invalidateLock);
    TRY(truncateCache(mapping, io, FileOffset(size)));
    removeBlocks(FileOffset(roundUp(size, blockSize)), kFileEnd);
    mapping.storedSize = size;
    model.resize(size);
    return Status::ok();
  }
  Status tryZero(uint64_t pos, uint64_t length) {
    ExclusiveLock inode(inodeLock);
    ExclusiveLock invalidate(mapping.invalidateLock);
    TRY(zeroRange(mapping, io, FileOffset(pos), ByteCount(length)));
    clearModel(pos, length);
    return Status::ok();
  }
  Status tryPunch(uint64_t pos, uint64_t length) {
    ExclusiveLock inode(inodeLock);
    ExclusiveLock invalidate(mapping.invalidateLock);
    const FileOffset from(roundUp(pos, blockSize)), to(roundDown(pos + length, blockSize));
    if (from < to) {
      TRY(zeroRange(mapping, io, FileOffset(pos), from - FileOffset(pos)));
      TRY(zeroRange(mapping, io, to, FileOffset(pos + length) - to));
      dropFolios(mapping, from, to);
      removeBlocks(from, to);
    } else {
      TRY(zeroRange(mapping, io, FileOffset(pos), ByteCount(length)));
    }
    clearModel(pos, length);
    return Status::ok();
  }
  int64_t record(uint64_t pos, std::span<const std::byte> bytes, const Result<ByteCount>& done) {
    if (!done) return -done.errnum();
    const size_t n = std::min<size_t>(done->v, bytes.size());
    if (n > 0 && model.size() < pos + n) model.resize(pos + n);
    std::copy_n(bytes.begin(), n, model.begin() + static_cast<ptrdiff_t>(pos));
    return static_cast<int64_t>(done->v);
  }
  void clearModel(uint64_t pos, uint64_t length) {
    for (uint64_t i = pos; i < std::min<uint64_t>(pos + length, model.size()); ++i)
      model[i] = std::byte{0};
  }
  void removeBlocks(FileOffset from, FileOffset to) {
    MutexLock lock(mapping.extents.mutex());
    ops.remove(mapping, from, to, [](const Extent&) { return true; });
  }
  void convertAll(FileOffset from, FileOffset to) {
    std::vector<Extent> pieces;
    {
      MutexLock lock(mapping.extents.mutex());
      mapping.extents.forEach(from, to, [&](const Extent& e) {
        pieces.push_back(clipped(e, from, to));
        return true;
      });
    }
    for (const Extent& piece : pieces) ops.convert(mapping, piece);
  }
  bool isBusy(uint64_t pos) {
    LockedFolio folio = mapping.pages.lock(pos / pool.folioSize());
    if (!folio) return false;
    return folio->inWriteback() ||
           folio->dirty(static_cast<uint32_t>(pos % pool.folioSize() / blockSize));
  }

  Mutex flightMutex_;
  std::deque<InFlight> flights_ GUARDED_BY(flightMutex_);
};

// Runs `f` once, in a thread of its own, while the thread that reaches the sync point for the n-th
// time waits there with what it has locked.
inline void callOnce(const std::string& point, std::function<void()> f, int nth = 1) {
  auto left = std::make_shared<std::atomic<int>>(nth);
  SyncPoints::instance().call(point, [left, f = std::move(f)] {
    if (--*left == 0) std::thread(f).join();
  });
}

}  // namespace ourfs::test
