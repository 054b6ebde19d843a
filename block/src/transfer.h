// Transfer: how far one request has got in the host, and what to ask the host for next.
//
// It knows nothing of how the host is asked, so both ways of asking (through the ring, and
// directly) continue a short answer by the same rules:
//   - An answer is counted in whole units: the rest of a unit that was cut is asked for again,
//   because
//     direct I/O cannot start in the middle of a sector.
//   - EINTR, EAGAIN and ECANCELED mean "ask again". The last comes when the thread that submitted a
//     request to the ring has exited before a worker took it up.
//   - So many answers without progress in a row are EIO. So is a read that finds the end of the
//   file.
//   - ENOSPC, EDQUOT and EFBIG are ENOSPC; every other error is EIO.
// Threads: none of its own; one at a time.
#pragma once

#include <sys/uio.h>

#include <span>
#include <vector>

#include "block/block_device.h"

namespace ourfs {

class Transfer {
 public:
  enum class Next { Done, Again, Failed };
  static constexpr int kMaxStalls = 64;

  // `unit` divides the size of every piece.
  void start(IoOp op, DeviceOffset offset, std::span<const IoVec> pieces, uint32_t unit);

  // What to ask for: at most IOV_MAX pieces.
  std::span<const iovec> pieces() const;
  DeviceOffset offset() const { return offset_; }

  // Takes the host's answer: a number of bytes, or a negative errno. Flush and Discard move none.
  Next take(int64_t answer);
  int hostErrnum() const { return hostErrnum_; }  // after Failed: what the host said
  int errnum() const;                             // after Failed: what to answer

 private:
  Next stall();
  Next fail(int errnum);
  void advance(uint64_t bytes);

  IoOp op_ = IoOp::Read;
  uint32_t unit_ = 1;
  DeviceOffset offset_;
  std::vector<iovec> pieces_;
  size_t first_ =
      0;  // the first piece that is not done; its base and length are what is left of it
  uint64_t left_ = 0;
  int stalls_ = 0;
  int hostErrnum_ = 0;
};

}  // namespace ourfs
