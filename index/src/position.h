// The value under kLogPositionKey: end:u64 crc:u32 checksum:u32, the checksum over the key and the
// rest.
#pragma once

#include <string>
#include <string_view>

#include "index/index.h"

namespace ourfs {

std::string encodePosition(const AppliedPosition& position);
Result<AppliedPosition> decodePosition(std::string_view value);

}  // namespace ourfs
