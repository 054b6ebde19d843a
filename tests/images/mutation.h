// Changes a volume as damage below its checksums would: a field or some bytes of a structure are
// wrong, and every checksum above them is right again.
#pragma once

#include <random>
#include <string>

#include "images/look.h"

namespace ourfs::images {

enum class Layer : uint8_t {
  Superblock,  // a field of both copies
  Table,       // bytes of the file table's snapshot or deltas
  Journal,     // fields and payloads of records; the chain is whole again
  Records,     // keys and values of the index, by a further record of the journal
  Units,       // bytes that RocksDB has written into its files; it has checksums of its own
  Manifest,    // bytes of a record of its MANIFEST, with its own checksum right, too
};
inline constexpr size_t kLayers = 6;
const char* layerName(Layer layer);

// A copy of the subject's device with one to four such changes. The same random numbers give the
// same image.
std::unique_ptr<MemoryDevice> mutated(const Subject& subject, const MetadataMap& map, Layer layer,
                                      std::mt19937_64& random);

// Keys and values of the index with one to four changes among them, as a transaction's payload.
std::string mutatedBatch(const Subject& subject, std::mt19937_64& random);

}  // namespace ourfs::images
