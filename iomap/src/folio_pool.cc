#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "iomap/page_cache.h"

namespace ourfs {

namespace {
// Folios are cut from slabs: page-aligned memory from malloc costs nearly a page more for each.
uint64_t slabSize(uint32_t folioSize) { return std::max<uint64_t>(1 * MiB, folioSize); }
}  // namespace

FolioPool::~FolioPool() {
  for (std::byte* slab : slabs_) munmap(slab, slabSize(folioSize_));
}

std::byte* FolioPool::allocate() {
  used_.fetch_add(folioSize_, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  for (auto* list : {&free_, &cold_}) {
    if (list->empty()) continue;
    std::byte* memory = list->back();
    list->pop_back();
    return memory;
  }
  const uint64_t size = slabSize(folioSize_);
  void* mem = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mem == MAP_FAILED) throw std::bad_alloc();
  std::byte* slab = static_cast<std::byte*>(mem);
  slabs_.push_back(slab);
  for (uint64_t at = size - folioSize_; at > 0; at -= folioSize_) cold_.push_back(slab + at);
  return slab;
}

void FolioPool::free(std::byte* memory) {
  used_.fetch_sub(folioSize_, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  free_.push_back(memory);
}

void FolioPool::trim(size_t keep) {
  MutexLock lock(mutex_);
  while (free_.size() > keep) {
    madvise(free_.back(), folioSize_, MADV_DONTNEED);
    cold_.push_back(free_.back());
    free_.pop_back();
  }
}

}  // namespace ourfs
