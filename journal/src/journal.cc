#include "journal/journal.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "common/sync_point.h"
#include "journal_impl.h"
#include "record.h"

namespace ourfs {

namespace {
// So much is left pending without a flush: it bounds the memory and the time of the next fsync.
constexpr uint64_t kWriteBehindBytes = 4 * MiB;

// A journal with a bad geometry answers errors and does no I/O; its arithmetic must still hold.
JournalGeometry usable(const BlockDevice& device, const JournalGeometry& geometry) {
  if (geometryFault(device, geometry).empty()) return geometry;
  return {DeviceOffset(0), ByteCount(64 * KiB), 4096};
}
}  // namespace

std::unique_ptr<Journal> Journal::start(BlockDevice& device, Options options) {
  return std::make_unique<JournalImpl>(device, std::move(options));
}

JournalImpl::JournalImpl(BlockDevice& device, Options options)
    : options_(std::move(options)),
      geometry_(usable(device, options_.geometry)),
      sector_(geometry_.sector),
      size_(geometry_.size.v),
      writeBehind_(std::min(kWriteBehindBytes, size_ / 4)),
      writer_(device, geometry_) {
  {
    MutexLock lock(mutex_);
    head_ = options_.head;
    tail_ = options_.tail;
    pending_.start = roundUp(head_.end.v, sector_);
    // What replay read may sit in the device's cache only, if it was the daemon that died and not
    // the machine: it counts as durable from the first flush on.
    durable_ = tail_;
    pending_.preflush = head_.end > tail_;

    std::string fault = geometryFault(device, options_.geometry);
    if (fault.empty() && (tail_ > head_.end || occupied() > size_))
      fault = "tail and head disagree";
    if (!fault.empty()) failLocked(Status::error(EINVAL, "journal: " + fault));
  }
  thread_ = std::thread([this] { writerLoop(); });
}

JournalImpl::~JournalImpl() {
  {
    MutexLock lock(mutex_);
    stop_ = true;
    writerWake_.notifyAll();
  }
  thread_.join();
}

std::byte* JournalImpl::roomFor(uint64_t bytes) {
  const uint64_t needed = pending_.fill + bytes;
  if (needed > pending_.bytes.size()) {
    // Mutant: records gather and go out in one buffer, and growing it takes a group's memory away.
    if (busy_ && mutantEnabled("journal.grow_in_place")) std::ranges::fill(taken_, kFreedByMutant);
    pending_.bytes.resize(std::max<uint64_t>(needed, 2 * pending_.bytes.size()));
  }
  return pending_.bytes.data() + pending_.fill;
}

Result<LogPosition> JournalImpl::append(Reservation reservation, std::span<const std::byte> payload,
                                        bool afterData,
                                        const std::function<Status(const LogPosition&)>& apply) {
  const bool overrun = payload.size() > reservation.payload_;
  if (reservation.journal_ != this || (overrun && !mutantEnabled("journal.overrun_reservation"))) {
    return Status::error(EINVAL, "journal: the record is larger than its reservation");
  }
  const uint64_t bytes = recordBytes(payload.size());
  MutexLock lock(mutex_);
  if (!failure_.isOk()) return failure_;

  RecordHeader header;
  header.payloadLength = static_cast<uint32_t>(payload.size());
  header.previousCrc = head_.crc;
  header.lsn = next();
  header.generation = options_.generation;
  header.durableLsn = durable_.v;

  // The checksum is that of our copy: even a caller that breaks its promise not to change the
  // payload meanwhile leaves a record that is whole.
  std::byte* at = roomFor(bytes);
  std::byte* body = at + sizeof(header);
  const size_t half = payload.size() / 2;
  std::copy_n(payload.begin(), half, body);
  SYNC_POINT("journal.append_copy");
  std::copy(payload.begin() + static_cast<ptrdiff_t>(half), payload.end(), body + half);
  std::fill(body + payload.size(), at + bytes, std::byte{0});
  header.crc = recordCrc(header, {body, payload.size()});
  std::memcpy(at, &header, sizeof(header));

  const LogPosition position{Lsn(header.lsn + bytes), header.crc};
  if (Status applied = apply ? apply(position) : Status::ok(); !applied.isOk()) {
    failLocked(applied.withContext("journal: the index refused a record"));
    return failure_;
  }
  pending_.fill += bytes;
  pending_.preflush |= afterData;
  head_ = position;
  ++counters_.appends;
  counters_.payloadBytes += payload.size();

  charged_ -= reservation.charged_;
  reservation.journal_ = nullptr;
  spaceChanged();
  if (pending_.fill >= writeBehind_ && !writeWanted_) {
    writeWanted_ = true;
    if (!busy_) writerWake_.notifyOne();
  }
  return position;
}

Status JournalImpl::flush(Lsn upTo, FlushScope scope) {
  Lsn target;
  uint64_t ticket = 0;
  for (bool first = true;; first = false) {
    JournalGroup group;
    {
      MutexLock lock(mutex_);
      if (first) {
        target = std::min(upTo, head_.end);
        if (scope == FlushScope::LogAndData) ticket = ++dataAsked_;
        if (mutantEnabled("journal.acknowledge_early")) {
          writeWanted_ = true;
          writerWake_.notifyOne();
          return failure_;
        }
      }
      if (!failure_.isOk()) return failure_;
      if (durable_ >= target && dataDone_ >= ticket) return Status::ok();
      if (busy_) {
        const bool served = inFlightTo_ >= target && inFlightTicket_ >= ticket;
        done_[(served ? round_ : round_ + 1) % 2].wait(mutex_);
        continue;
      }
      group = take();
    }
    carry(group);
  }
}

JournalGroup JournalImpl::take() {
  JournalGroup group;
  group.start = pending_.start;
  group.length = pending_.fill;
  group.last = head_;
  group.preflush = pending_.preflush || dataAsked_ > dataDone_;
  group.dataTicket = dataAsked_;
  if (mutantEnabled("journal.shared_buffer")) {
    group.shared = pending_.fill;
  } else {
    taken_.swap(pending_.bytes);
  }
  // The next record goes to a fresh sector: those of this group are never written again.
  const uint64_t end = next();
  pending_.start = roundUp(end, sector_);
  pending_.fill = 0;
  pending_.preflush = false;
  if (mutantEnabled("journal.rewrite_sector")) {
    pending_.start = roundDown(end, sector_);
    pending_.fill = end - pending_.start;
    pending_.bytes.resize(std::max<uint64_t>(pending_.bytes.size(), pending_.fill));
    const auto behind = taken_.begin() + static_cast<ptrdiff_t>(group.length);
    std::copy(behind - static_cast<ptrdiff_t>(pending_.fill), behind, pending_.bytes.begin());
  }

  busy_ = true;
  writeWanted_ = false;
  ++round_;
  inFlightTo_ = group.last.end;
  inFlightTicket_ = group.dataTicket;
  return group;
}

void JournalImpl::carry(const JournalGroup& group) {
  SYNC_POINT("journal.mid_copy");
  if (group.shared != 0) {
    MutexLock lock(mutex_);
    taken_.assign(pending_.bytes.begin(),
                  pending_.bytes.begin() + static_cast<ptrdiff_t>(group.shared));
  }
  const Status status = writer_.write(group, std::span(taken_).first(group.length));
  if (taken_.size() > 2 * kWriteBehindBytes) std::vector<std::byte>().swap(taken_);

  // Before anyone is answered: whoever flushed finds done what hangs on it, such as blocks set
  // free.
  if (status.isOk() && options_.onDurable && group.last.end > durable()) {
    options_.onDurable(group.last.end);
  }
  MutexLock lock(mutex_);
  finish(group, status);
}

void JournalImpl::finish(const JournalGroup& group, const Status& status) {
  busy_ = false;
  if (group.preflush) ++counters_.dataFlushes;
  if (status.isOk()) {
    durable_ = std::max(durable_, group.last.end);
    dataDone_ = std::max(dataDone_, group.dataTicket);
    if (group.length != 0) {
      ++counters_.writes;
      counters_.writtenBytes += roundUp(group.length, sector_);
    }
  } else {
    failLocked(status.withContext("journal: write failed"));
  }
  done_[round_ % 2].notifyAll();
  done_[(round_ + 1) % 2].notifyOne();
  if (writeWanted_) writerWake_.notifyOne();
}

void JournalImpl::writerLoop() {
  while (true) {
    JournalGroup group;
    {
      MutexLock lock(mutex_);
      while (!stop_ && (busy_ || !writeWanted_ || !failure_.isOk())) writerWake_.wait(mutex_);
      if (stop_) return;
      group = take();
    }
    carry(group);
  }
}

void JournalImpl::failLocked(const Status& why) {
  if (!failure_.isOk() || mutantEnabled("journal.forget_failure")) return;
  failure_ = why;
  failed_ = true;
  spdlog::error("{}: the journal stops here, nothing more is committed", why.message());
  done_[0].notifyAll();
  done_[1].notifyAll();
  for (Waiter* waiter : waiters_) waiter->ready.notifyOne();
}

void JournalImpl::fail(Status why) {
  MutexLock lock(mutex_);
  failLocked(why.isOk() ? Status::error(EIO) : why);
}

LogPosition JournalImpl::head() const {
  MutexLock lock(mutex_);
  return head_;
}

Lsn JournalImpl::durable() const {
  MutexLock lock(mutex_);
  return durable_;
}

Lsn JournalImpl::tail() const {
  MutexLock lock(mutex_);
  return tail_;
}

ByteCount JournalImpl::used() const {
  MutexLock lock(mutex_);
  return head_.end - tail_;
}

Status JournalImpl::failure() const {
  if (!failed_) return Status::ok();
  MutexLock lock(mutex_);
  return failure_;
}

JournalCounters JournalImpl::counters() const {
  MutexLock lock(mutex_);
  return counters_;
}

}  // namespace ourfs
