// What the threads of ourfs-stress do to a file, and what may run beside what.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ourfs::stress {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kForever = UINT64_MAX;  // behind every byte
constexpr uint64_t kLongest = 256 * 1024;  // of one operation

enum class Kind {
  Write,
  Read,
  DirectWrite,
  DirectRead,
  MapStore,
  MapRead,
  Truncate,
  Allocate,
  AllocateKeep,
  Punch,
  Zero,
  ZeroKeep,
  Fsync,
  Fdatasync,
  Forget,  // the kernel's clean pages
  Flush,   // the kernel's dirty pages, without fsync
  Replace,
};

// What Linux does not keep coherent within one folio, although the bytes are different ones: a
// store through a mapping against what changes the file below the page cache. That is a direct
// write, and over FUSE also punch hole and zero range, which write the folio back, change the file,
// and then drop the folio or zero their part of it in memory. A store in between dirties the folio,
// and all of it, with the old bytes of the other, is written back once more. Over FUSE a write that
// makes the file longer is of this side, too: without the writeback cache the new bytes are in the
// folio before the new end is known, and the writeback of a store beside them zeroes what lies
// behind the old end (Linux 6.18).
// So two that stand on different sides of this stay in different units of kApart bytes. Everything
// else may share a folio.
enum class Side { None, Store, Below };
constexpr uint64_t kApart = 64 * 1024;

struct KindInfo {
  Kind kind;
  const char* name;
  size_t weight;
  bool changes;  // bytes or size
  Side side;
};
constexpr std::array kKinds{
    KindInfo{Kind::Write, "write", 24, true, Side::None},
    KindInfo{Kind::Read, "read", 10, false, Side::None},
    KindInfo{Kind::DirectWrite, "direct-write", 6, true, Side::Below},
    KindInfo{Kind::DirectRead, "direct-read", 8, false, Side::None},
    KindInfo{Kind::MapStore, "map-store", 14, true, Side::Store},
    KindInfo{Kind::MapRead, "map-read", 5, false, Side::None},
    KindInfo{Kind::Truncate, "truncate", 4, true, Side::None},
    KindInfo{Kind::Allocate, "allocate", 2, true, Side::None},
    KindInfo{Kind::AllocateKeep, "allocate-keep", 3, false, Side::None},
    KindInfo{Kind::Punch, "punch", 5, true, Side::Below},
    KindInfo{Kind::Zero, "zero", 3, true, Side::Below},
    KindInfo{Kind::ZeroKeep, "zero-keep", 3, true, Side::Below},
    KindInfo{Kind::Fsync, "fsync", 2, false, Side::None},
    KindInfo{Kind::Fdatasync, "fdatasync", 1, false, Side::None},
    KindInfo{Kind::Forget, "forget", 5, false, Side::None},
    KindInfo{Kind::Flush, "flush", 3, false, Side::None},
    KindInfo{Kind::Replace, "replace", 1, true, Side::None},
};
constexpr const KindInfo& infoOf(Kind kind) { return kKinds[static_cast<size_t>(kind)]; }

struct Operation {
  Kind kind = Kind::Fsync;
  uint64_t from = 0, to = 0;          // the bytes; Truncate: from the new end; Replace: to the end
  uint64_t holdFrom = 0, holdTo = 0;  // what nobody else may change, or look at if this changes it
  uint64_t size = 0;               // of the file at the begin; exact for who holds bytes behind it
  uint64_t number = 0, ended = 0;  // counted over all files; ended: the last given out by then
  unsigned thread = 0;
  uint64_t place = 0;  // in the file's log

  uint64_t length() const { return to - from; }
  bool stores() const {
    return kind == Kind::Write || kind == Kind::DirectWrite || kind == Kind::MapStore;
  }
  uint64_t newSize() const {
    const bool grows = kind == Kind::Write || kind == Kind::DirectWrite || kind == Kind::Allocate ||
                       kind == Kind::Zero;
    if (kind == Kind::Truncate) return from;
    if (kind == Kind::Replace) return to;
    return grows && to > size ? to : size;
  }
  Side side() const { return kind == Kind::Write && to > size ? Side::Below : infoOf(kind).side; }
};

constexpr bool overlap(uint64_t from, uint64_t to, uint64_t otherFrom, uint64_t otherTo) {
  return from < otherTo && otherFrom < to;
}

inline bool mayNotMeet(const Operation& a, const Operation& b) {
  if (a.kind == Kind::Replace || b.kind == Kind::Replace) return true;
  const bool changes = infoOf(a.kind).changes || infoOf(b.kind).changes;
  if (changes && overlap(a.holdFrom, a.holdTo, b.holdFrom, b.holdTo)) return true;
  if (a.side() == b.side() || a.side() == Side::None || b.side() == Side::None) return false;
  return overlap(a.holdFrom / kApart, (a.holdTo - 1) / kApart + 1, b.holdFrom / kApart,
                 (b.holdTo - 1) / kApart + 1);
}

// No two operations write the same bytes anywhere, and none writes zeros.
inline char byteAt(uint64_t number, uint64_t pos) {
  uint64_t x = (number * 0x9E3779B97F4A7C15u) ^ (pos * 0xD1B54A32D192ED03u);
  x ^= x >> 29;
  return static_cast<char>(1 + x % 255);
}

}  // namespace ourfs::stress
