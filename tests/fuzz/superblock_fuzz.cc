// A superblock with a right checksum and fields of the fuzzer's choice, over those of a good one.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "block/memory_device.h"
#include "common/checksum.h"
#include "common/codec.h"
#include "fs/superblock.h"
#include "fuzz_input.h"

namespace {

using namespace ourfs;

constexpr ByteCount kDeviceSize{64 * MiB};
constexpr size_t kCrcAt = 16, kFieldsEnd = 280;

std::string goodBytes() {
  Superblock s;
  s.volumeSize = kDeviceSize;
  s.tableStart = DeviceOffset(128 * KiB);
  s.tableSlotSize = ByteCount(256 * KiB);
  s.journalStart = DeviceOffset(640 * KiB);
  s.journalSize = ByteCount(1 * MiB);
  s.dataStart = DeviceOffset(1664 * KiB);
  s.nameKey = {1, 2};
  return encodeSuperblock(s);
}

void sealBytes(std::string& bytes) {
  std::memset(bytes.data() + kCrcAt, 0, 4);
  const uint32_t crc = crc32c(asBytes(bytes));
  std::memcpy(bytes.data() + kCrcAt, &crc, 4);
}

}  // namespace

// Input: { offset in the fields, a piece of bytes to put there } …, the first byte says whether the
// checksum is mended.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  spdlog::set_level(spdlog::level::off);
  static const std::string good = goodBytes();
  static const bool isGood = decodeSuperblock(good, kDeviceSize).isOk();
  fuzz::require(isGood);
  fuzz::Input in(data, size);
  std::string bytes = good;
  const bool mend = in.u8() % 8 != 0;
  while (!in.atEnd()) {
    const size_t at = in.u16() % kFieldsEnd;
    const std::string piece = in.piece();
    bytes.replace(at, std::min(piece.size(), bytes.size() - at), piece, 0, bytes.size() - at);
    bytes.resize(kSuperblockSize);
  }
  if (mend) sealBytes(bytes);
  const auto decoded = decodeSuperblock(bytes, kDeviceSize);
  if (!decoded.isOk()) {
    fuzz::require(!decoded.status().message().empty());
    return 0;
  }
  // Whatever was taken for good is inside the device, and stays as it is.
  fuzz::require(decoded->dataStart.v < decoded->volumeSize.v);
  fuzz::require(decoded->volumeSize <= kDeviceSize);
  const auto again = decodeSuperblock(encodeSuperblock(*decoded), kDeviceSize);
  fuzz::require(again.isOk() && encodeSuperblock(*again) == encodeSuperblock(*decoded));
  return 0;
}
