// BlockDevice: the volume's storage, as every layer above sees it.
//
// Asynchronous, by whole logical sectors, with an explicit flush. It promises what a disk with a
// volatile write cache promises, and no more:
//   1. A completed write is visible to every later read.
//   2. A completed write is durable only after a flush that was submitted after its completion has
//      completed, or if it carried `fua`.
//   3. Writes that are in flight together reach the medium in any order, and a crash may tear each
//      of them at any logical sector.
//   4. A flush covers the writes that completed before it was submitted, and says nothing about
//      others.
// No file descriptor and no path appears here: the next backend may be on the network.
//
// Threads: every function may be called from any thread. Completions run in a thread of the device
// (or in the submitting thread, for devices that answer at once) and must neither block nor submit
// synchronously; they hand over to someone who may. A device is destroyed when nothing is in flight
// on it; UringDevice waits for that itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "common/units.h"

namespace ourfs {

// What the request is for: fault injection and the recorder tell classes of I/O apart by it.
enum class IoClass : uint8_t { Data, Journal, Index, FileTable, Superblock, Other };
enum class IoOp : uint8_t { Read, Write, Flush, Discard };

using IoCompletion = std::function<void(Status)>;

// A piece of memory to read into or to write from. REQUIRES: data and size are multiples of the
// logical sector; the memory stays valid and, for a write, unchanged until the completion.
struct IoVec {
  std::byte* data = nullptr;
  size_t size = 0;
};

struct IoRequest {
  IoOp op = IoOp::Read;
  IoClass cls = IoClass::Other;
  bool fua = false;           // Write: durable when completed
  DeviceOffset offset;        // multiple of the logical sector
  ByteCount length;           // Discard: bytes; Read and Write: the sum of the pieces' sizes
  std::vector<IoVec> pieces;  // Read and Write: one contiguous range of the device, in order
  IoCompletion done;          // called exactly once, success or not
};

class BlockDevice {
 public:
  virtual ~BlockDevice() = default;

  // Never blocks for the I/O itself (it may wait for a free slot). A request that is out of range
  // or misaligned completes with EINVAL, one that would change a read-only device with EROFS. What
  // a discarded range reads as is undefined until it is written again. A short transfer is
  // continued inside; a transfer that cannot be completed answers EIO, or ENOSPC where the host
  // file could not grow.
  virtual void submit(IoRequest request) = 0;

  virtual ByteCount size() const = 0;          // bytes; constant while open
  virtual uint32_t logicalSector() const = 0;  // bytes; unit of addressing, power of two >= 512
  virtual uint32_t physicalSector()
      const = 0;  // bytes; unit that a crash does not tear into neighbours
  virtual bool readOnly() const = 0;
  virtual std::string name() const = 0;  // for messages

  // Synchronous forms, for mount, commands and tests. They wait for the completion. The memory need
  // not be aligned (aligned is faster). Not to be called from a completion.
  Status read(DeviceOffset offset, std::span<std::byte> into, IoClass cls = IoClass::Other);
  Status write(DeviceOffset offset, std::span<const std::byte> from, IoClass cls = IoClass::Other,
               bool fua = false);
  Status flush(IoClass cls = IoClass::Other);
  Status discard(DeviceOffset offset, ByteCount length);

 protected:
  // Carries out one request and waits for it; `request.done` is not called. A device with a shorter
  // way than submit() and a wait overrides it.
  virtual Status transact(IoRequest request);
};

}  // namespace ourfs
