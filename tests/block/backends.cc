#include "block/backends.h"

#include "block/fault_device.h"
#include "block/host_fixtures.h"
#include "block/memory_device.h"
#include "block/record_device.h"
#include "block/uring_device.h"

namespace ourfs {

namespace {

// Destroyed from the last member to the first: what is below comes first.
template <class Below, class Device>
class Stack final : public Backend {
 public:
  Stack(std::unique_ptr<Below> below, std::unique_ptr<Device> device)
      : below_(std::move(below)), device_(std::move(device)) {}
  BlockDevice& device() override { return *device_; }

 private:
  std::unique_ptr<Below> below_;
  std::unique_ptr<Device> device_;
};

using Made = Result<std::unique_ptr<Backend>>;

template <class Below>
Made openUring(std::unique_ptr<Below> below, const std::string& path, uint32_t depth = 64) {
  UringOptions options;
  options.queueDepth = depth;
  options.lockWait = std::chrono::seconds(5);
  TRY_ASSIGN(auto device, UringDevice::open(path, options));
  return Made(std::make_unique<Stack<Below, UringDevice>>(std::move(below), std::move(device)));
}

template <uint32_t kSector>
Made makeMemory(ByteCount size) {
  return Made(
      std::make_unique<Stack<int, MemoryDevice>>(nullptr, MemoryDevice::create(size, kSector)));
}

template <class Wrapper>
Made makeWrapped(ByteCount size) {
  auto inner = MemoryDevice::create(size);
  auto outer = Wrapper::wrap(*inner);
  return Made(std::make_unique<Stack<MemoryDevice, Wrapper>>(std::move(inner), std::move(outer)));
}

template <uint32_t kDepth>
Made makeUringFile(ByteCount size) {
  auto image = ImageFile::create(size);
  const std::string path = image->path();
  return openUring(std::move(image), path, kDepth);
}

// ramfs refuses O_DIRECT.
Made makeUringBuffered(ByteCount size) {
  TRY_ASSIGN(auto mount, PrivateMount::create("ramfs"));
  TRY_ASSIGN(const std::string path, mount->createFile("image", size));
  return openUring(std::move(mount), path);
}

template <uint32_t kSector>
Made makeUringLoop(ByteCount size) {
  TRY_ASSIGN(auto loop, LoopDevice::create(size, kSector));
  const std::string path = loop->path();
  return openUring(std::move(loop), path);
}

}  // namespace

std::vector<BackendKind> allBackends() {
  return {{"Memory512", makeMemory<512>},        {"Memory4096", makeMemory<4096>},
          {"Fault", makeWrapped<FaultDevice>},   {"Record", makeWrapped<RecordDevice>},
          {"UringFile", makeUringFile<64>},      {"UringFileShortQueue", makeUringFile<2>},
          {"UringBuffered", makeUringBuffered},  {"UringLoop512", makeUringLoop<512>},
          {"UringLoop4096", makeUringLoop<4096>}};
}

}  // namespace ourfs
