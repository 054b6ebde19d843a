// Everything that a reader of a filesystem can see, as text: names, attributes, extended
// attributes, extents and bytes. Two filesystems with the same text are the same.
#pragma once

#include <string>
#include <vector>

#include "fs/filesystem.h"

namespace ourfs::images {

struct TreeText {
  std::string text;
  std::vector<std::string> errors;  // what could not be read; the rest is in the text all the same
};

// Walks everything from the root, however damaged: a directory that is reached twice is listed
// once, and of a file larger than 1 MiB only the beginning is read.
TreeText readTree(Filesystem& filesystem);

}  // namespace ourfs::images
