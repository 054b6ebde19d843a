#include "checkpointer.h"

namespace ourfs {

void Volume::Checkpointer::start() {
  thread = std::thread([this] { run(); });
}

void Volume::Checkpointer::stop() {
  wake(&Checkpointer::stopping);
  if (thread.joinable()) thread.join();
}

void Volume::Checkpointer::run() {
  MutexLock lock(mutex);
  while (!stopping) {
    if (failed) {
      failed = false;
      lock.unlock();
      volume.journal_->fail(volume.failure());
      lock.lock();
    } else if (wanted) {
      wanted = false;
      lock.unlock();
      (void)volume.checkpoint();  // a failure has made the volume fail-stop
      lock.lock();
    } else {
      changed.wait(mutex);
    }
  }
}

}  // namespace ourfs
