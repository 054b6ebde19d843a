// Replay: reads the records that the index has not persisted, in order, and hands them out.
//
// It follows the chain: the record at the tail (or at the next sector boundary behind it), whose
// predecessor's checksum is the tail's; then the one behind it; until the chain breaks. A torn tail
// or a hole is normal. If behind the break there is a valid record of the current lap whose durable
// LSN lies beyond the break, then something that was durable is lost: `lost` says so, and a
// read-write mount must be refused; so must one if the chain goes on with a generation above
// `maxGeneration`, which the superblock should know. If the record expected at the tail belongs to
// a later lap, the index is older than the journal: EUCLEAN.
#pragma once

#include <functional>
#include <string>

#include "journal/journal.h"

namespace ourfs {

struct ReplaySummary {
  LogPosition end;  // where the chain ended; the journal goes on from here
  uint64_t records = 0;
  uint64_t payloadBytes = 0;
  uint64_t generation = 0;  // of the last record; 0 if there was none
  std::string lost;         // empty, or one line that says what durable part is missing
};

// REQUIRES: nobody writes the ring meanwhile. `each` gets the record's position and payload; its
// error ends the replay. Records with a generation above `maxGeneration` break the chain. Reads
// only; may be repeated any number of times.
Result<ReplaySummary> replayJournal(
    BlockDevice& device, const JournalGeometry& geometry, const LogPosition& tail,
    uint64_t maxGeneration,
    const std::function<Status(const LogPosition&, std::span<const std::byte>)>& each);

// Fills the ring with zeros (mkfs).
Status eraseJournal(BlockDevice& device, const JournalGeometry& geometry);

}  // namespace ourfs
