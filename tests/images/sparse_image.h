// A device's contents without its zeros, as bytes to keep in a file.
//
//   image := { offset:u64 length:u32 bytes } … of what is not zero, in order, after size:u64
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "block/memory_device.h"

namespace ourfs::images {

std::string sparseImage(BlockDevice& device);
// Null if the bytes are no such image.
std::unique_ptr<MemoryDevice> deviceFrom(std::string_view image);

// Single bytes of a device, wherever they lie.
std::string peek(BlockDevice& device, uint64_t at, uint64_t length);
void poke(BlockDevice& device, uint64_t at, std::string_view bytes);

}  // namespace ourfs::images
