// What each layer costs in process, without FUSE: Google Benchmark, one thread, a volume in memory.
// The whole of one create and one 4 KiB write stands beside its parts.
#include <benchmark/benchmark.h>
#include <fcntl.h>

#include <cstdlib>
#include <cstring>

#include "block/memory_device.h"
#include "fs/filesystem.h"

namespace ourfs {
namespace {

template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.status().message().c_str());
    std::abort();
  }
  return std::move(result).value();
}
void must(const Status& status) {
  if (!status.isOk()) {
    std::fprintf(stderr, "%s\n", status.message().c_str());
    std::abort();
  }
}

// A served volume of 1 GiB in memory.
struct Served {
  Served() : device(MemoryDevice::create(ByteCount(1 * GiB))) {
    must(formatVolume(*device, {}));
    volume = must(Volume::open(*device, {}));
    filesystem = must(Filesystem::start(*volume, {}));
  }
  ~Served() {
    must(filesystem->stop());
    filesystem.reset();
    must(volume->close());
  }
  std::unique_ptr<MemoryDevice> device;
  std::unique_ptr<Volume> volume;
  std::unique_ptr<Filesystem> filesystem;
};

void createWhole(benchmark::State& state) {
  Served s;
  uint64_t n = 0;
  for (auto _ : state) {
    auto made =
        must(s.filesystem->create({}, InodeNo(1), "file-" + std::to_string(n++), 0644, O_WRONLY));
    s.filesystem->release(std::move(made.second));
  }
}
BENCHMARK(createWhole);

void write4KWhole(benchmark::State& state) {
  Served s;
  auto made = must(s.filesystem->create({}, InodeNo(1), "file", 0644, O_RDWR));
  std::vector<std::byte> bytes(4096, std::byte{7});
  uint64_t n = 0;
  for (auto _ : state)
    must(s.filesystem->write(*made.second, FileOffset(n++ % 16384 * 4096), bytes, {}));
  s.filesystem->release(std::move(made.second));
}
BENCHMARK(write4KWhole);

void write4KAndFsyncWhole(benchmark::State& state) {
  Served s;
  auto made = must(s.filesystem->create({}, InodeNo(1), "file", 0644, O_RDWR));
  std::vector<std::byte> bytes(4096, std::byte{7});
  uint64_t n = 0;
  for (auto _ : state) {
    must(s.filesystem->write(*made.second, FileOffset(n++ % 16384 * 4096), bytes, {}));
    must(s.filesystem->fsync(*made.second, true));
  }
  s.filesystem->release(std::move(made.second));
}
BENCHMARK(write4KAndFsyncWhole);

void read1MWhole(benchmark::State& state) {
  Served s;
  auto made = must(s.filesystem->create({}, InodeNo(1), "file", 0644, O_RDWR));
  std::vector<std::byte> bytes(1 * MiB, std::byte{7});
  must(s.filesystem->write(*made.second, FileOffset(0), bytes, {}));
  must(s.filesystem->fsync(*made.second, true));
  for (auto _ : state) must(s.filesystem->read(*made.second, FileOffset(0), bytes));
  s.filesystem->release(std::move(made.second));
}
BENCHMARK(read1MWhole);

void lookupWhole(benchmark::State& state) {
  Served s;
  auto made = must(s.filesystem->create({}, InodeNo(1), "file", 0644, O_RDWR));
  for (auto _ : state) benchmark::DoNotOptimize(must(s.filesystem->lookup(InodeNo(1), "file")));
  s.filesystem->release(std::move(made.second));
}
BENCHMARK(lookupWhole);

// ---- the parts ----

void transactionOfFourKeys(benchmark::State& state) {
  Served s;
  uint64_t n = 0;
  std::string value(120, 'v');
  for (auto _ : state) {
    auto room = must(s.volume->log().reserve(kNamespaceRoom));
    Transaction t;
    for (uint64_t i = 0; i < 4; ++i)
      t.put(settingKey("bench-" + std::to_string(n++ % 4096)), value);
    benchmark::DoNotOptimize(must(s.volume->log().commit(std::move(t), std::move(room))));
  }
}
BENCHMARK(transactionOfFourKeys);

void journalReserve(benchmark::State& state) {
  Served s;
  for (auto _ : state) benchmark::DoNotOptimize(must(s.volume->log().reserve(kNamespaceRoom)));
}
BENCHMARK(journalReserve);

void indexGet(benchmark::State& state) {
  Served s;
  std::string key = inodeKey(InodeNo(1));
  for (auto _ : state) benchmark::DoNotOptimize(must(s.volume->index().get(key)));
}
BENCHMARK(indexGet);

void encodeInodeRecord(benchmark::State& state) {
  InodeRecord record;
  for (auto _ : state) benchmark::DoNotOptimize(encodeInode(InodeNo(5), record));
}
BENCHMARK(encodeInodeRecord);

void nameHash(benchmark::State& state) {
  for (auto _ : state)
    benchmark::DoNotOptimize(nameCookie("a-name-of-usual-length.txt", SipKey{1, 2}));
}
BENCHMARK(nameHash);

void extentFind(benchmark::State& state) {
  ExtentMap map(4096);
  MutexLock lock(map.mutex());
  uint64_t count = static_cast<uint64_t>(state.range(0));
  for (uint64_t i = 0; i < count; ++i) {
    Extent e{FileOffset(i * 8192), ByteCount(4096), DeviceOffset(i * 4096), ExtentState::Mapped,
             true};
    (void)map.set(e);
  }
  uint64_t n = 0;
  for (auto _ : state) benchmark::DoNotOptimize(map.find(FileOffset(n++ * 7919 % count * 8192)));
}
BENCHMARK(extentFind)->Arg(1)->Arg(1000)->Arg(1000000);

void folioLock(benchmark::State& state) {
  FolioPool pool(4096, ByteCount(64 * MiB));
  PageCache pages(pool, 4096);
  for (uint64_t i = 0; i < 1024; ++i) (void)pages.lockOrCreate(i);
  uint64_t n = 0;
  for (auto _ : state) benchmark::DoNotOptimize(pages.lock(n++ % 1024));
  for (uint64_t i = 0; i < 1024; ++i) pages.discard(pages.lock(i));
}
BENCHMARK(folioLock);

void copy4K(benchmark::State& state) {
  std::vector<std::byte> a(4096), b(4096);
  for (auto _ : state) {
    std::memcpy(a.data(), b.data(), 4096);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(copy4K);

void checksum4K(benchmark::State& state) {
  std::vector<std::byte> a(4096);
  for (auto _ : state) benchmark::DoNotOptimize(crc32c(a));
}
BENCHMARK(checksum4K);

void allocateAndFree(benchmark::State& state) {
  SpaceAllocator space(BlockNo(64), BlockNo(1 << 20), BlockCount(1024));
  for (auto _ : state) {
    must(space.reserve(BlockCount(1)));
    space.freeUnstored(must(space.allocate(BlockCount(1), BlockNo(0), true)));
  }
}
BENCHMARK(allocateAndFree);

}  // namespace
}  // namespace ourfs

BENCHMARK_MAIN();
