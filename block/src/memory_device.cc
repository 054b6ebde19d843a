#include "block/memory_device.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstring>
#include <unordered_map>

#include "check_request.h"
#include "common/mutex.h"

namespace ourfs {

namespace {

constexpr uint64_t kChunkBytes = 16 * KiB;

// A run of sectors, of which those with their bit in `written` have contents of their own.
struct Chunk {
  explicit Chunk(size_t size) : bytes(size) {}
  uint64_t owner = 0;  // the epoch of the device that may change it in place; others copy it first
  uint32_t written = 0;
  std::vector<std::byte> bytes;
};

uint64_t nextEpoch() {
  static std::atomic<uint64_t> epoch{0};
  return ++epoch;
}

// Clones share chunks with their original: crash exploration makes thousands of them. After clone()
// both sides have a new epoch, so whoever writes first copies, and a shared chunk never changes.
class SparseMemory final : public MemoryDevice {
 public:
  SparseMemory(ByteCount size, uint32_t sector, uint32_t physicalSector)
      : size_(size),
        sector_(sector),
        physicalSector_(physicalSector),
        chunkBytes_(std::max<uint64_t>(kChunkBytes, sector)) {}

  void submit(IoRequest request) override {
    IoCompletion done = std::move(request.done);
    done(transact(std::move(request)));
  }

  ByteCount size() const override { return size_; }
  uint32_t logicalSector() const override { return sector_; }
  uint32_t physicalSector() const override { return physicalSector_; }
  bool readOnly() const override { return false; }
  std::string name() const override { return "memory"; }

  std::unique_ptr<MemoryDevice> clone() const override {
    auto copy = std::make_unique<SparseMemory>(size_, sector_, physicalSector_);
    ExclusiveLock lock(mutex_);
    copy->adopt(chunks_, fill_);
    epoch_ = nextEpoch();
    return copy;
  }

  void setFill(std::byte fill) override {
    ExclusiveLock lock(mutex_);
    fill_ = fill;
  }

 private:
  using Chunks = std::unordered_map<uint64_t, std::shared_ptr<Chunk>>;

  Status transact(IoRequest request) override {
    TRY(checkRequest(*this, request));
    uint64_t at = request.offset.v;
    if (request.op == IoOp::Read) {
      SharedLock lock(mutex_);
      for (const IoVec& p : request.pieces) readRange(at, p.data, p.size), at += p.size;
    } else if (request.op == IoOp::Write) {
      ExclusiveLock lock(mutex_);
      for (const IoVec& p : request.pieces) writeRange(at, p.data, p.size), at += p.size;
    } else if (request.op == IoOp::Discard) {
      ExclusiveLock lock(mutex_);
      discardRange(at, request.length.v);
    }
    return Status::ok();
  }

  void adopt(const Chunks& chunks, std::byte fill) {
    ExclusiveLock lock(mutex_);
    chunks_ = chunks;
    fill_ = fill;
  }

  uint32_t sectorBit(uint64_t inChunk) const { return uint32_t{1} << (inChunk / sector_); }

  Chunk& chunkToChange(uint64_t number) REQUIRES(mutex_) {
    std::shared_ptr<Chunk>& chunk = chunks_[number];
    if (!chunk) {
      chunk = std::make_shared<Chunk>(chunkBytes_);
    } else if (chunk->owner != epoch_) {
      chunk = std::make_shared<Chunk>(*chunk);
    }
    chunk->owner = epoch_;
    return *chunk;
  }

  // Chunk by chunk, so that each is looked up once.
  void readRange(uint64_t at, std::byte* into, size_t size) const REQUIRES_SHARED(mutex_) {
    for (size_t done = 0; done < size;) {
      const size_t length = std::min<size_t>(size - done, chunkBytes_ - (at + done) % chunkBytes_);
      const auto it = chunks_.find((at + done) / chunkBytes_);
      readChunk(it == chunks_.end() ? nullptr : it->second.get(), at + done,
                std::span(into + done, length));
      done += length;
    }
  }

  void readChunk(const Chunk* chunk, uint64_t at, std::span<std::byte> into) const
      REQUIRES_SHARED(mutex_) {
    const uint64_t inChunk = at % chunkBytes_;
    if (chunk == nullptr || chunk->written == 0) {
      std::ranges::fill(into, fill_);
      return;
    }
    std::memcpy(into.data(), chunk->bytes.data() + inChunk, into.size());
    for (size_t done = 0; done < into.size(); done += sector_)
      if ((chunk->written & sectorBit(inChunk + done)) == 0)
        std::memset(into.data() + done, static_cast<int>(fill_), sector_);
  }

  void writeRange(uint64_t at, const std::byte* from, size_t size) REQUIRES(mutex_) {
    for (size_t done = 0; done < size;) {
      const uint64_t inChunk = (at + done) % chunkBytes_;
      const size_t length = std::min<size_t>(size - done, chunkBytes_ - inChunk);
      Chunk& chunk = chunkToChange((at + done) / chunkBytes_);
      std::memcpy(chunk.bytes.data() + inChunk, from + done, length);
      for (size_t s = 0; s < length; s += sector_) chunk.written |= sectorBit(inChunk + s);
      done += length;
    }
  }

  void discardRange(uint64_t at, uint64_t size) REQUIRES(mutex_) {
    for (uint64_t end = at + size; at < end;) {
      const uint64_t number = at / chunkBytes_;
      const uint64_t chunkEnd = std::min(end, (number + 1) * chunkBytes_);
      if (chunks_.contains(number)) {
        if (chunkEnd - at == chunkBytes_) {
          chunks_.erase(number);
        } else {
          Chunk& chunk = chunkToChange(number);
          for (uint64_t s = at; s < chunkEnd; s += sector_)
            chunk.written &= ~sectorBit(s % chunkBytes_);
        }
      }
      at = chunkEnd;
    }
  }

  const ByteCount size_;
  const uint32_t sector_;
  const uint32_t physicalSector_;
  const uint64_t chunkBytes_;
  mutable SharedMutex mutex_;
  Chunks chunks_ GUARDED_BY(mutex_);
  std::byte fill_ GUARDED_BY(mutex_){0};
  mutable uint64_t epoch_ GUARDED_BY(mutex_) = nextEpoch();
};

}  // namespace

std::unique_ptr<MemoryDevice> MemoryDevice::create(ByteCount size, uint32_t sector,
                                                   uint32_t physicalSector) {
  assert(isPowerOfTwo(sector) && sector >= 512 && isAligned(size.v, sector));
  return std::make_unique<SparseMemory>(size, sector, physicalSector);
}

}  // namespace ourfs
