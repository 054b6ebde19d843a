// The extents of a file for people and tools: `ourfs extents`.
#pragma once

#include <string>
#include <vector>

#include "fs/filesystem.h"

namespace ourfs {

// Of a mounted filesystem: what the index and the cache have. EINVAL if it is not a regular file.
Result<std::vector<Extent>> extentsOf(Filesystem& filesystem, InodeNo ino);
// Of a volume that is not mounted: what the index has.
Result<std::vector<Extent>> extentsOf(Volume& volume, InodeNo ino);

// A table, one extent per line; holes are not listed.
std::string extentsText(const std::vector<Extent>& extents, uint32_t blockSize);

}  // namespace ourfs
