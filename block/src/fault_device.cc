#include "block/fault_device.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/mutex.h"
#include "delay_queue.h"

namespace ourfs {

namespace {

bool kindFits(const FaultRule& rule, IoOp op) {
  switch (rule.kind) {
    case FaultKind::Short:
    case FaultKind::Misdirect:
      return op == IoOp::Write;
    case FaultKind::Drop:
      return op == IoOp::Write || (rule.op == op && op != IoOp::Read);
    case FaultKind::Flip:
      return op == IoOp::Write || op == IoOp::Read;
    case FaultKind::Error:
    case FaultKind::Delay:
    case FaultKind::Hold:
      return true;
  }
  return false;
}

bool matches(const FaultRule& rule, const IoRequest& r) {
  if (rule.op && *rule.op != r.op) return false;
  if (rule.cls && *rule.cls != r.cls) return false;
  if (!kindFits(rule, r.op)) return false;
  if (!rule.at) return true;
  return r.op != IoOp::Flush && *rule.at >= r.offset && *rule.at < r.offset + r.length;
}

// The first `bytes` of the pieces.
void truncate(IoRequest& r, uint64_t bytes) {
  r.length = ByteCount(bytes);
  std::vector<IoVec> kept;
  for (const IoVec& p : r.pieces) {
    const size_t size = std::min<uint64_t>(p.size, bytes);
    if (size == 0) break;
    kept.push_back({p.data, size});
    bytes -= size;
  }
  r.pieces = std::move(kept);
}

void flipBit(const std::vector<IoVec>& pieces, uint64_t bit) {
  uint64_t at = bit / 8;
  for (const IoVec& p : pieces) {
    if (at < p.size) {
      p.data[at] ^= static_cast<std::byte>(1u << (bit % 8));
      return;
    }
    at -= p.size;
  }
}

class Faulty final : public FaultDevice {
 public:
  explicit Faulty(BlockDevice& inner) : inner_(inner) {}
  ~Faulty() override { clear(); }

  void submit(IoRequest request) override;
  ByteCount size() const override { return inner_.size(); }
  uint32_t logicalSector() const override { return inner_.logicalSector(); }
  uint32_t physicalSector() const override { return inner_.physicalSector(); }
  bool readOnly() const override { return inner_.readOnly(); }
  std::string name() const override { return inner_.name(); }

  int addRule(const FaultRule& rule) override;
  void removeRule(int number) override;
  void clear() override;
  uint64_t hits(int number) const override;
  uint64_t matched(int number) const override;
  std::optional<FaultHit> lastHit(int number) const override;
  uint64_t held() const override;

 private:
  struct Rule {
    FaultRule what;
    uint64_t seen = 0;
    uint64_t hits = 0;
    FaultHit last;
    bool active = true;
    std::vector<IoRequest> held;
  };

  // The rule that hits the request, if any; a request to be held is taken.
  std::optional<FaultRule> decide(IoRequest& request);
  void apply(const FaultRule& rule, IoRequest request);
  void applyShort(IoRequest request);
  // Where the request goes; empty if there is no room for the shift.
  std::optional<DeviceOffset> landing(const FaultRule& rule, const IoRequest& request) const;
  void applyMisdirect(const FaultRule& rule, IoRequest request);
  void applyFlip(const FaultRule& rule, IoRequest request);
  void applyDelay(const FaultRule& rule, IoRequest request);
  void passOn(std::vector<IoRequest> requests);

  BlockDevice& inner_;
  mutable Mutex mutex_;
  std::map<int, Rule> rules_ GUARDED_BY(mutex_);  // removed ones stay, for hits()
  DelayQueue delays_;
};

std::optional<FaultRule> Faulty::decide(IoRequest& request) {
  MutexLock lock(mutex_);
  for (auto& [number, rule] : rules_) {
    if (!rule.active || !matches(rule.what, request)) continue;
    if (rule.seen++ < rule.what.skip || rule.hits >= rule.what.times) continue;
    ++rule.hits;
    const DeviceOffset landed = landing(rule.what, request).value_or(request.offset);
    rule.last = {request.op, request.cls, request.offset, request.length, landed};
    if (rule.what.kind == FaultKind::Hold) rule.held.push_back(std::move(request));
    return rule.what;
  }
  return std::nullopt;
}

void Faulty::submit(IoRequest request) {
  const std::optional<FaultRule> rule = decide(request);
  if (!rule) return inner_.submit(std::move(request));
  if (rule->kind != FaultKind::Hold) apply(*rule, std::move(request));
}

void Faulty::apply(const FaultRule& rule, IoRequest request) {
  switch (rule.kind) {
    case FaultKind::Error:
      return request.done(Status::error(rule.errnum, "injected error"));
    case FaultKind::Short:
      return applyShort(std::move(request));
    case FaultKind::Drop:
      return request.done(Status::ok());
    case FaultKind::Misdirect:
      return applyMisdirect(rule, std::move(request));
    case FaultKind::Flip:
      return applyFlip(rule, std::move(request));
    case FaultKind::Delay:
      return applyDelay(rule, std::move(request));
    case FaultKind::Hold:
      return;
  }
}

void Faulty::applyShort(IoRequest request) {
  const uint64_t sectors = request.length.v / logicalSector();
  truncate(request, sectors / 2 * logicalSector());
  request.done = [done = std::move(request.done)](const Status&) {
    done(Status::error(EIO, "injected short write"));
  };
  inner_.submit(std::move(request));
}

std::optional<DeviceOffset> Faulty::landing(const FaultRule& rule, const IoRequest& request) const {
  if (rule.kind != FaultKind::Misdirect) return request.offset;
  const uint64_t end = size().v;
  const uint64_t at = request.offset.v;
  const uint64_t length = request.length.v;
  const uint64_t shift = rule.shift.v;
  if (at <= end && length <= end - at && shift <= end - at - length)
    return DeviceOffset(at + shift);
  if (at >= shift) return DeviceOffset(at - shift);
  return std::nullopt;
}

void Faulty::applyMisdirect(const FaultRule& rule, IoRequest request) {
  const std::optional<DeviceOffset> to = landing(rule, request);
  if (!to) return request.done(Status::ok());
  request.offset = *to;
  inner_.submit(std::move(request));
}

void Faulty::applyFlip(const FaultRule& rule, IoRequest request) {
  if (request.length.v == 0) return inner_.submit(std::move(request));
  const uint64_t bit = rule.bit % (request.length.v * 8);
  if (request.op == IoOp::Read) {
    request.done = [pieces = request.pieces, bit, done = std::move(request.done)](Status s) {
      if (s.isOk()) flipBit(pieces, bit);
      done(std::move(s));
    };
    return inner_.submit(std::move(request));
  }
  // The caller's memory is not ours to change.
  auto copy = std::make_shared<AlignedBuffer>(request.length.v);
  std::byte* to = copy->data();
  for (const IoVec& p : request.pieces) std::memcpy(to, p.data, p.size), to += p.size;
  request.pieces = {{copy->data(), request.length.v}};
  flipBit(request.pieces, bit);
  request.done = [copy, done = std::move(request.done)](Status s) { done(std::move(s)); };
  inner_.submit(std::move(request));
}

void Faulty::applyDelay(const FaultRule& rule, IoRequest request) {
  request.done = [this, delay = rule.delay, done = std::move(request.done)](Status s) {
    delays_.after(delay, [done, s = std::move(s)] { done(s); });
  };
  inner_.submit(std::move(request));
}

int Faulty::addRule(const FaultRule& rule) {
  MutexLock lock(mutex_);
  const int number = static_cast<int>(rules_.size()) + 1;
  rules_[number].what = rule;
  return number;
}

void Faulty::removeRule(int number) {
  std::vector<IoRequest> released;
  {
    MutexLock lock(mutex_);
    auto it = rules_.find(number);
    if (it == rules_.end()) return;
    it->second.active = false;
    released = std::move(it->second.held);
    it->second.held.clear();
  }
  passOn(std::move(released));
}

void Faulty::clear() {
  std::vector<IoRequest> released;
  {
    MutexLock lock(mutex_);
    for (auto& [number, rule] : rules_) {
      rule.active = false;
      std::move(rule.held.begin(), rule.held.end(), std::back_inserter(released));
      rule.held.clear();
    }
  }
  passOn(std::move(released));
}

void Faulty::passOn(std::vector<IoRequest> requests) {
  for (IoRequest& r : requests) inner_.submit(std::move(r));
}

uint64_t Faulty::hits(int number) const {
  MutexLock lock(mutex_);
  auto it = rules_.find(number);
  return it == rules_.end() ? 0 : it->second.hits;
}

uint64_t Faulty::matched(int number) const {
  MutexLock lock(mutex_);
  auto it = rules_.find(number);
  return it == rules_.end() ? 0 : it->second.seen;
}

std::optional<FaultHit> Faulty::lastHit(int number) const {
  MutexLock lock(mutex_);
  auto it = rules_.find(number);
  if (it == rules_.end() || it->second.hits == 0) return std::nullopt;
  return it->second.last;
}

uint64_t Faulty::held() const {
  MutexLock lock(mutex_);
  uint64_t n = 0;
  for (const auto& [number, rule] : rules_) n += rule.held.size();
  return n;
}

}  // namespace

std::unique_ptr<FaultDevice> FaultDevice::wrap(BlockDevice& inner) {
  return std::make_unique<Faulty>(inner);
}

}  // namespace ourfs
