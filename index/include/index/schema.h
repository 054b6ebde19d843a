// The keys and values of the index: how inodes, names, extents, attributes and orphans are spelled.
//
// A key is one letter, then big-endian integers, so that byte order is numeric order:
//   'I' ino             -> InodeRecord
//   'D' dir cookie      -> DirentRecord  (cookie: hash of the name, 54 bits, and an 8-bit slot)
//   'X' ino name        -> the attribute's value
//   'E' ino fileOffset  -> ExtentRecord  (file offset in bytes, of the extent's start)
//   'O' ino             -> empty         (unlinked but open: reclaimed at mount)
//   'L'                 -> the position of the last applied log record (Index writes it)
//   'F' group / 'G'     -> free-space snapshot (written at clean unmount, see fs/space)
//   'C' name            -> small volume-wide settings (next inode number, inode count)
//
// Every InodeRecord and ExtentRecord ends in a crc32c of its key and value, so that a record under
// the wrong key is noticed. decode* answer EUCLEAN and never crash on any bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/checksum.h"
#include "common/result.h"
#include "common/units.h"

namespace ourfs {

struct Timestamp {
  int64_t sec = 0;
  uint32_t nsec = 0;  // < 1e9
  auto operator<=>(const Timestamp&) const = default;
};

struct InodeRecord {
  uint32_t mode = 0;  // type and permissions, as st_mode
  uint32_t uid = 0, gid = 0;
  uint32_t nlink = 0;
  uint32_t generation = 0;  // differs when a number is used again
  uint32_t flags = 0;       // kInode*
  uint32_t projectId = 0;
  uint32_t rdev = 0;     // device nodes, in the kernel's 32-bit encoding
  uint64_t size = 0;     // bytes; directories: 0
  uint64_t blocks = 0;   // bytes of extents in the index for this inode (MAPPED and UNWRITTEN)
  uint64_t entries = 0;  // directories: number of names without "." and ".."
  uint64_t parent = 0;   // directories: the directory that names it (root: itself)
  Timestamp atime, mtime, ctime, btime;
  std::string symlink;  // symbolic links: the target, up to 4095 bytes; else empty
};
inline constexpr uint32_t kInodeHasXattr = 1u << 0;       // there are 'X' keys
inline constexpr uint32_t kInodeHasAcl = 1u << 1;         // one of them is a POSIX ACL
inline constexpr uint32_t kInodeHasCapability = 1u << 2;  // one of them is security.capability

enum class DirentKind : uint8_t { Vacated = 0, Entry = 1 };
// Names whose hashes agree share a bucket: slots 0, 1, 2 … without a gap. Only the last may be
// removed; one in the middle becomes Vacated and is reused. `more` says that the next slot exists.
struct DirentRecord {
  DirentKind kind = DirentKind::Entry;
  bool more = false;
  uint8_t type = 0;  // DT_*
  uint64_t ino = 0;
  std::string name;  // 1 to 255 bytes, no '/' and no NUL
};

enum class StoredExtentState : uint8_t { Mapped = 1, Unwritten = 2 };
struct ExtentRecord {
  uint64_t block = 0;   // first filesystem block on the volume
  uint64_t blocks = 0;  // count, > 0
  StoredExtentState state = StoredExtentState::Mapped;
};

inline constexpr uint64_t kFirstCookie = 4;  // smaller ones are for ".", ".." and the start

// ---- keys ----
std::string inodeKey(InodeNo ino);
std::string direntKey(InodeNo dir, uint64_t cookie);
std::string xattrKey(InodeNo ino, std::string_view name);
std::string extentKey(InodeNo ino, FileOffset offset);
std::string orphanKey(InodeNo ino);
std::string freeGroupKey(uint64_t group);
std::string settingKey(std::string_view name);
inline constexpr std::string_view kLogPositionKey = "L";
inline constexpr std::string_view kFreeHeaderKey = "G";

// The prefix of all keys of one kind for one inode: direntKey(dir, 0) without the cookie, and so
// on.
std::string direntPrefix(InodeNo dir);
std::string xattrPrefix(InodeNo ino);
std::string extentPrefix(InodeNo ino);
std::string prefixEnd(std::string prefix);  // the first key behind all keys with this prefix

struct ParsedKey {
  char kind = 0;        // the letter
  InodeNo ino;          // I D X E O: the inode or directory; F: the group
  uint64_t number = 0;  // D: cookie; E: file offset
  std::string name;     // X C
};
Result<ParsedKey> parseKey(std::string_view key);

// ---- values ----
std::string encodeInode(InodeNo ino, const InodeRecord& record);
Result<InodeRecord> decodeInode(InodeNo ino, std::string_view value);
std::string encodeDirent(const DirentRecord& record);
Result<DirentRecord> decodeDirent(std::string_view value);
std::string encodeExtent(InodeNo ino, FileOffset offset, const ExtentRecord& record);
Result<ExtentRecord> decodeExtent(InodeNo ino, FileOffset offset, std::string_view value);

// The cookie of a name's bucket, slot 0: 54 bits of SipHash above 8 bits of slot; at least
// kFirstCookie, at most 2^62, so that it is a positive off_t.
uint64_t nameCookie(std::string_view name, const SipKey& key);

}  // namespace ourfs
