// Reads the ring by LSN, in large chunks.
#pragma once

#include <cstdint>
#include <span>

#include "block/block_device.h"
#include "common/aligned_buffer.h"
#include "journal/journal.h"

namespace ourfs {

class RingReader {
 public:
  RingReader(BlockDevice& device, const JournalGeometry& geometry);

  // The bytes at `lsn` and behind, around the end of the ring where they go on. REQUIRES: no more
  // than the ring has.
  Status copy(uint64_t lsn, std::span<std::byte> out);

 private:
  Status load(uint64_t ringOffset);

  BlockDevice& device_;
  const JournalGeometry geometry_;
  AlignedBuffer chunk_;
  uint64_t chunkStart_ = 0, chunkLength_ = 0;  // ring offset and bytes of what chunk_ holds
};

}  // namespace ourfs
