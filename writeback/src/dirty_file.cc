#include "dirty_file.h"

#include <algorithm>

namespace ourfs {

void FlushWindow::enter(uint32_t most) {
  MutexLock lock(mutex_);
  while (inFlight_ >= most) changed_.wait(mutex_);
  ++inFlight_;
}

void FlushWindow::leave(const Status& status) {
  MutexLock lock(mutex_);
  if (first_.isOk()) first_ = status;
  --inFlight_;
  changed_.notifyAll();
}

Status FlushWindow::wait() {
  MutexLock lock(mutex_);
  while (inFlight_ != 0) changed_.wait(mutex_);
  return first_;
}

uint64_t Flights::begin(FileOffset from, FileOffset to) {
  MutexLock lock(mutex_);
  flights_.emplace(next_, Range{from, to});
  ++count_;
  return next_++;
}

void Flights::end(uint64_t ticket) {
  MutexLock lock(mutex_);
  flights_.erase(ticket);
  --count_;
  ended_.notifyAll();
}

uint64_t Flights::ticket() const {
  MutexLock lock(mutex_);
  return next_;
}

bool Flights::anyBefore(uint64_t ticket, FileOffset from, FileOffset to) const {
  return std::any_of(flights_.begin(), flights_.lower_bound(ticket), [&](const auto& flight) {
    return flight.second.from < to && from < flight.second.to;
  });
}

void Flights::waitBefore(uint64_t ticket, FileOffset from, FileOffset to) {
  MutexLock lock(mutex_);
  while (anyBefore(ticket, from, to)) ended_.wait(mutex_);
}

}  // namespace ourfs
