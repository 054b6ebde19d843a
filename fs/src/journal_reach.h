// Does the journal reach as far as the index says it has persisted?
#pragma once

#include "block/block_device.h"
#include "common/result.h"
#include "journal/journal.h"

namespace ourfs {

// The log comes first: a record ends at every position that an index has ever persisted, or the
// ring holds younger ones. EUCLEAN if neither is there. For a replay that found nothing behind
// `persisted`; one that did has proved it by the chain. Reads the whole ring.
Status checkJournalReaches(BlockDevice& device, const JournalGeometry& geometry,
                           const LogPosition& persisted, uint64_t maxGeneration);

}  // namespace ourfs
