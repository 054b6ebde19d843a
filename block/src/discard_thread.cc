#include "discard_thread.h"

#include "service_thread.h"

namespace ourfs {

DiscardThread::~DiscardThread() {
  std::thread thread;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    thread = std::move(thread_);
  }
  changed_.notifyAll();
  if (thread.joinable()) thread.join();
}

void DiscardThread::submit(IoRequest request) {
  MutexLock lock(mutex_);
  queue_.push_back(std::move(request));
  if (!thread_.joinable()) thread_ = startServiceThread([this] { run(); });
  changed_.notifyOne();
}

void DiscardThread::run() {
  MutexLock lock(mutex_);
  for (;;) {
    while (queue_.empty() && !stopping_) changed_.wait(mutex_);
    if (queue_.empty()) return;
    IoRequest request = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    int rc = 0;
    do {
      rc = file_.discard(request.offset, request.length);
    } while (rc == -EINTR);
    request.done(rc == 0 ? Status::ok() : Status::error(EIO, file_.path() + ": discard failed"));
    lock.lock();
  }
}

}  // namespace ourfs
