// The threads of a FUSE session.
//
// Lock order: mutex_ is innermost and never held across a read, a request or a reply.
#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <list>
#include <system_error>
#include <thread>

#include "common/mutex.h"
#include "common/sync_point.h"
#include "fuse/connection.h"

namespace ourfs {

namespace {

// Interrupts a read of the connection; the handler does nothing.
constexpr int kWakeSignal = SIGUSR2;
constexpr std::chrono::milliseconds kWakeInterval{10};

void installWakeSignal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(kWakeSignal, &action, nullptr);  // without SA_RESTART: read answers EINTR
}

class Session : public FuseSession {
 public:
  Session(int fd, Filesystem& filesystem, const FuseSessionOptions& options,
          std::function<void()> onDestroy)
      : fd_(fd),
        idleThreads_(std::max(1u, options.idleThreads)),
        keptThreads_(std::max(options.keptThreads, idleThreads_)),
        maxThreads_(std::max(options.maxThreads, keptThreads_)),
        connection_(fd, filesystem, options),
        onDestroy_(std::move(onDestroy)) {}
  ~Session() override { stop(); }

  void begin() {
    MutexLock l(mutex_);
    for (unsigned n = 0; n < idleThreads_; ++n) spawn();
  }

  bool awaitInit(std::chrono::milliseconds limit) override {
    auto deadline = std::chrono::steady_clock::now() + limit;
    MutexLock l(mutex_);
    while (!initialized_ && threads_ > 0) {
      auto left = deadline - std::chrono::steady_clock::now();
      if (left.count() <= 0) return false;
      changed_.waitFor(mutex_, left);
    }
    return initialized_;
  }

  void awaitEnd() override {
    MutexLock l(mutex_);
    while (threads_ > 0) changed_.wait(mutex_);
    reap();
    l.unlock();
    connection_.releaseAll();
  }

  bool awaitEndFor(std::chrono::milliseconds limit) override {
    auto deadline = std::chrono::steady_clock::now() + limit;
    MutexLock l(mutex_);
    while (threads_ > 0) {
      auto left = deadline - std::chrono::steady_clock::now();
      if (left.count() <= 0) return false;
      changed_.waitFor(mutex_, left);
    }
    return true;
  }

  void stop() override {
    ending_.store(true);
    MutexLock l(mutex_);
    while (threads_ > 0) {
      wakeReaders();
      changed_.waitFor(mutex_, kWakeInterval);  // a thread may have been about to read: once more
    }
    reap();
    l.unlock();
    connection_.releaseAll();
  }

 private:
  struct Worker {
    std::thread thread;
    std::atomic<bool> reading{false};
    bool idle = true;       // counted in idle_; its own thread's
    bool finished = false;  // mutex_
  };

  void spawn() REQUIRES(mutex_) {
    reap();
    workers_.emplace_back();
    Worker& worker = workers_.back();
    ++threads_, ++idle_;  // before it can take a request
    try {
      worker.thread = std::thread([this, &worker] { run(worker); });
    } catch (const std::system_error& e) {  // those that there are go on
      spdlog::warn("cannot start another thread: {}", e.what());
      workers_.pop_back();
      --threads_, --idle_;
    }
  }

  void wakeReaders() REQUIRES(mutex_) {
    for (Worker& w : workers_)
      if (!w.finished && w.reading.load()) pthread_kill(w.thread.native_handle(), kWakeSignal);
  }

  // Joins the threads that have ended; they hold no lock any more.
  void reap() REQUIRES(mutex_) {
    for (auto w = workers_.begin(); w != workers_.end();) {
      if (!w->finished) {
        ++w;
        continue;
      }
      w->thread.join();
      w = workers_.erase(w);
    }
  }

  void run(Worker& self) {
    RequestBuffer buffer;
    while (serveOne(self, buffer)) {
    }
    SYNC_POINT("session.thread_ends");
    MutexLock l(mutex_);
    self.finished = true;
    --threads_;
    if (self.idle) --idle_;
    changed_.notifyAll();
  }

  // One request, or a reason to look again; false when this thread is to end.
  bool serveOne(Worker& self, RequestBuffer& buffer) {
    auto area = buffer.readArea();
    self.reading.store(true);
    ssize_t got = -1;
    errno = EINTR;
    if (!ending_.load()) got = ::read(fd_, area.data(), area.size());
    self.reading.store(false);
    if (ending_.load() && got < 0) return false;
    if (got < 0) {
      // ENOENT: the request was interrupted before we had it. ENODEV, ECONNABORTED: unmounted.
      if (errno == EINTR || errno == EAGAIN || errno == ENOENT) return true;
      if (errno != ENODEV && errno != ECONNABORTED)
        spdlog::error("reading from the kernel failed: {}", Status::error(errno).message());
      return endAll();
    }
    if (got == 0) return endAll();  // a test's socket was closed
    if (static_cast<size_t>(got) < sizeof(fuse_in_header)) return true;
    return handle(self, buffer, area.first(static_cast<size_t>(got)));
  }

  bool endAll() {
    ending_.store(true);
    return false;
  }

  bool handle(Worker& self, RequestBuffer& buffer, std::span<const std::byte> message) {
    Request request(connection_.channel, buffer, message);
    if (!enter(self)) {
      refuse(request);
      return false;
    }
    bool destroy = request.header().opcode == FUSE_DESTROY;
    if (destroy) {
      handleDestroy(request);
    } else {
      dispatch(request);
    }
    return leave(self) && !destroy;
  }

  void dispatch(Request& request) {
    uint32_t opcode = request.header().opcode;
    SYNC_POINT("session.request");
    if (opcode == FUSE_INTERRUPT) return;  // nothing here waits for something that may never come
    Handler handler = handlerOf(opcode);
    if (!handler) {
      request.fail(opcode == FUSE_IOCTL ? ENOTTY : ENOSYS);
      return;
    }
    handler(connection_, request);
    if (!request.replied()) request.fail(EIO);  // the requester would wait forever
    if (opcode == FUSE_INIT) {
      MutexLock l(mutex_);
      initialized_ = true;
      changed_.notifyAll();
    }
  }

  static bool wantsNoReply(uint32_t opcode) {
    return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT;
  }
  void refuse(Request& request) {
    if (!wantsNoReply(request.header().opcode)) request.fail(ENODEV);
  }

  // Alone: what was in work is done, what comes later is refused.
  void handleDestroy(Request& request) {
    {
      MutexLock l(mutex_);
      ending_.store(true);
      while (inWork_.load() > 1) changed_.wait(mutex_);
    }
    connection_.releaseAll();
    if (onDestroy_) onDestroy_();
    request.done();
    MutexLock l(mutex_);
    wakeReaders();
  }

  // Takes note of a request. Either this sees `ending_`, or whoever has set it sees the request:
  // both are sequentially consistent.
  bool enter(Worker& self) {
    inWork_.fetch_add(1);
    if (ending_.load()) {
      left();
      return false;
    }
    self.idle = false;
    if (idle_.fetch_sub(1) == 1) {  // nobody else reads
      MutexLock l(mutex_);
      if (threads_ < maxThreads_ && !ending_.load()) spawn();
    }
    return true;
  }

  // False: enough others wait, this thread ends. One that ends is never counted as idle: the
  // others would take it for a reader, and could all leave.
  bool leave(Worker& self) {
    left();
    unsigned others = idle_.load();
    do {
      if (others >= keptThreads_) return false;
    } while (!idle_.compare_exchange_weak(others, others + 1));
    self.idle = true;
    return true;
  }

  void left() {
    inWork_.fetch_sub(1);
    if (!ending_.load()) return;
    MutexLock l(mutex_);
    changed_.notifyAll();
  }

  const int fd_;
  const unsigned idleThreads_, keptThreads_, maxThreads_;
  Connection connection_;
  const std::function<void()> onDestroy_;
  std::atomic<bool> ending_{false};
  std::atomic<unsigned> inWork_{0};  // requests
  std::atomic<unsigned> idle_{0};    // threads that read or are about to
  Mutex mutex_;
  CondVar changed_;
  std::list<Worker> workers_ GUARDED_BY(mutex_);
  unsigned threads_ GUARDED_BY(mutex_) = 0;  // that have not finished
  bool initialized_ GUARDED_BY(mutex_) = false;
};

}  // namespace

std::unique_ptr<FuseSession> FuseSession::start(int fd, Filesystem& filesystem,
                                                const FuseSessionOptions& options,
                                                std::function<void()> onDestroy) {
  installWakeSignal();
  auto session = std::make_unique<Session>(fd, filesystem, options, std::move(onDestroy));
  session->begin();
  return session;
}

}  // namespace ourfs
