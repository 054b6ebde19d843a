// Mutexes and condition variables under the scheduler of tests/schedule: the classes of
// common/include/common/mutex.h, in front of which this directory comes in the include path. All
// "threads" are fibers of one thread, and each place where one could wait is a scheduling point.
#pragma once

#include <chrono>

#include "schedule/scheduler.h"

#define CAPABILITY(x)
#define SCOPED_CAPABILITY
#define GUARDED_BY(x)
#define PT_GUARDED_BY(x)
#define REQUIRES(...)
#define REQUIRES_SHARED(...)
#define ACQUIRE(...)
#define ACQUIRE_SHARED(...)
#define RELEASE(...)
#define RELEASE_SHARED(...)
#define RELEASE_GENERIC(...)
#define TRY_ACQUIRE(...)
#define EXCLUDES(...)
#define ASSERT_CAPABILITY(x)
#define RETURN_CAPABILITY(x)
#define NO_THREAD_SAFETY_ANALYSIS

namespace ourfs {

class SharedMutex {
 public:
  void lock() {
    test::schedulingPoint("lock");
    while (readers_ != 0) test::blockOn(this);
    readers_ = -1;
  }
  bool try_lock() {
    test::schedulingPoint("try_lock");
    if (readers_ != 0) return false;
    readers_ = -1;
    return true;
  }
  void unlock() {
    readers_ = 0;
    test::wakeAll(this);
  }
  void lock_shared() {
    test::schedulingPoint("lock_shared");
    while (readers_ < 0) test::blockOn(this);
    ++readers_;
  }
  void unlock_shared() {
    --readers_;
    test::wakeAll(this);
  }
  void assertHeld() {}

 private:
  int readers_ = 0;  // -1: somebody holds it exclusively
};

class Mutex {
 public:
  void lock() { inner_.lock(); }
  void unlock() { inner_.unlock(); }
  bool try_lock() { return inner_.try_lock(); }
  void assertHeld() {}

 private:
  SharedMutex inner_;
};

class MutexLock {
 public:
  explicit MutexLock(Mutex& m) : m_(m) { lock(); }
  ~MutexLock() {
    if (held_) m_.unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  void unlock() {
    held_ = false;
    m_.unlock();
  }
  void lock() {
    m_.lock();
    held_ = true;
  }

 private:
  Mutex& m_;
  bool held_ = false;
};

class SharedLock {
 public:
  explicit SharedLock(SharedMutex& m) : m_(m) { m_.lock_shared(); }
  ~SharedLock() { m_.unlock_shared(); }
  SharedLock(const SharedLock&) = delete;
  SharedLock& operator=(const SharedLock&) = delete;

 private:
  SharedMutex& m_;
};

class ExclusiveLock {
 public:
  explicit ExclusiveLock(SharedMutex& m) : m_(m) { m_.lock(); }
  ~ExclusiveLock() { m_.unlock(); }
  ExclusiveLock(const ExclusiveLock&) = delete;
  ExclusiveLock& operator=(const ExclusiveLock&) = delete;

 private:
  SharedMutex& m_;
};

// Time passes only when nobody can go on: then the wait with the earliest fiber runs out.
class CondVar {
 public:
  void wait(Mutex& m) {
    m.unlock();
    test::blockOn(this);
    m.lock();
  }
  template <class Rep, class Period>
  bool waitFor(Mutex& m, std::chrono::duration<Rep, Period>) {
    m.unlock();
    const bool woken = test::blockOn(this, true);
    m.lock();
    return woken;
  }
  void notifyOne() { test::wakeOne(this); }
  void notifyAll() { test::wakeAll(this); }
};

}  // namespace ourfs
