// The superblock's journal region, in the journal's words.
#pragma once

#include "fs/superblock.h"
#include "journal/journal.h"

namespace ourfs {

inline JournalGeometry journalGeometry(const Superblock& s) {
  return {s.journalStart, s.journalSize, s.journalSector};
}

}  // namespace ourfs
