// A block of memory aligned for direct I/O. Owned, movable, zeroed at birth, never resized in
// place.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

namespace ourfs {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // `size` is rounded up to `alignment`, a power of two.
  explicit AlignedBuffer(size_t size, size_t alignment = 4096);

  std::byte* data() { return mem_.get(); }
  const std::byte* data() const { return mem_.get(); }
  size_t size() const { return size_; }
  std::span<std::byte> span() { return {mem_.get(), size_}; }
  std::span<const std::byte> span() const { return {mem_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte[], Free> mem_;
  size_t size_ = 0;
};

}  // namespace ourfs
