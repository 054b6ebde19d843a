// A volume described for people: mkfs.ourfs, ourfs info.
#pragma once

#include <string>

#include "fs/superblock.h"

namespace ourfs {

// Lines "name: value". `live`: it is mounted now, so that "clean" would mean nothing.
std::string volumeText(const Superblock& superblock, bool live);

}  // namespace ourfs
