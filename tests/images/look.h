// What a volume shows, and what mount and fsck say of it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "block/memory_device.h"
#include "images/metadata_map.h"
#include "images/sample.h"

namespace ourfs::images {

// What each of them says is wrong, first line; empty if nothing is.
struct Look {
  std::string mount, read, fsck;
  std::string text;  // of the tree; empty if it could not be mounted and read
  // The first of them that says anything.
  const std::string& complaint() const {
    return !mount.empty() ? mount : !read.empty() ? read : fsck;
  }
};

// fsck -n; a read-only mount and a read of everything. `device` does not change.
Look lookAt(BlockDevice& device);

// A volume and what is known of it. The work is done in children: this process opens no volume.
struct Subject {
  std::unique_ptr<MemoryDevice> device, earlier;
  std::string text;                                          // what it shows
  LogRange log;                                              // what a mount replays
  uint32_t logCrc = 0;                                       // of the last record
  std::vector<std::pair<std::string, std::string>> records;  // keys and values, in order
  bool wasClean = false;
  // What it shows without its last record: what a crash in front of that would have left.
  std::string textBeforeLast;
};
// Fails the test if it cannot be made.
Subject makeSubject(const SampleOptions& options);

}  // namespace ourfs::images
