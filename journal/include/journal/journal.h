// Journal: an endless log of opaque records in a ring on the volume, with group commit.
//
// An LSN is a byte position in the endless log; ring offset = LSN mod ring size. The journal knows
// no inodes: a record's payload is bytes. docs/format.md has the bytes, docs/design.md the reasons.
//
// Invariants:
//   1. Append order is log order; `apply` runs under the log lock, so the index sees the same
//      order.
//   2. flush(lsn) returns success only when every record that ends at or below lsn is on stable
//      storage.
//   3. A record flagged `afterData` reaches the device only after a device flush that was submitted
//      after the record was appended (so after the data it names had been written).
//   4. Every journal write starts on a fresh physical sector; a sector with durable records is
//      never rewritten; a write goes out from a private copy that only the one who writes touches.
//   5. Nothing at or above the tail is overwritten: a reservation waits, or fails with ENOSPC.
//   6. Any write or flush error is fail-stop: every later call answers that error.
//   7. A flush answers only after onDurable has returned for the records that it asked for.
//
// Threads: everything is callable from any thread. Lock order: callers may hold the extent-map lock
// when they append; the log lock is the innermost. Completion of journal I/O never waits for
// callers. One group of records is written at a time. A flush caller that finds no write under way
// carries the group itself; the others wait and share. The writer thread carries what piles up
// without a flush.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "block/block_device.h"
#include "common/result.h"
#include "common/units.h"

namespace ourfs {

struct JournalGeometry {
  DeviceOffset start;   // of the ring on the device
  ByteCount size;       // of the ring; a multiple of sector
  uint32_t sector = 0;  // bytes; alignment of journal writes, at least the device's physical sector
};

// Where the log stands. The index stores the position of the last record applied to it; what it has
// persisted of that is the tail.
struct LogPosition {
  Lsn end;           // the LSN right behind the record
  uint32_t crc = 0;  // the record's checksum, that its successor carries
  bool operator==(const LogPosition&) const = default;
};

struct JournalCounters {
  uint64_t appends = 0, payloadBytes = 0;
  uint64_t writes = 0, writtenBytes = 0;  // journal writes (group commits) and their bytes
  uint64_t dataFlushes = 0;  // device flushes issued before a journal write or for flush(…, Data)
  uint64_t reserveWaits = 0;  // reservations that had to wait for the tail
};

enum class FlushScope {
  Log,         // the records only
  LogAndData,  // also everything that was written to the device before the call
};

class Journal {
 public:
  // Room in the ring for one record. Given back when destroyed unused, before the journal goes.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept;
    Reservation& operator=(Reservation&& other) noexcept;
    ~Reservation();
    uint64_t payload() const { return payload_; }  // bytes the record may carry

   private:
    friend class JournalImpl;
    class Journal* journal_ = nullptr;
    uint64_t payload_ = 0, charged_ = 0;
  };

  struct Options {
    JournalGeometry geometry;
    uint64_t generation = 0;  // of this mount; greater than that of every record on the volume
    LogPosition head;  // where replay ended: new records go to the next sector boundary at or
                       // behind head.end, and the first carries head.crc
    Lsn tail;          // what the index has persisted
    // Asked, in the reserving thread and without locks, when the ring is over half full (once until
    // the tail moves) or a reservation has to wait (again whenever that did not help): the index
    // should persist what it has and call advanceTail. May return before that is done.
    std::function<void()> wantSpace;
    // Called after more became durable, in the thread that made it so and without locks of the
    // journal, with rising values. Must not call flush.
    std::function<void(Lsn)> onDurable;
  };
  static std::unique_ptr<Journal> start(BlockDevice& device, Options options);
  virtual ~Journal() = default;  // stops the writer thread; does not flush

  // Waits for room for one record with up to `payload` bytes. EFBIG if the ring could never hold
  // it, EIO after a failure. Call before taking the extent-map lock.
  virtual Result<Reservation> reserve(ByteCount payload) = 0;
  // The largest payload that reserve can grant (a quarter of the ring).
  virtual ByteCount maxPayload() const = 0;

  // Appends one record and runs `apply` with its position, both under the log lock. An error of
  // apply is fail-stop. Consumes the reservation. REQUIRES: payload.size() <=
  // reservation.payload().
  virtual Result<LogPosition> append(Reservation reservation, std::span<const std::byte> payload,
                                     bool afterData,
                                     const std::function<Status(const LogPosition&)>& apply) = 0;

  // Everything that ends at or below `upTo` is on stable storage when it returns success.
  // Many callers share one write. LogAndData also covers data without a record.
  virtual Status flush(Lsn upTo, FlushScope scope = FlushScope::Log) = 0;

  virtual LogPosition head() const = 0;  // of the last record appended
  virtual Lsn durable() const = 0;       // everything below is on stable storage
  virtual Lsn tail() const = 0;
  virtual void advanceTail(Lsn tail) = 0;  // never moves back
  virtual ByteCount used() const = 0;      // ring bytes between tail and head
  virtual Status failure() const = 0;      // ok, or what made it fail-stop
  virtual void fail(Status why) = 0;       // makes it fail-stop from outside (index failed)
  virtual JournalCounters counters() const = 0;
};

}  // namespace ourfs
