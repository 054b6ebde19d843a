// The units of an index whose file table is lost: a scan of the device finds them by what they say
// of themselves (unit.h). Reads only.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "block/block_device.h"
#include "index/index.h"
#include "unit.h"

namespace ourfs {

struct LostUnit {
  UnitClaim claim;
  uint64_t place = 0;  // on the device, in units
};

struct LostUnits {
  uint32_t seed = 0;
  uint64_t firstPlace = 0;      // the lowest
  std::vector<LostUnit> units;  // by file, then by number; no number twice
};

// One pass over the device, from behind the table on. A seed counts that two units of one file
// have; of several, that of the unit in front of all others: the pool begins where the data area
// does, and an image of another volume lies in a file behind. EUCLEAN if there is none. REQUIRES:
// the geometry's block size is that of a unit. Holds 40 bytes for each piece of the device that
// looks like a unit.
Result<LostUnits> findLostUnits(
    BlockDevice& device, const IndexGeometry& geometry,
    const std::function<void(const std::string&)>& note,
    const std::function<void(ByteCount done, ByteCount total)>& progress);

}  // namespace ourfs
