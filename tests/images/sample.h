// Volumes with some of everything, for the tests of whole images: all kinds of files, attributes,
// extents of all states, an index of several files and levels, a journal that has gone round.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "block/memory_device.h"
#include "fs/filesystem.h"

namespace ourfs::images {

inline constexpr uint64_t kSampleSize = 32 * MiB;

struct SampleOptions {
  uint32_t blockSize = 4096;
  // Unmounted, or as after a crash: with records to replay, an orphan, and as the last record one
  // that no other proves to have been durable.
  bool clean = true;
  // Large attributes, that take the journal round its ring.
  bool roundTheRing = true;
};

struct Sample {
  std::unique_ptr<MemoryDevice> device;
  std::unique_ptr<MemoryDevice> earlier;  // the same volume, some mounts and checkpoints before
};

Result<Sample> makeSample(const SampleOptions& options);

// Nothing in the background writes by itself.
FilesystemOptions quietOptions();

}  // namespace ourfs::images
