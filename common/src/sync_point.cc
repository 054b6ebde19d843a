#include "common/sync_point.h"

#include <map>
#include <memory>
#include <set>
#include <thread>

#include "common/mutex.h"

namespace ourfs {

namespace {

struct Point {
  uint64_t hits = 0;
  int toPark = 0;         // so many more threads will stop here
  int parked = 0;         // so many have stopped
  uint64_t releases = 0;  // a parked thread goes on when this has changed
  int errnum = 0;
  int errorsLeft = 0;
  std::chrono::microseconds delay{0};
  std::function<void()> call;
};

struct Registry {
  mutable Mutex mutex;
  CondVar changed;
  // Shared, because a parked thread still uses its point after reset() has dropped it.
  std::map<std::string, std::shared_ptr<Point>, std::less<>> points GUARDED_BY(mutex);
  std::set<std::string, std::less<>> mutants GUARDED_BY(mutex);

  uint32_t armedCount() const REQUIRES(mutex) {
    return static_cast<uint32_t>(points.size() + mutants.size());
  }
  Point& arm(const std::string& name) REQUIRES(mutex) {
    std::shared_ptr<Point>& point = points[name];
    if (!point) point = std::make_shared<Point>();
    return *point;
  }
  Point* find(std::string_view name) const REQUIRES(mutex) {
    auto it = points.find(name);
    return it == points.end() ? nullptr : it->second.get();
  }
  void letGo(Point& point) REQUIRES(mutex) {
    point.toPark = 0;
    ++point.releases;
    changed.notifyAll();
  }
};

Registry& registry() {
  static Registry r;
  return r;
}

}  // namespace

std::atomic<uint32_t> SyncPoints::armed_{0};

SyncPoints& SyncPoints::instance() {
  static SyncPoints points;
  return points;
}

Status SyncPoints::hit(std::string_view name) {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  auto it = r.points.find(name);
  if (it == r.points.end()) return Status::ok();
  std::shared_ptr<Point> point = it->second;
  ++point->hits;
  if (point->call || point->delay.count() > 0) {
    auto call = point->call;
    auto delay = point->delay;
    lock.unlock();
    if (call) call();
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    lock.lock();
  }
  if (point->toPark > 0) {
    --point->toPark;
    ++point->parked;
    r.changed.notifyAll();
    const uint64_t before = point->releases;
    while (point->releases == before) r.changed.wait(r.mutex);
    --point->parked;
  }
  if (point->errorsLeft == 0) return Status::ok();
  --point->errorsLeft;
  return Status::error(point->errnum, "forced at sync point " + std::string(name));
}

void SyncPoints::park(const std::string& name, int times) {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  r.arm(name).toPark = times;
  armed_ = r.armedCount();
}

bool SyncPoints::awaitParked(const std::string& name, int count, std::chrono::milliseconds limit) {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  const auto deadline = std::chrono::steady_clock::now() + limit;
  for (;;) {
    const Point* point = r.find(name);
    if (point != nullptr && point->parked >= count) return true;
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left.count() <= 0) return false;
    r.changed.waitFor(r.mutex, left);
  }
}

void SyncPoints::release(const std::string& name) {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  if (Point* point = r.find(name)) r.letGo(*point);
}

void SyncPoints::forceError(const std::string& name, int errnum, int times) {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  Point& point = r.arm(name);
  point.errnum = errnum;
  point.errorsLeft = times;
  armed_ = r.armedCount();
}

void SyncPoints::delay(const std::string& name, std::chrono::microseconds d) {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  r.arm(name).delay = d;
  armed_ = r.armedCount();
}

void SyncPoints::call(const std::string& name, std::function<void()> f) {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  r.arm(name).call = std::move(f);
  armed_ = r.armedCount();
}

void SyncPoints::count(const std::string& name) {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  r.arm(name);
  armed_ = r.armedCount();
}

uint64_t SyncPoints::hits(const std::string& name) const {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  const Point* point = r.find(name);
  return point == nullptr ? 0 : point->hits;
}

int SyncPoints::parked(const std::string& name) const {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  const Point* point = r.find(name);
  return point == nullptr ? 0 : point->parked;
}

void SyncPoints::reset() {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  for (auto& [name, point] : r.points) {
    point->errorsLeft = 0;
    r.letGo(*point);
  }
  r.points.clear();
  r.mutants.clear();
  armed_ = 0;
}

void SyncPoints::setMutant(const std::string& name, bool on) {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  if (on) {
    r.mutants.insert(name);
  } else {
    r.mutants.erase(name);
  }
  armed_ = r.armedCount();
}

bool SyncPoints::mutant(std::string_view name) const {
  Registry& r = registry();
  MutexLock lock(r.mutex);
  return r.mutants.find(name) != r.mutants.end();
}

}  // namespace ourfs
