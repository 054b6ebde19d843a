// The kernel's FUSE protocol: <linux/fuse.h>, and what Debian 12's copy (7.38) does not know yet.
//
// Reference: include/uapi/linux/fuse.h of Linux 6.18 (protocol 7.45). The layouts are ABI: the
// assertions below hold them.
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>

namespace ourfs {

// INIT flags. Bits 32 and up travel in flags2.
inline constexpr uint64_t kInitDirectIoAllowMmap = uint64_t{1} << 36;  // FUSE_DIRECT_IO_ALLOW_MMAP
inline constexpr uint64_t kInitAllowIdmap = uint64_t{1} << 40;         // FUSE_ALLOW_IDMAP

// Operations that came later.
inline constexpr uint32_t kOpStatx = 52;            // FUSE_STATX
inline constexpr uint32_t kOpCopyFileRange64 = 53;  // FUSE_COPY_FILE_RANGE_64
inline constexpr uint32_t kOpEnd = 54;

// Flags that are declared as signed shifts there.
inline constexpr uint64_t kInitExt = uint64_t{1} << 30;          // FUSE_INIT_EXT
inline constexpr uint64_t kInitSetxattrExt = uint64_t{1} << 29;  // FUSE_SETXATTR_EXT

struct StatxIn {  // fuse_statx_in
  uint32_t getattrFlags = 0, reserved = 0;
  uint64_t fh = 0;
  uint32_t flags = 0, mask = 0;
};
static_assert(sizeof(StatxIn) == 24);

struct StatxTime {  // fuse_sx_time
  int64_t sec = 0;
  uint32_t nsec = 0;
  int32_t reserved = 0;
};
static_assert(sizeof(StatxTime) == 16);

struct StatxOut {  // fuse_statx_out with its fuse_statx
  uint64_t attrValid = 0;
  uint32_t attrValidNsec = 0, flags = 0;
  uint64_t spare[2] = {};
  uint32_t mask = 0, blksize = 0;
  uint64_t attributes = 0;
  uint32_t nlink = 0, uid = 0, gid = 0;
  uint16_t mode = 0, spare0 = 0;
  uint64_t ino = 0, size = 0, blocks = 0, attributesMask = 0;
  StatxTime atime, btime, ctime, mtime;
  uint32_t rdevMajor = 0, rdevMinor = 0, devMajor = 0, devMinor = 0;
  uint64_t spare2[14] = {};
};
static_assert(offsetof(StatxOut, mask) == 32 && offsetof(StatxOut, atime) == 32 + 64);
static_assert(sizeof(StatxOut) == 32 + 256);

struct CopyFileRangeOut {  // fuse_copy_file_range_out
  uint64_t bytesCopied = 0;
};

static_assert(sizeof(fuse_in_header) == 40 && sizeof(fuse_out_header) == 16);
static_assert(sizeof(fuse_read_in) == 40 && sizeof(fuse_write_in) == 40);
static_assert(sizeof(fuse_init_out) == 64 && sizeof(fuse_entry_out) == 128);

}  // namespace ourfs
