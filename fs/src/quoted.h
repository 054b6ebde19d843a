// Names in messages.
#pragma once

#include <string>
#include <string_view>

namespace ourfs {

// In quotes, without bytes that a terminal would obey.
std::string quoted(std::string_view name);

}  // namespace ourfs
