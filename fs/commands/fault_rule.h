// A rule of the fault device, in words:
//
//   KIND             error, short, drop, misdirect, flip or delay
//   op=OP            read, write, flush or discard; else any that the kind can be done to
//   class=CLASS      data, journal, index, table or superblock; else any
//   skip=N           so many requests that match pass first
//   times=N          then so many are hit; all: every one from there on; else one
//   errno=N          error: by number; else 5 (EIO)
//   shift=BYTES      misdirect; else 4096
//   bit=N            flip: of the request's bytes; else 0
//   delay=US         delay: microseconds
#pragma once

#include <string>
#include <vector>

#include "block/fault_device.h"
#include "common/result.h"

namespace ourfs {

// EINVAL with a line that names the word.
Result<FaultRule> faultRuleOf(const std::vector<std::string>& words);

}  // namespace ourfs
