// Strong unit types. Swapping an offset in a file with one on the device must not compile.
//
// All are unsigned 64-bit integers. A position minus a position is a ByteCount; a position plus a
// ByteCount is a position of the same kind. Arithmetic does not check for overflow: whoever takes a
// value from a disk or from a user checks its range first.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

namespace ourfs {

template <class Tag>
struct Quantity {
  uint64_t v = 0;

  constexpr Quantity() = default;
  constexpr explicit Quantity(uint64_t value) : v(value) {}
  constexpr auto operator<=>(const Quantity&) const = default;
};

struct ByteCountTag {};
struct FileOffsetTag {};
struct DeviceOffsetTag {};
struct LsnTag {};
struct BlockNoTag {};
struct BlockCountTag {};
struct InodeNoTag {};

using ByteCount = Quantity<ByteCountTag>;        // a length in bytes
using FileOffset = Quantity<FileOffsetTag>;      // a byte position in a file
using DeviceOffset = Quantity<DeviceOffsetTag>;  // a byte position on the volume
using Lsn = Quantity<LsnTag>;                    // a byte position in the endless log
using BlockNo = Quantity<BlockNoTag>;            // a filesystem block of the volume, counted from 0
using BlockCount = Quantity<BlockCountTag>;      // a number of filesystem blocks
using InodeNo = Quantity<InodeNoTag>;            // 1 is the root directory; 0 is never an inode

template <class Tag>
concept BytePosition = std::same_as<Tag, FileOffsetTag> || std::same_as<Tag, DeviceOffsetTag> ||
    std::same_as<Tag, LsnTag>;

template <BytePosition Tag>
constexpr Quantity<Tag> operator+(Quantity<Tag> a, ByteCount n) {
  return Quantity<Tag>(a.v + n.v);
}
template <BytePosition Tag>
constexpr Quantity<Tag> operator-(Quantity<Tag> a, ByteCount n) {
  return Quantity<Tag>(a.v - n.v);
}
template <BytePosition Tag>
constexpr ByteCount operator-(Quantity<Tag> a, Quantity<Tag> b) {
  return ByteCount(a.v - b.v);
}
constexpr ByteCount operator+(ByteCount a, ByteCount b) { return ByteCount(a.v + b.v); }
constexpr ByteCount operator-(ByteCount a, ByteCount b) { return ByteCount(a.v - b.v); }
constexpr BlockCount operator+(BlockCount a, BlockCount b) { return BlockCount(a.v + b.v); }
constexpr BlockCount operator-(BlockCount a, BlockCount b) { return BlockCount(a.v - b.v); }
constexpr BlockNo operator+(BlockNo a, BlockCount n) { return BlockNo(a.v + n.v); }
constexpr BlockCount operator-(BlockNo a, BlockNo b) { return BlockCount(a.v - b.v); }

template <class Tag>
constexpr Quantity<Tag>& operator+=(Quantity<Tag>& a,
                                    ByteCount n) requires(BytePosition<Tag> ||
                                                          std::same_as<Tag, ByteCountTag>) {
  a.v += n.v;
  return a;
}
template <class Tag>
constexpr Quantity<Tag>& operator-=(Quantity<Tag>& a,
                                    ByteCount n) requires(BytePosition<Tag> ||
                                                          std::same_as<Tag, ByteCountTag>) {
  a.v -= n.v;
  return a;
}
inline BlockCount& operator+=(BlockCount& a, BlockCount n) {
  a.v += n.v;
  return a;
}
inline BlockCount& operator-=(BlockCount& a, BlockCount n) {
  a.v -= n.v;
  return a;
}

constexpr uint64_t roundDown(uint64_t value, uint64_t unit) { return value / unit * unit; }
constexpr uint64_t roundUp(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}
constexpr bool isAligned(uint64_t value, uint64_t unit) { return value % unit == 0; }
constexpr bool isPowerOfTwo(uint64_t value) { return value != 0 && (value & (value - 1)) == 0; }

constexpr uint64_t KiB = 1024;
constexpr uint64_t MiB = 1024 * KiB;
constexpr uint64_t GiB = 1024 * MiB;

}  // namespace ourfs

template <class Tag>
struct std::hash<ourfs::Quantity<Tag>> {
  size_t operator()(const ourfs::Quantity<Tag>& q) const noexcept {
    return std::hash<uint64_t>()(q.v);
  }
};
