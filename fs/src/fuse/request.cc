#include "fuse/request.h"

#include <sys/uio.h>

#include <algorithm>
#include <cstring>

namespace ourfs {

namespace {

// Larger errors are refused by the kernel, and the requester would wait forever.
constexpr int kLargestErrno = 511;

template <class T>
std::span<const std::byte> bytesOf(const T& value) {
  return {reinterpret_cast<const std::byte*>(&value), sizeof(T)};
}

iovec ioVector(std::span<const std::byte> bytes) {
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

}  // namespace

int ReplyChannel::send(std::span<const std::byte> head, std::span<const std::byte> body) const {
  iovec pieces[2] = {ioVector(head), ioVector(body)};
  for (;;) {
    if (writev(fd_, pieces, body.empty() ? 1 : 2) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

void ReplyChannel::invalidateAttributes(InodeNo ino) const {
  struct {
    fuse_out_header header;
    fuse_notify_inval_inode_out body;
  } message = {{sizeof(message), FUSE_NOTIFY_INVAL_INODE, 0},
               {ino.v, -1, 0}};  // a negative offset: attributes only
  (void)send(bytesOf(message));  // ENOENT: the kernel does not know the inode, so nothing is stale
}

Request::Request(const ReplyChannel& channel, RequestBuffer& buffer,
                 std::span<const std::byte> message)
    : channel_(channel), buffer_(buffer) {
  std::memcpy(&header_, message.data(), sizeof(header_));
  size_t end = std::min<size_t>(header_.len, message.size());
  // Extensions lie behind the arguments; none was asked for at INIT, but they must not be read as
  // names.
  size_t extensions = size_t{header_.total_extlen} * 8;
  ok_ = header_.len == message.size() && end >= sizeof(header_) + extensions;
  rest_ = ok_ ? message.subspan(sizeof(header_), end - sizeof(header_) - extensions)
              : std::span<const std::byte>();
}

Caller Request::caller(uint32_t umask) const {
  return {header_.uid, header_.gid, static_cast<int32_t>(header_.pid), umask};
}

void Request::takeRaw(void* into, size_t size) {
  std::span<const std::byte> bytes = takeBytes(size);
  if (bytes.size() == size) std::memcpy(into, bytes.data(), size);
}

std::span<const std::byte> Request::takeBytes(size_t size) {
  if (!ok_ || rest_.size() < size) {
    ok_ = false;
    return {};
  }
  std::span<const std::byte> bytes = rest_.first(size);
  rest_ = rest_.subspan(size);
  return bytes;
}

std::string_view Request::takeName() {
  const void* nul = ok_ && !rest_.empty() ? std::memchr(rest_.data(), 0, rest_.size()) : nullptr;
  if (!nul) {
    ok_ = false;
    return {};
  }
  size_t length = static_cast<size_t>(static_cast<const std::byte*>(nul) - rest_.data());
  std::string_view name(reinterpret_cast<const char*>(rest_.data()), length);
  rest_ = rest_.subspan(length + 1);
  return name;
}

bool Request::fail(int errnum) {
  replied_ = true;
  fuse_out_header out{sizeof(out), errnum > kLargestErrno ? -EIO : -errnum, header_.unique};
  return channel_.send(bytesOf(out)) == 0;
}

bool Request::replyBytes(std::span<const std::byte> body) {
  replied_ = true;
  fuse_out_header out{static_cast<uint32_t>(sizeof(out) + body.size()), 0, header_.unique};
  return channel_.send(bytesOf(out), body) == 0;
}

std::span<std::byte> Request::replyArea(size_t size) {
  return {buffer_.payload(), std::min(size, RequestBuffer::kMaxPayload)};
}

bool Request::replyFromArea(size_t size) {
  replied_ = true;
  fuse_out_header out{static_cast<uint32_t>(sizeof(out) + size), 0, header_.unique};
  std::byte* message = buffer_.payload() - sizeof(out);
  std::memcpy(message, &out, sizeof(out));
  return channel_.send({message, sizeof(out) + size}) == 0;
}

}  // namespace ourfs
