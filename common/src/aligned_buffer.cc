#include "common/aligned_buffer.h"

#include <cstring>
#include <new>

#include "common/units.h"

namespace ourfs {

AlignedBuffer::AlignedBuffer(size_t size, size_t alignment) : size_(roundUp(size, alignment)) {
  if (size_ == 0) return;
  void* p = std::aligned_alloc(alignment, size_);
  if (p == nullptr) throw std::bad_alloc();
  std::memset(p, 0, size_);
  mem_.reset(static_cast<std::byte*>(p));
}

}  // namespace ourfs
