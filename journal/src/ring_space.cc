// The accounts of the ring: reservations, the tail, and who waits for room.
//
// occupied + charged + one sector of slack <= size, always. A record occupies its bytes, and the
// write that carries it ends on a sector boundary: so a charge is the record plus one sector, and
// what is pending counts up to the next boundary. Converting a charge never grows the sum.
#include <algorithm>

#include "common/sync_point.h"
#include "journal_impl.h"
#include "record.h"

namespace ourfs {

Journal::Reservation::Reservation(Reservation&& other) noexcept { *this = std::move(other); }

Journal::Reservation& Journal::Reservation::operator=(Reservation&& other) noexcept {
  std::swap(journal_, other.journal_);
  std::swap(payload_, other.payload_);
  std::swap(charged_, other.charged_);
  return *this;
}

Journal::Reservation::~Reservation() {
  if (journal_ != nullptr) static_cast<JournalImpl*>(journal_)->giveBack(charged_);
}

ByteCount JournalImpl::maxPayload() const { return ByteCount(maxPayloadBytes(geometry_)); }

Result<Journal::Reservation> JournalImpl::reserve(ByteCount payload) {
  if (payload > maxPayload()) return Status::error(EFBIG);
  const uint64_t charge = recordBytes(payload.v) + sector_;
  bool granted = false, ask = false;
  {
    MutexLock lock(mutex_);
    if (!failure_.isOk()) return failure_;
    if (waiters_.empty() && fits(charge)) {
      granted = true;
      charged_ += charge;
      ask = !asked_ && occupied() + charged_ > size_ / 2;
      asked_ |= ask;
    }
  }
  if (ask) askForSpace();
  if (!granted) TRY(waitForRoom(charge));

  Reservation reservation;
  reservation.journal_ = this;
  reservation.payload_ = payload.v;
  reservation.charged_ = charge;
  SYNC_POINT("journal.after_reserve");
  return reservation;
}

Status JournalImpl::waitForRoom(uint64_t charge) {
  Waiter self;
  self.charge = charge;
  MutexLock lock(mutex_);
  waiters_.push_back(&self);
  ++counters_.reserveWaits;
  spaceChanged();
  bool everAsked = false;
  uint64_t askedAt = 0;
  while (!self.granted) {
    if (!failure_.isOk()) {
      waiters_.erase(std::find(waiters_.begin(), waiters_.end(), &self));
      return failure_;
    }
    // Whatever changed since may have taken the room that was asked for; so the first in the queue
    // asks again, until it has its room. What is charged to others is bounded while it waits.
    if (!everAsked || (waiters_.front() == &self && askedAt != spaceTick_)) {
      everAsked = true;
      askedAt = spaceTick_;
      lock.unlock();
      askForSpace();
      lock.lock();
      continue;
    }
    self.ready.wait(mutex_);
  }
  return Status::ok();
}

void JournalImpl::askForSpace() {
  if (options_.wantSpace) options_.wantSpace();
}

uint64_t JournalImpl::occupied() const {
  if (mutantEnabled("journal.advance_tail_early")) return 0;
  return roundUp(next(), sector_) - roundDown(tail_.v, sector_);
}

bool JournalImpl::fits(uint64_t charge) const {
  return occupied() + charged_ + charge + sector_ <= size_;
}

void JournalImpl::spaceChanged() {
  ++spaceTick_;
  while (!waiters_.empty() && fits(waiters_.front()->charge)) {
    Waiter* first = waiters_.front();
    waiters_.pop_front();
    charged_ += first->charge;
    first->granted = true;
    first->ready.notifyOne();
  }
  if (!waiters_.empty()) waiters_.front()->ready.notifyOne();
}

void JournalImpl::giveBack(uint64_t charge) {
  MutexLock lock(mutex_);
  charged_ -= charge;
  spaceChanged();
}

void JournalImpl::advanceTail(Lsn tail) {
  SYNC_POINT("journal.before_tail");
  MutexLock lock(mutex_);
  if (tail > head_.end) {
    failLocked(Status::corrupt("journal: the tail was moved beyond the last record"));
    return;
  }
  if (tail <= tail_) return;
  tail_ = tail;
  asked_ = false;
  spaceChanged();
}

}  // namespace ourfs
