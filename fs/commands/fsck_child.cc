#include "fsck_child.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

namespace ourfs {

namespace {

Status failed(const char* what) {
  return Status::error(errno, std::string(what) + ": " + Status::error(errno).message());
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

void sendAll(int pipe, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(pipe, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) std::_Exit(EXIT_FAILURE);  // nobody listens any more
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

[[noreturn]] void beChild(pid_t parent, int pipe, int complaints,
                          const std::function<int(const SendLine&)>& work) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) std::_Exit(EXIT_FAILURE);  // it was too late for that
  ::dup2(complaints, STDERR_FILENO);
  const int code = work([&](char kind, std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    sendAll(pipe, std::string{kind, ' '} + text + '\n');
  });
  std::exit(code);
}

void receiveAll(int pipe, const ReceiveLine& receive) {
  std::string text;
  char piece[65536];
  while (true) {
    const ssize_t n = ::read(pipe, piece, sizeof(piece));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text.append(piece, static_cast<size_t>(n));
    size_t from = 0;
    for (size_t end; (end = text.find('\n', from)) != std::string::npos; from = end + 1) {
      if (end >= from + 2)
        receive(text[from], std::string_view(text).substr(from + 2, end - from - 2));
    }
    text.erase(0, from);
  }
}

std::string contentOf(int file) {
  constexpr size_t kMost = 65536;
  std::string text(kMost, '\0');
  const ssize_t n = ::pread(file, text.data(), text.size(), 0);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text;
}

}  // namespace

Result<ChildEnd> runInChild(const std::function<int(const SendLine&)>& work,
                            const ReceiveLine& receive) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return failed("pipe");
  Descriptor readEnd(ends[0]), writeEnd(ends[1]);
  const Descriptor complaints(::memfd_create("fsck.ourfs stderr", MFD_CLOEXEC));
  if (complaints.get() < 0) return failed("memfd_create");
  (void)std::fflush(nullptr);  // or the child would print it once more
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return failed("fork");
  if (child == 0) {
    readEnd.reset();
    beChild(parent, writeEnd.get(), complaints.get(), work);
  }
  writeEnd.reset();
  receiveAll(readEnd.get(), receive);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return failed("waitpid");
  }
  ChildEnd end;
  if (WIFSIGNALED(status)) end.signal = WTERMSIG(status);
  if (WIFEXITED(status)) end.exitCode = WEXITSTATUS(status);
  end.complaints = contentOf(complaints.get());
  return end;
}

}  // namespace ourfs
