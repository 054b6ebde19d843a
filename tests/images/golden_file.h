// The files of a golden image: the volume without its zeros, packed by gzip(1), and its manifest.
#pragma once

#include <optional>
#include <string>

namespace ourfs::images {

// Unset if the file cannot be read or unpacked.
std::optional<std::string> readPacked(const std::string& path);
bool writePacked(const std::string& path, const std::string& bytes);

}  // namespace ourfs::images
