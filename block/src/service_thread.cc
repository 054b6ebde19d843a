#include "service_thread.h"

#include <pthread.h>
#include <signal.h>

namespace ourfs {

std::thread startServiceThread(std::function<void()> body) {
  // Blocked here and not in the thread, which could be hit before it got that far.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(std::move(body));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace ourfs
