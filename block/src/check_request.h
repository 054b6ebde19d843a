// What every device checks before it does anything.
#pragma once

#include "block/block_device.h"

namespace ourfs {

// EINVAL for a request that is out of range, misaligned, or whose pieces do not add up; EROFS for
// one that would change a read-only device.
Status checkRequest(const BlockDevice& device, const IoRequest& request);

}  // namespace ourfs
