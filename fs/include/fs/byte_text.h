// Sizes as people write them: "512", "64K", "1.5G" is not one, "20GiB" is.
#pragma once

#include <string>
#include <string_view>

#include "common/result.h"
#include "common/units.h"

namespace ourfs {

// A whole number and a unit: none or B for bytes; K, M, G, T, P, each also as KiB or KB, all powers
// of 1024. EINVAL with a line that names the text.
Result<ByteCount> parseBytes(std::string_view text);
// In the largest unit that is exact or above 10 of it: "4 GiB", "1536 MiB", "100 B".
std::string bytesText(ByteCount bytes);

}  // namespace ourfs
