#include "block/record_device.h"

#include "check_request.h"
#include "common/mutex.h"

namespace ourfs {

namespace {

class Recorder final : public RecordDevice {
 public:
  Recorder(BlockDevice& inner, Tagger tagger) : inner_(inner), tagger_(std::move(tagger)) {}

  void submit(IoRequest request) override;
  ByteCount size() const override { return inner_.size(); }
  uint32_t logicalSector() const override { return inner_.logicalSector(); }
  uint32_t physicalSector() const override { return inner_.physicalSector(); }
  bool readOnly() const override { return inner_.readOnly(); }
  std::string name() const override { return inner_.name(); }

  std::vector<RecordedIo> log() const override;
  uint64_t clock() const override;
  uint64_t mark() override;
  void clear() override;

 private:
  void completed(RecordedIo& entry, const Status& status);

  BlockDevice& inner_;
  const Tagger tagger_;
  mutable Mutex mutex_;
  uint64_t clock_ GUARDED_BY(mutex_) = 0;
  // Shared with the completions, which may come after clear(). Their time and outcome are guarded
  // by mutex_ too.
  std::vector<std::shared_ptr<RecordedIo>> log_ GUARDED_BY(mutex_);
};

std::shared_ptr<RecordedIo> entryOf(const IoRequest& r) {
  auto entry = std::make_shared<RecordedIo>();
  entry->op = r.op;
  entry->cls = r.cls;
  entry->fua = r.fua;
  entry->offset = r.offset;
  entry->length = r.length;
  if (r.op == IoOp::Write) {
    for (const IoVec& p : r.pieces)
      entry->bytes.insert(entry->bytes.end(), p.data, p.data + p.size);
  }
  return entry;
}

void Recorder::submit(IoRequest request) {
  Status valid = checkRequest(*this, request);
  if (!valid.isOk()) return request.done(std::move(valid));
  if (request.op == IoOp::Read) {
    mark();
    return inner_.submit(std::move(request));
  }
  std::shared_ptr<RecordedIo> entry = entryOf(request);
  if (tagger_) entry->tag = tagger_(request);
  // The time of submission is taken before the inner device sees the request, and the time of
  // completion before the caller hears of it: what a caller did in sequence never looks concurrent.
  {
    MutexLock lock(mutex_);
    entry->submitted = ++clock_;
    log_.push_back(entry);
  }
  request.done = [this, entry, done = std::move(request.done)](Status status) {
    completed(*entry, status);
    done(std::move(status));
  };
  inner_.submit(std::move(request));
}

void Recorder::completed(RecordedIo& entry, const Status& status) {
  MutexLock lock(mutex_);
  entry.completed = ++clock_;
  entry.ok = status.isOk();
}

std::vector<RecordedIo> Recorder::log() const {
  MutexLock lock(mutex_);
  std::vector<RecordedIo> copy;
  copy.reserve(log_.size());
  for (const auto& entry : log_) copy.push_back(*entry);
  return copy;
}

uint64_t Recorder::clock() const {
  MutexLock lock(mutex_);
  return clock_;
}

uint64_t Recorder::mark() {
  MutexLock lock(mutex_);
  return ++clock_;
}

void Recorder::clear() {
  MutexLock lock(mutex_);
  log_.clear();
}

}  // namespace

std::unique_ptr<RecordDevice> RecordDevice::wrap(BlockDevice& inner, Tagger tagger) {
  return std::make_unique<Recorder>(inner, std::move(tagger));
}

}  // namespace ourfs
