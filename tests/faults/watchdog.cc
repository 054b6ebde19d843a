#include "faults/watchdog.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace ourfs::faults {

namespace {

char current[256];  // what runs, for a signal handler

void tellAndDie(int signal) {
  // Only what is allowed in a handler.
  const auto tell = [](const char* text) {
    size_t length = 0;
    while (text[length] != 0) ++length;
    if (write(STDERR_FILENO, text, length) < 0) _exit(1);
  };
  tell("\nended by a signal during: ");
  tell(current);
  tell("\n");
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
  raise(signal);
}

}  // namespace

Watchdog::Watchdog(std::chrono::seconds limit)
    : limit_(limit), since_(std::chrono::steady_clock::now()), thread_([this] { watch(); }) {
  struct sigaction action {};
  action.sa_handler = tellAndDie;
  sigaction(SIGABRT, &action, nullptr);
  sigaction(SIGSEGV, &action, nullptr);
}

Watchdog::~Watchdog() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notifyAll();
  }
  thread_.join();
}

void Watchdog::begin(const std::string& work) {
  MutexLock lock(mutex_);
  work_ = work;
  since_ = std::chrono::steady_clock::now();
  std::snprintf(current, sizeof(current), "%s", work.c_str());
}

void Watchdog::watch() {
  MutexLock lock(mutex_);
  while (!stopping_) {
    (void)changed_.waitFor(mutex_, std::chrono::seconds(1));
    if (std::chrono::steady_clock::now() - since_ < limit_) continue;
    std::fprintf(stderr, "hangs for %ld s: %s\n", static_cast<long>(limit_.count()), work_.c_str());
    std::abort();
  }
}

}  // namespace ourfs::faults
