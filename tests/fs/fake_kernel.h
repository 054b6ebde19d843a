// FakeKernel: plays the kernel on one end of a socket pair, so that a session is tested without a
// mount.
#pragma once

#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace ourfs {

struct Reply {
  int error = 0;  // positive errno
  std::string body;
  template <class T>
  T as(size_t offset = 0) const {
    T value{};
    EXPECT_GE(body.size(), offset + sizeof(T)) << "the reply is too short";
    if (body.size() >= offset + sizeof(T)) std::memcpy(&value, body.data() + offset, sizeof(T));
    return value;
  }
};

class FakeKernel {
 public:
  FakeKernel() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    ours_ = ends[0], theirs_ = ends[1];
    timeval patience{20, 0};
    setsockopt(ours_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  ~FakeKernel() { hangUp(), close(theirs_); }
  FakeKernel(const FakeKernel&) = delete;
  FakeKernel& operator=(const FakeKernel&) = delete;

  int sessionEnd() const { return theirs_; }
  void hangUp() {
    if (ours_ >= 0) close(ours_);
    ours_ = -1;
  }

  uint32_t uid = 0, gid = 0;  // of the next requests

  // The arguments: structures and strings, one after the other. A std::string is sent with its NUL.
  template <class... Args>
  uint64_t send(uint32_t opcode, uint64_t node, const Args&... args) {
    std::string message(sizeof(fuse_in_header), '\0');
    (append(message, args), ...);
    fuse_in_header header{};
    header.len = static_cast<uint32_t>(message.size());
    header.opcode = opcode;
    header.unique = ++unique_;
    header.nodeid = node;
    header.uid = uid;
    header.gid = gid;
    std::memcpy(message.data(), &header, sizeof(header));
    EXPECT_EQ(::send(ours_, message.data(), message.size(), 0),
              static_cast<ssize_t>(message.size()));
    return unique_;
  }
  // Waits for the reply to this request; what comes before it is kept.
  Reply await(uint64_t unique) {
    for (;;) {
      if (auto early = early_.extract(unique)) return early.mapped();
      std::string message(1 << 20, '\0');
      ssize_t n = recv(ours_, message.data(), message.size(), 0);
      if (n < static_cast<ssize_t>(sizeof(fuse_out_header))) {
        ADD_FAILURE() << "no reply came";
        return {EIO, ""};
      }
      fuse_out_header header{};
      std::memcpy(&header, message.data(), sizeof(header));
      EXPECT_EQ(header.len, n);
      message = message.substr(sizeof(header), static_cast<size_t>(n) - sizeof(header));
      if (header.unique == unique) return {-header.error, message};
      EXPECT_LE(header.unique, unique_) << "a reply that nobody asked for";
      if (header.unique == 0) {
        notifications.push_back({header.error, message});
      } else {
        early_[header.unique] = {-header.error, message};
      }
    }
  }
  template <class... Args>
  Reply call(uint32_t opcode, uint64_t node, const Args&... args) {
    return await(send(opcode, node, args...));
  }
  // Whether something can be read now.
  bool silent() const {
    char c = 0;
    return recv(ours_, &c, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
  }

  std::vector<Reply> notifications;  // `error` is the code

 private:
  static void append(std::string& to, const std::string& text) {
    to.append(text.c_str(), text.size() + 1);
  }
  static void append(std::string& to, const std::vector<char>& bytes) {
    to.append(bytes.data(), bytes.size());
  }
  template <class T>
  static void append(std::string& to, const T& value) {
    static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>);
    to.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  int ours_ = -1, theirs_ = -1;
  uint64_t unique_ = 0;
  std::map<uint64_t, Reply> early_;  // to requests that nobody has waited for yet
};

}  // namespace ourfs
