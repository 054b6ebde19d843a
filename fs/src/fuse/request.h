// Request: one message of the kernel, its arguments in order, and its one reply.
//
// The bytes lie in a RequestBuffer. `take` copies an argument out, so that a reply may be built in
// the same buffer; names point into it and are gone once a reply area was used. Arguments that are
// too short make ok() false; check it once, before acting.
#pragma once

#include <span>
#include <string_view>
#include <type_traits>

#include "common/aligned_buffer.h"
#include "fs/filesystem.h"
#include "fuse/protocol.h"

namespace ourfs {

// Memory of one worker. A request is read so that the payload of a WRITE starts on a page boundary;
// the data of a READ's reply starts there too, with room for its header in front.
class RequestBuffer {
 public:
  static constexpr size_t kMaxPayload = 1 * MiB;  // of READ and WRITE
  static constexpr size_t kPage = 4096;
  static constexpr size_t kLead = sizeof(fuse_in_header) + sizeof(fuse_write_in);

  RequestBuffer() : memory_(kPage + kMaxPayload + kPage, kPage) {}
  std::span<std::byte> readArea() {
    return memory_.span().subspan(kPage - kLead, kLead + kMaxPayload);
  }
  std::byte* payload() { return memory_.data() + kPage; }

 private:
  AlignedBuffer memory_;
};

// Where replies and notifications go: the descriptor of the connection. Writes are atomic messages.
class ReplyChannel {
 public:
  explicit ReplyChannel(int fd) : fd_(fd) {}
  // 0, or the errno of the write: ENOENT says that nobody waits for this reply any more.
  int send(std::span<const std::byte> head, std::span<const std::byte> body = {}) const;
  // The kernel's cached attributes of this inode are stale. No lock may be held.
  void invalidateAttributes(InodeNo ino) const;

 private:
  int fd_;
};

class Request {
 public:
  // `message`: header and arguments, as read; at least a header.
  Request(const ReplyChannel& channel, RequestBuffer& buffer, std::span<const std::byte> message);

  const fuse_in_header& header() const { return header_; }
  InodeNo node() const { return InodeNo(header_.nodeid); }
  Caller caller(uint32_t umask = 0) const;

  // ---- arguments ----
  template <class T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    takeRaw(&value, sizeof(T));
    return value;
  }
  std::string_view takeName();  // up to its NUL, which is consumed
  std::span<const std::byte> takeBytes(size_t size);
  std::span<const std::byte> rest() const { return rest_; }
  bool ok() const { return ok_; }

  // ---- reply: exactly one; false when nobody waits for it any more ----
  bool done() { return fail(0); }
  bool fail(int errnum);  // 0 is success without a body
  bool fail(const Status& status) { return fail(status.errnum()); }
  template <class T>
  bool reply(const T& body) {
    static_assert(std::is_trivially_copyable_v<T>);
    return replyBytes({reinterpret_cast<const std::byte*>(&body), sizeof(T)});
  }
  bool replyBytes(std::span<const std::byte> body);
  // The area for a large reply, page-aligned; `size` is cut to what there is. Ends the life of
  // names.
  std::span<std::byte> replyArea(size_t size);
  bool replyFromArea(size_t size);
  void noReply() { replied_ = true; }  // FORGET
  bool replied() const { return replied_; }

 private:
  void takeRaw(void* into, size_t size);

  const ReplyChannel& channel_;
  RequestBuffer& buffer_;
  fuse_in_header header_;
  std::span<const std::byte> rest_;
  bool ok_ = true, replied_ = false;
};

}  // namespace ourfs
