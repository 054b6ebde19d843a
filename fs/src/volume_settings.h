// Volume-wide settings in the index (keys 'C').
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/codec.h"
#include "common/units.h"

namespace ourfs {

inline constexpr InodeNo kRootInode{1};
// No inode number at or above it has ever been given out.
inline constexpr std::string_view kNextInodeSetting = "next_inode";
// How many inodes there are: generation and count. Written at unmount, for statfs.
inline constexpr std::string_view kInodesSetting = "inodes";
// No volume gets to numbers above it; one that says so is damaged.
inline constexpr uint64_t kMaxInodeNumber = uint64_t{1} << 62;

inline std::string encodeNumber(uint64_t number) {
  std::string value;
  Encoder(value).u64(number);
  return value;
}
inline std::optional<uint64_t> decodeNumber(std::string_view value) {
  Decoder d(value);
  const uint64_t number = d.u64();
  return d.ok() && d.atEnd() ? std::optional(number) : std::nullopt;
}

}  // namespace ourfs
