// The file table of an index that has lost it, made anew from the units that are on the device.
//
// Units say which file they belong to and where in it, but not its name. A table of RocksDB has its
// number in its properties; a MANIFEST is known by what it says. So the files get the names that
// they had, as far as salvage asks for them: NUMBER.sst (0-ID.sst if its properties are lost),
// MANIFEST-ID, CURRENT.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "file_table.h"

namespace ourfs {

struct LostTable {
  std::unique_ptr<FileTable> table;  // read-only
  IndexGeometry geometry;            // of that table: its blocks are units
  DeviceOffset start;                // of the first unit on the device
};

// EUCLEAN if no part of the index is there. A unit that is missing has a place in its file all the
// same, whose checksum is wrong; a file that has lost its end is left out. Tables are there, too,
// that were removed and not written over yet. CURRENT names the newest MANIFEST that can be read,
// which need not be the last one there was; it is missing if there is none.
Result<LostTable> findLostTable(
    BlockDevice& device, const IndexGeometry& geometry,
    const std::function<void(const std::string&)>& note,
    const std::function<void(ByteCount done, ByteCount total)>& progress);

}  // namespace ourfs
