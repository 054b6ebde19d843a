// Mutexes and condition variables with clang's thread-safety annotations.
//
// Every shared member says which mutex guards it (GUARDED_BY); a function that needs a lock held
// says REQUIRES. The `tsa` preset turns a violation into a build error. Locks are taken through
// MutexLock, SharedLock and ExclusiveLock only.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>

#if defined(__clang__)
#define OURFS_TSA(x) __attribute__((x))
#else
#define OURFS_TSA(x)
#endif
#define CAPABILITY(x) OURFS_TSA(capability(x))
#define SCOPED_CAPABILITY OURFS_TSA(scoped_lockable)
#define GUARDED_BY(x) OURFS_TSA(guarded_by(x))
#define PT_GUARDED_BY(x) OURFS_TSA(pt_guarded_by(x))
#define REQUIRES(...) OURFS_TSA(requires_capability(__VA_ARGS__))
#define REQUIRES_SHARED(...) OURFS_TSA(requires_shared_capability(__VA_ARGS__))
#define ACQUIRE(...) OURFS_TSA(acquire_capability(__VA_ARGS__))
#define ACQUIRE_SHARED(...) OURFS_TSA(acquire_shared_capability(__VA_ARGS__))
#define RELEASE(...) OURFS_TSA(release_capability(__VA_ARGS__))
#define RELEASE_SHARED(...) OURFS_TSA(release_shared_capability(__VA_ARGS__))
#define RELEASE_GENERIC(...) OURFS_TSA(release_generic_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) OURFS_TSA(try_acquire_capability(__VA_ARGS__))
#define EXCLUDES(...) OURFS_TSA(locks_excluded(__VA_ARGS__))
#define ASSERT_CAPABILITY(x) OURFS_TSA(assert_capability(x))
#define RETURN_CAPABILITY(x) OURFS_TSA(lock_returned(x))
#define NO_THREAD_SAFETY_ANALYSIS OURFS_TSA(no_thread_safety_analysis)

namespace ourfs {

class CAPABILITY("mutex") Mutex {
 public:
  void lock() ACQUIRE() { m_.lock(); }
  void unlock() RELEASE() { m_.unlock(); }
  bool try_lock() TRY_ACQUIRE(true) { return m_.try_lock(); }
  // Tells the analysis that the caller holds it, where it cannot see that.
  void assertHeld() ASSERT_CAPABILITY(this) {}

 private:
  friend class CondVar;
  std::mutex m_;
};

class CAPABILITY("shared_mutex") SharedMutex {
 public:
  void lock() ACQUIRE() { m_.lock(); }
  void unlock() RELEASE() { m_.unlock(); }
  bool try_lock() TRY_ACQUIRE(true) { return m_.try_lock(); }
  void lock_shared() ACQUIRE_SHARED() { m_.lock_shared(); }
  void unlock_shared() RELEASE_SHARED() { m_.unlock_shared(); }
  void assertHeld() ASSERT_CAPABILITY(this) {}

 private:
  std::shared_mutex m_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& m) ACQUIRE(m) : m_(m), held_(true) { m_.lock(); }
  ~MutexLock() RELEASE() {
    if (held_) m_.unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  void unlock() RELEASE() {
    held_ = false;
    m_.unlock();
  }
  void lock() ACQUIRE() {
    m_.lock();
    held_ = true;
  }

 private:
  Mutex& m_;
  bool held_;
};

class SCOPED_CAPABILITY SharedLock {
 public:
  explicit SharedLock(SharedMutex& m) ACQUIRE_SHARED(m) : m_(m) { m_.lock_shared(); }
  ~SharedLock() RELEASE_GENERIC() { m_.unlock_shared(); }
  SharedLock(const SharedLock&) = delete;
  SharedLock& operator=(const SharedLock&) = delete;

 private:
  SharedMutex& m_;
};

class SCOPED_CAPABILITY ExclusiveLock {
 public:
  explicit ExclusiveLock(SharedMutex& m) ACQUIRE(m) : m_(m) { m_.lock(); }
  ~ExclusiveLock() RELEASE() { m_.unlock(); }
  ExclusiveLock(const ExclusiveLock&) = delete;
  ExclusiveLock& operator=(const ExclusiveLock&) = delete;

 private:
  SharedMutex& m_;
};

// Waits like std::condition_variable. Loop around the condition: wake-ups may be spurious.
class CondVar {
 public:
  void wait(Mutex& m) REQUIRES(m) {
    std::unique_lock<std::mutex> l(m.m_, std::adopt_lock);
    cv_.wait(l);
    l.release();
  }
  // False when the time ran out.
  template <class Rep, class Period>
  bool waitFor(Mutex& m, std::chrono::duration<Rep, Period> d) REQUIRES(m) {
    std::unique_lock<std::mutex> l(m.m_, std::adopt_lock);
    bool woken = cv_.wait_for(l, d) == std::cv_status::no_timeout;
    l.release();
    return woken;
  }
  void notifyOne() { cv_.notify_one(); }
  void notifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace ourfs
