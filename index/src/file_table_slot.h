// One slot of the file table as it was read.
#pragma once

#include <optional>

#include "common/aligned_buffer.h"
#include "file_table.h"

namespace ourfs {

struct FileTable::Slot {
  AlignedBuffer bytes;
  std::optional<TableState> state;  // unset: no intact snapshot
  uint64_t tableId = 0;
  Chain chain;
};

// EUCLEAN if the table could not lie there on this device.
Status checkTableGeometry(const BlockDevice& device, const IndexGeometry& geometry);

}  // namespace ourfs
