// DiscardThread: discards on a block device, for which the ring has no request on older kernels.
//
// Threads: submit() from any thread. Completions run in the thread, which starts with the first
// discard. The destructor waits for what is queued.
#pragma once

#include <deque>
#include <thread>

#include "common/mutex.h"
#include "host_file.h"

namespace ourfs {

class DiscardThread {
 public:
  explicit DiscardThread(const HostFile& file) : file_(file) {}
  ~DiscardThread();
  DiscardThread(const DiscardThread&) = delete;
  DiscardThread& operator=(const DiscardThread&) = delete;

  void submit(IoRequest request);

 private:
  void run();

  const HostFile& file_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<IoRequest> queue_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);
};

}  // namespace ourfs
