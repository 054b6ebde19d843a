// Checkpointer: the thread that makes the index persist what it has, when the journal asks for
// room.
//
// Nothing that it waits for waits for it: it takes no inode, folio or extent lock and makes no
// reservation.
#pragma once

#include <thread>

#include "common/mutex.h"
#include "fs/volume.h"

namespace ourfs {

struct Volume::Checkpointer {
  explicit Checkpointer(Volume& owner) : volume(owner) {}
  ~Checkpointer() { stop(); }

  void start();
  void stop();
  void request() { wake(&Checkpointer::wanted); }
  // The index has failed, perhaps under the log lock: the journal is told from here.
  void failJournal() { wake(&Checkpointer::failed); }

 private:
  void run();
  void wake(bool Checkpointer::*flag) {
    MutexLock lock(mutex);
    this->*flag = true;
    changed.notifyOne();
  }

  Volume& volume;
  Mutex mutex;
  CondVar changed;
  bool wanted GUARDED_BY(mutex) = false, failed GUARDED_BY(mutex) = false;
  bool stopping GUARDED_BY(mutex) = false;
  std::thread thread;
};

}  // namespace ourfs
