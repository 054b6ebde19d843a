#include "transfer.h"

#include <algorithm>
#include <climits>

namespace ourfs {

void Transfer::start(IoOp op, DeviceOffset offset, std::span<const IoVec> pieces, uint32_t unit) {
  op_ = op;
  unit_ = unit;
  offset_ = offset;
  first_ = 0;
  left_ = 0;
  stalls_ = 0;
  hostErrnum_ = 0;
  pieces_.clear();
  for (const IoVec& p : pieces) {
    if (p.size == 0) continue;
    pieces_.push_back({p.data, p.size});
    left_ += p.size;
  }
}

std::span<const iovec> Transfer::pieces() const {
  return std::span(pieces_).subspan(first_, std::min<size_t>(pieces_.size() - first_, IOV_MAX));
}

Transfer::Next Transfer::take(int64_t answer) {
  if (answer < 0) {
    const int errnum = static_cast<int>(-answer);
    if (errnum == EINTR || errnum == EAGAIN || errnum == ECANCELED) return stall();
    return fail(errnum);
  }
  if (op_ == IoOp::Flush || op_ == IoOp::Discard) return Next::Done;
  if (answer == 0 && op_ == IoOp::Read) return fail(EIO);
  const uint64_t whole = roundDown(std::min(static_cast<uint64_t>(answer), left_), unit_);
  if (whole == 0) return stall();
  stalls_ = 0;
  advance(whole);
  return left_ == 0 ? Next::Done : Next::Again;
}

int Transfer::errnum() const {
  switch (hostErrnum_) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ENOSPC;
    default:
      return EIO;
  }
}

Transfer::Next Transfer::stall() { return ++stalls_ > kMaxStalls ? fail(EIO) : Next::Again; }

Transfer::Next Transfer::fail(int errnum) {
  hostErrnum_ = errnum;
  return Next::Failed;
}

void Transfer::advance(uint64_t bytes) {
  offset_ += ByteCount(bytes);
  left_ -= bytes;
  while (bytes > 0) {
    iovec& piece = pieces_[first_];
    const size_t step = std::min<uint64_t>(bytes, piece.iov_len);
    piece.iov_base = static_cast<std::byte*>(piece.iov_base) + step;
    piece.iov_len -= step;
    bytes -= step;
    if (piece.iov_len == 0) ++first_;
  }
}

}  // namespace ourfs
