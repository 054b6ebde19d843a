// What the comparison of the cookie costs: nanoseconds for a buffered write of 4 KiB into a cached
// folio, in process, on one Mapped extent. Built twice: as validation_on, and as validation_off
// with an iomap/ whose IomapIter::valid() compares nothing. bench/validation-cost runs both in
// turn.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "block/memory_device.h"
#include "iomap/operations.h"

namespace ourfs {
namespace {

constexpr uint64_t kFile = 16 * MiB, kWrites = 400'000;

class OneExtent : public IomapOps {
 public:
  Result<Iomap> begin(Mapping& mapping, FileOffset, ByteCount, IomapIntent) override {
    MutexLock lock(mapping.extents.mutex());
    Iomap map;
    map.length = ByteCount(kFile);
    map.type = IomapType::Mapped;
    map.cookie = mapping.extents.sequence();
    return map;
  }
  Status end(Mapping&, const Iomap&, FileOffset, ByteCount, IomapIntent) override {
    return Status::ok();
  }
  void punchDelalloc(Mapping&, FileOffset, FileOffset) override {}
};

void writeAll(Mapping& mapping, IoContext& io, uint64_t writes, std::span<const std::byte> bytes) {
  for (uint64_t n = 0; n < writes; ++n) {
    if (!bufferedWrite(mapping, io, FileOffset(n * 4096 % kFile), bytes)) std::abort();
  }
}

int run() {
  const auto device = MemoryDevice::create(ByteCount(kFile));
  FolioPool pool(4096, ByteCount(64 * MiB));
  MappingCounters counters;
  Mapping mapping(InodeNo(2), 4096, pool, counters);
  OneExtent ops;
  IoContext io{*device, ops, [](Mapping&) {}};
  const std::vector<std::byte> bytes(4096, std::byte{7});
  writeAll(mapping, io, kFile / 4096, bytes);
  const auto begin = std::chrono::steady_clock::now();
  writeAll(mapping, io, kWrites, bytes);
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  std::printf("%.2f\n", took.count() / kWrites);
  dropFolios(mapping, FileOffset(0), kFileEnd);
  return 0;
}

}  // namespace
}  // namespace ourfs

int main() { return ourfs::run(); }
