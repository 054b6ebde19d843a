#include "block/uring_device.h"

#include <fcntl.h>
#include <liburing.h>
#include <spdlog/spdlog.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#include "check_request.h"
#include "common/aligned_buffer.h"
#include "common/mutex.h"
#include "common/sync_point.h"
#include "discard_thread.h"
#include "host_file.h"
#include "service_thread.h"
#include "transfer.h"

namespace ourfs {

namespace {

constexpr uint32_t kMaxQueueDepth = 4096;
constexpr size_t kMaxSinglePiece = GiB;  // a request of one piece counts its bytes in 32 bits

// One request on its way through the host.
struct Op {
  IoRequest request;
  Transfer transfer;
  AlignedBuffer bounce;  // in place of pieces that direct I/O would refuse
  // The kernel orders what happens before a submission before its completion; this says so in terms
  // of the language, which does not know that.
  std::atomic<bool> handedOver{false};
};

class Uring final : public UringDevice {
 public:
  Uring(std::unique_ptr<HostFile> file, uint32_t depth)
      : file_(std::move(file)), depth_(depth), discards_(*file_) {}
  ~Uring() override;
  Status start();

  void submit(IoRequest request) override;
  ByteCount size() const override { return file_->size(); }
  uint32_t logicalSector() const override { return file_->logicalSector(); }
  uint32_t physicalSector() const override { return file_->physicalSector(); }
  bool readOnly() const override { return file_->readOnly(); }
  std::string name() const override { return file_->path(); }
  Status preallocate(DeviceOffset offset, ByteCount length) override {
    return file_->preallocate(offset, length);
  }
  bool isBlockSpecial() const override { return file_->isBlockSpecial(); }

 private:
  // In the calling thread, without the ring: two changes of thread less.
  Status transact(IoRequest request) override;
  int64_t askDirectly(const Op& op) const;

  // Checks a request. True if there is nothing more to do than to answer `*status`.
  bool answered(const IoRequest& request, Status* status) const;
  void begin(Op& op);
  bool mustBounce(const IoRequest& request) const;
  Status conclude(Op& op, Transfer::Next outcome);

  void submitDiscard(IoRequest request);
  void issue(Op& op, bool again) EXCLUDES(ringMutex_);
  void prepare(io_uring_sqe* sqe, const Op& op) const;
  void enter() REQUIRES(ringMutex_);
  void reap();
  void finish(Op& op, int answer);
  void retire(Op& op) EXCLUDES(slotMutex_);

  const std::unique_ptr<HostFile> file_;
  const uint32_t depth_;
  std::vector<std::unique_ptr<Op>> ops_;  // constant after start()

  Mutex slotMutex_;
  CondVar slotChanged_;
  std::vector<Op*> free_ GUARDED_BY(slotMutex_);
  // Submitted by completions when no slot was free: their thread is the one that frees slots.
  std::deque<IoRequest> backlog_ GUARDED_BY(slotMutex_);
  uint64_t pending_ GUARDED_BY(slotMutex_) = 0;  // accepted, and its completion has not returned

  Mutex ringMutex_;  // guards the submission side of ring_; reaper_ alone touches the other side
  io_uring ring_{};
  std::thread reaper_;

  // The host reports a lost write once. After that nothing it says about durability is true,
  // because it has dropped what it could not write, so no later flush succeeds.
  std::atomic<bool> lostWrite_{false};
  DiscardThread discards_;
};

thread_local const Uring* reapingFor = nullptr;

// Rings that have been torn down. The kernel may map a new one where an old one was, and orders the
// two; as with Op::handedOver, this says so in terms of the language.
std::atomic<uint64_t> ringsGone{0};

[[noreturn]] void ringIsBroken(const char* what, int errnum) {
  // A request that is stuck in the ring could still go out after its memory has been reused.
  spdlog::critical("io_uring: {}: {}", what, std::strerror(errnum));
  std::abort();
}

// The host's answer, or the error that a test forces in its place.
int64_t heard(IoOp op, int64_t answer) {
  if (!SyncPoints::anyArmed()) return answer;
  static constexpr const char* kPoints[] = {"block.host_read", "block.host_write",
                                            "block.host_flush", "block.host_discard"};
  const Status forced = SyncPoints::instance().hit(kPoints[static_cast<size_t>(op)]);
  return forced.isOk() ? answer : -forced.errnum();
}

bool passing(int errnum) { return errnum == EINTR || errnum == EAGAIN || errnum == EBUSY; }

Status Uring::start() {
  const int rc = io_uring_queue_init(depth_, &ring_, 0);
  (void)ringsGone.load(std::memory_order_acquire);
  if (rc < 0) return Status::error(-rc).withContext(name() + ": io_uring is not available");
  MutexLock lock(slotMutex_);
  for (uint32_t i = 0; i < depth_; ++i) {
    ops_.push_back(std::make_unique<Op>());
    free_.push_back(ops_.back().get());
  }
  reaper_ = startServiceThread([this] { reap(); });
  return Status::ok();
}

Uring::~Uring() {
  if (!reaper_.joinable()) return;
  {
    MutexLock lock(slotMutex_);
    while (pending_ != 0) slotChanged_.wait(slotMutex_);
  }
  {
    MutexLock lock(ringMutex_);
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data(sqe, nullptr);  // tells the reaper to go
    enter();
  }
  reaper_.join();
  ringsGone.fetch_add(1, std::memory_order_release);
  io_uring_queue_exit(&ring_);
}

bool Uring::answered(const IoRequest& request, Status* status) const {
  *status = checkRequest(*this, request);
  if (!status->isOk()) return true;
  if (request.op == IoOp::Flush) {
    if (!lostWrite_) return false;
    *status =
        Status::error(EIO, name() + ": an earlier write was lost, nothing is certain any more");
    return true;
  }
  return request.length.v == 0;
}

bool Uring::mustBounce(const IoRequest& request) const {
  const uint64_t alignment = file_->memoryAlignment();
  return std::any_of(request.pieces.begin(), request.pieces.end(), [&](const IoVec& p) {
    return !isAligned(reinterpret_cast<uintptr_t>(p.data), alignment);
  });
}

void Uring::begin(Op& op) {
  const IoRequest& r = op.request;
  if (!mustBounce(r)) {
    op.transfer.start(r.op, r.offset, r.pieces, logicalSector());
    return;
  }
  op.bounce = AlignedBuffer(r.length.v, std::max(file_->memoryAlignment(), uint32_t{4096}));
  if (r.op == IoOp::Write) {
    std::byte* to = op.bounce.data();
    for (const IoVec& p : r.pieces) std::memcpy(to, p.data, p.size), to += p.size;
  }
  const IoVec whole{op.bounce.data(), r.length.v};
  op.transfer.start(r.op, r.offset, {&whole, 1}, logicalSector());
}

Status Uring::conclude(Op& op, Transfer::Next outcome) {
  const IoRequest& r = op.request;
  if (outcome == Transfer::Next::Failed) {
    const int errnum = op.transfer.errnum();
    const bool durability = r.op == IoOp::Flush || (r.op == IoOp::Write && r.fua);
    if (durability && (errnum != ENOSPC || r.op == IoOp::Flush)) lostWrite_ = true;
    return Status::error(errnum, name() + ": " + std::strerror(op.transfer.hostErrnum()) +
                                     " at byte " + std::to_string(op.transfer.offset().v));
  }
  if (op.bounce.data() != nullptr && r.op == IoOp::Read) {
    const std::byte* from = op.bounce.data();
    for (const IoVec& p : r.pieces) std::memcpy(p.data, from, p.size), from += p.size;
  }
  return Status::ok();
}

Status Uring::transact(IoRequest request) {
  Status status;
  if (answered(request, &status)) return status;
  Op op;
  op.request = std::move(request);
  begin(op);
  Transfer::Next next = Transfer::Next::Again;
  while (next == Transfer::Next::Again)
    next = op.transfer.take(heard(op.request.op, askDirectly(op)));
  return conclude(op, next);
}

int64_t Uring::askDirectly(const Op& op) const {
  const auto pieces = op.transfer.pieces();
  const int count = static_cast<int>(pieces.size());
  const off_t at = static_cast<off_t>(op.transfer.offset().v);
  int64_t rc = -1;
  switch (op.request.op) {
    case IoOp::Read:
      rc = preadv(file_->fd(), pieces.data(), count, at);
      break;
    case IoOp::Write:
      rc = pwritev2(file_->fd(), pieces.data(), count, at, op.request.fua ? RWF_DSYNC : 0);
      break;
    case IoOp::Flush:
      rc = fdatasync(file_->fd());
      break;
    case IoOp::Discard:
      return file_->discard(op.request.offset, op.request.length);
  }
  return rc < 0 ? -errno : rc;
}

void Uring::submit(IoRequest request) {
  Status status;
  if (answered(request, &status)) {
    request.done(std::move(status));
    return;
  }
  if (request.op == IoOp::Discard && isBlockSpecial()) return submitDiscard(std::move(request));
  Op* op = nullptr;
  {
    MutexLock lock(slotMutex_);
    ++pending_;
    if (free_.empty() && reapingFor == this) {
      backlog_.push_back(std::move(request));
      return;
    }
    while (free_.empty()) slotChanged_.wait(slotMutex_);
    op = free_.back();
    free_.pop_back();
  }
  op->request = std::move(request);
  begin(*op);
  issue(*op, false);
}

void Uring::submitDiscard(IoRequest request) {
  {
    MutexLock lock(slotMutex_);
    ++pending_;
  }
  request.done = [this, done = std::move(request.done)](Status status) {
    done(std::move(status));
    MutexLock lock(slotMutex_);
    --pending_;
    slotChanged_.notifyAll();
  };
  discards_.submit(std::move(request));
}

void Uring::issue(Op& op, bool again) {
  MutexLock lock(ringMutex_);
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  if (sqe == nullptr) ringIsBroken("no free entry", EOVERFLOW);
  prepare(sqe, op);
  io_uring_sqe_set_data(sqe, &op);
  // What the kernel did not finish without blocking goes to a worker that may block, not round and
  // round between this thread and the kernel.
  if (again) sqe->flags |= IOSQE_ASYNC;
  op.handedOver.store(true, std::memory_order_release);
  enter();
}

void Uring::prepare(io_uring_sqe* sqe, const Op& op) const {
  const int fd = file_->fd();
  const auto pieces = op.transfer.pieces();
  const unsigned count = static_cast<unsigned>(pieces.size());
  const uint64_t at = op.transfer.offset().v;
  switch (op.request.op) {
    case IoOp::Read:
    case IoOp::Write: {
      const bool write = op.request.op == IoOp::Write;
      if (count == 1) {
        const unsigned bytes = static_cast<unsigned>(std::min(pieces[0].iov_len, kMaxSinglePiece));
        if (write) io_uring_prep_write(sqe, fd, pieces[0].iov_base, bytes, at);
        if (!write) io_uring_prep_read(sqe, fd, pieces[0].iov_base, bytes, at);
      } else {
        if (write) io_uring_prep_writev(sqe, fd, pieces.data(), count, at);
        if (!write) io_uring_prep_readv(sqe, fd, pieces.data(), count, at);
      }
      if (write && op.request.fua) sqe->rw_flags = RWF_DSYNC;
      break;
    }
    case IoOp::Flush:
      io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
      break;
    case IoOp::Discard:
      io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(at), static_cast<off_t>(op.request.length.v));
      break;
  }
}

void Uring::enter() {
  while (io_uring_sq_ready(&ring_) != 0) {
    const int rc = io_uring_submit(&ring_);
    if (rc < 0 && !passing(-rc)) ringIsBroken("submission failed", -rc);
    if (rc < 0) std::this_thread::yield();
  }
}

void Uring::reap() {
  reapingFor = this;
  for (;;) {
    io_uring_cqe* cqe = nullptr;
    const int rc = io_uring_wait_cqe(&ring_, &cqe);
    if (rc < 0 && passing(-rc)) continue;
    if (rc < 0) ringIsBroken("waiting failed", -rc);
    Op* op = static_cast<Op*>(io_uring_cqe_get_data(cqe));
    const int answer = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    if (op == nullptr) return;
    finish(*op, answer);
  }
}

void Uring::finish(Op& op, int answer) {
  (void)op.handedOver.load(std::memory_order_acquire);
  const bool unsupportedHint = op.request.op == IoOp::Discard && answer == -EOPNOTSUPP;
  const Transfer::Next next = op.transfer.take(heard(op.request.op, unsupportedHint ? 0 : answer));
  if (next == Transfer::Next::Again) return issue(op, true);
  Status status = conclude(op, next);
  op.bounce = AlignedBuffer();
  IoCompletion done = std::move(op.request.done);
  done(std::move(status));
  done = nullptr;  // what it captured goes before the destructor may see this request as over
  retire(op);
}

void Uring::retire(Op& op) {
  op.request = IoRequest();
  {
    MutexLock lock(slotMutex_);
    --pending_;
    if (backlog_.empty()) {
      free_.push_back(&op);
      slotChanged_.notifyAll();
      return;
    }
    op.request = std::move(backlog_.front());
    backlog_.pop_front();
  }
  begin(op);
  issue(op, false);
}

}  // namespace

Result<std::unique_ptr<UringDevice>> UringDevice::open(const std::string& path,
                                                       const UringOptions& options) {
  TRY_ASSIGN(std::unique_ptr<HostFile> file, HostFile::open(path, options));
  const uint32_t depth = std::clamp(options.queueDepth, uint32_t{1}, kMaxQueueDepth);
  auto device = std::make_unique<Uring>(std::move(file), depth);
  TRY(device->start());
  return std::unique_ptr<UringDevice>(std::move(device));
}

}  // namespace ourfs
