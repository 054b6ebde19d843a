#include "control.h"

#include <dirent.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <sstream>

namespace ourfs {

namespace {

constexpr const char* kDirectory = "/run/ourfs";
constexpr size_t kMaxLine = 256;
constexpr timeval kClientPatience{1, 0};   // so that a silent client cannot hold up an unmount
constexpr timeval kServerPatience{30, 0};  // stats of a busy daemon

std::string socketPath(dev_t device) {
  return std::string(kDirectory) + "/" + std::to_string(major(device)) + ":" +
         std::to_string(minor(device)) + ".sock";
}

Result<sockaddr_un> addressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return Status::error(ENAMETOOLONG);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

void sendAll(int fd, std::string_view text) {
  while (!text.empty()) {
    ssize_t n = send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text.remove_prefix(static_cast<size_t>(n));
  }
}

// Up to `end`, the end of the stream, or an error.
std::string receive(int fd, size_t most, bool oneLine) {
  std::string text;
  char piece[4096];
  while (text.size() < most) {
    ssize_t n = recv(fd, piece, std::min(sizeof(piece), most - text.size()), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(piece, static_cast<size_t>(n));
    if (oneLine && text.find('\n') != std::string::npos) break;
  }
  return text;
}

// Nobody listens there any more: left by a daemon that was killed.
bool isDead(const std::string& path) {
  auto address = addressOf(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (!address || fd < 0) return false;
  bool dead = connect(fd, generic(*address), sizeof(*address)) != 0 && errno == ECONNREFUSED;
  close(fd);
  return dead;
}

std::string ask(const std::string& path, const std::string& line) {
  auto address = addressOf(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (!address || fd < 0) return "";
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kServerPatience, sizeof(kServerPatience));
  std::string answer;
  if (connect(fd, generic(*address), sizeof(*address)) == 0) {
    sendAll(fd, line + "\n");
    answer = receive(fd, SIZE_MAX, false);
  }
  close(fd);
  return answer;
}

template <class Each>
void forEachSocket(Each each) {
  DIR* directory = opendir(kDirectory);
  if (!directory) return;
  while (const dirent* entry = readdir(directory)) {
    std::string name = entry->d_name;
    if (name.size() > 5 && name.substr(name.size() - 5) == ".sock") each(kDirectory + ("/" + name));
  }
  closedir(directory);
}

Result<int> listenAt(const std::string& path) {
  if (mkdir(kDirectory, 0700) != 0 && errno != EEXIST)
    return Status::error(errno).withContext(kDirectory);
  forEachSocket([](const std::string& other) {
    if (isDead(other)) unlink(other.c_str());
  });
  TRY_ASSIGN(sockaddr_un address, addressOf(path));
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return Status::error(errno);
  unlink(path.c_str());  // of a mount that had this number before
  mode_t mask = umask(0177);
  bool listening = bind(fd, generic(address), sizeof(address)) == 0 && listen(fd, 8) == 0;
  int error = errno;
  umask(mask);
  if (listening) return fd;
  close(fd);
  return Status::error(error).withContext(path);
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::start(dev_t device, Answer answer) {
  std::string path = socketPath(device);
  int wake = eventfd(0, EFD_CLOEXEC);
  if (wake < 0) return Status::error(errno);
  auto listener = listenAt(path);
  if (!listener) {
    close(wake);
    return listener.status();
  }
  return std::unique_ptr<ControlServer>(
      new ControlServer(*listener, wake, std::move(path), std::move(answer)));
}

ControlServer::ControlServer(int listener, int wake, std::string path, Answer answer)
    : listener_(listener),
      wake_(wake),
      path_(std::move(path)),
      answer_(std::move(answer)),
      thread_([this] { run(); }) {}

ControlServer::~ControlServer() {
  unlink(path_.c_str());
  eventfd_write(wake_, 1);
  thread_.join();
  close(listener_), close(wake_);
}

void ControlServer::run() {
  for (;;) {
    pollfd waiting[2] = {{wake_, POLLIN, 0}, {listener_, POLLIN, 0}};
    if (poll(waiting, 2, -1) < 0 && errno != EINTR) return;
    if (waiting[0].revents) return;
    if (!waiting[1].revents) continue;
    int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    serve(client);
    close(client);
  }
}

void ControlServer::serve(int client) {
  setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &kClientPatience, sizeof(kClientPatience));
  setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &kClientPatience, sizeof(kClientPatience));
  std::string line = receive(client, kMaxLine, true);
  size_t end = line.find('\n');
  if (end == std::string::npos) return;
  auto answer = answer_(line.substr(0, end));
  sendAll(client, answer ? "ok\n" + *answer : "error\n" + answer.status().message() + "\n");
}

Result<std::string> askDaemon(dev_t device, const std::string& line) {
  std::string answer = ask(socketPath(device), line);
  if (answer.rfind("ok\n", 0) == 0) return answer.substr(3);
  if (answer.rfind("error\n", 0) != 0)
    return Status::error(ENOENT,
                         "no ourfs daemon serves this; give a mount point of ourfs, as root");
  std::string why = answer.substr(6);
  while (!why.empty() && why.back() == '\n') why.pop_back();
  return Status::error(EINVAL, why);
}

std::string daemonMountOf(dev_t sourceDevice, ino_t sourceInode) {
  std::string found;
  forEachSocket([&](const std::string& path) {
    std::string answer = found.empty() ? ask(path, "source") : "";
    std::istringstream fields(answer);
    std::string verdict, mountPoint;
    uint64_t device = 0, inode = 0;
    fields >> verdict >> device >> inode;
    fields.ignore(1);
    std::getline(fields, mountPoint);
    if (verdict == "ok" && device == sourceDevice && inode == sourceInode) found = mountPoint;
  });
  return found;
}

}  // namespace ourfs
