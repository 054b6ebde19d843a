// JournalWriter: carries one group of records to the ring.
//
// It owns the buffer that goes to the device. Only the thread that holds the journal's I/O token
// may call it; the journal hands the token over under the log lock. Nothing that an appender can
// reach is ever given to the device.
#pragma once

#include <cstdint>
#include <span>

#include "block/block_device.h"
#include "common/aligned_buffer.h"
#include "journal/journal.h"

namespace ourfs {

// Everything that was pending when the token was taken.
struct JournalGroup {
  uint64_t start = 0;       // LSN of the first byte, on a sector boundary
  uint64_t length = 0;      // of the records; 0 if only data is to be flushed
  LogPosition last;         // of the last record
  bool preflush = false;    // the device must be flushed before the records go out
  uint64_t dataTicket = 0;  // the LogAndData calls up to this number are served by the preflush
  uint64_t shared = 0;      // mutant only: bytes that were left in the shared buffer
};

class JournalWriter {
 public:
  JournalWriter(BlockDevice& device, const JournalGeometry& geometry);

  // Makes `records` (the group's bytes, group.length of them) durable; success means they are.
  // Each device write starts on a sector boundary and ends on one, zero-filled.
  Status write(const JournalGroup& group, std::span<const std::byte> records);

 private:
  // The device write that begins at `lsn`: as much of the rest as the buffer and the ring's end
  // allow.
  uint64_t stepLength(uint64_t lsn, uint64_t rest) const;
  Status writeStep(uint64_t lsn, std::span<const std::byte> bytes, bool fua);

  BlockDevice& device_;
  const JournalGeometry geometry_;
  AlignedBuffer buffer_;
};

}  // namespace ourfs
