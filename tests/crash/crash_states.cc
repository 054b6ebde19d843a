#include "crash/crash_states.h"

#include <algorithm>
#include <string_view>

#include "common/sync_point.h"

namespace ourfs::crash {

namespace {

constexpr uint64_t kRecordUnit = 4096;

enum Job : uint8_t { kNoJob, kFlush, kCompaction, kManifest };
thread_local Job jobOfThread = kNoJob;

bool changesContents(const RecordedIo& io) {
  return io.op == IoOp::Write || io.op == IoOp::Discard;
}

// Of files, or it takes space from one.
bool changesBytes(const RecordedIo& io) {
  return changesContents(io) && (io.cls == IoClass::Data || io.op == IoOp::Discard);
}

uint64_t mixBits(uint64_t a, uint64_t b) {
  uint64_t x = (a ^ b * 0x9e3779b97f4a7c15ull) + 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return x ^ x >> 31;
}

// Of a journal write that is all there, durable or not.
uint64_t wholeWrite(uint64_t number) { return mixBits(0x5eed, number); }

}  // namespace

const char* nameOf(Phase phase) {
  static const char* const names[kPhases] = {"commit",          "data write", "index flush",
                                             "MANIFEST switch", "compaction", "file table",
                                             "replay",          "superblock", "settled"};
  return names[static_cast<size_t>(phase)];
}

RecordDevice::Tagger phaseTagger() {
  SyncPoints& points = SyncPoints::instance();
  points.call("index.flush_begins", [] { jobOfThread = kFlush; });
  points.call("index.compaction_begins", [] { jobOfThread = kCompaction; });
  points.call("index.before_manifest_sync", [] { jobOfThread = kManifest; });
  return [](const IoRequest&) { return jobOfThread; };
}

Phase phaseOf(const RecordedIo& io) {
  switch (io.cls) {
    case IoClass::Journal:
      return Phase::Commit;
    case IoClass::Index:
      return io.tag == kCompaction ? Phase::Compaction
             : io.tag == kManifest ? Phase::ManifestSwitch
                                   : Phase::IndexFlush;
    case IoClass::FileTable:
      return Phase::FileTable;
    case IoClass::Superblock:
      return Phase::Superblock;
    case IoClass::Data:
    case IoClass::Other:
      break;
  }
  return Phase::DataWrite;
}

CrashStates::CrashStates(const MemoryDevice& base, const std::vector<RecordedIo>& log)
    : log_(log),
      sector_(base.logicalSector()),
      contested_(base.size().v / base.logicalSector()),
      hashes_(log.size()),
      durable_(log.size()),
      rolled_(base.clone()),
      applied_(log.size()),
      owner_(base.size().v / base.logicalSector()) {
  std::vector<bool> written(contested_.size());
  for (const RecordedIo& io : log) {
    if (!changesBytes(io)) continue;
    for (uint64_t s = io.offset.v / sector_; s < (io.offset + io.length).v / sector_; ++s) {
      if (written[s]) contested_[s] = true;
      written[s] = true;
    }
  }
  hashContested();
}

void CrashStates::hashContested() {
  for (size_t i = 0; i < log_.size(); ++i) {
    const RecordedIo& io = log_[i];
    if (!changesBytes(io) || contested(io.offset, io.length).empty()) continue;
    const std::string_view bytes(reinterpret_cast<const char*>(io.bytes.data()), io.bytes.size());
    hashes_[i].resize(io.length.v / sector_);  // a discard has no bytes
    for (uint64_t s = 0; s * sector_ < bytes.size(); ++s)
      hashes_[i][s] = std::hash<std::string_view>{}(bytes.substr(s * sector_, sector_));
  }
}

std::vector<uint32_t> CrashStates::contested(DeviceOffset at, ByteCount length) const {
  std::vector<uint32_t> sectors;
  for (uint64_t s = at.v / sector_; s < (at + length).v / sector_; ++s)
    if (contested_[s]) sectors.push_back(static_cast<uint32_t>(s));
  return sectors;
}

// Of the sectors [from, from + count) of a write. A later write in the log wins.
void CrashStates::ownContested(std::unordered_map<uint32_t, size_t>& owners, size_t write,
                               uint64_t from, uint64_t count) const {
  const uint64_t first = log_[write].offset.v / sector_;
  for (uint64_t s = first + from; s < first + from + count; ++s) {
    if (!contested_[s]) continue;
    size_t& owner = owners[static_cast<uint32_t>(s)];
    owner = std::max(owner, write + 1);
  }
}

void CrashStates::seek(uint64_t point) {
  point_ = point;
  volatile_.clear();
  sectors_ = 0;
  settled_ = {};
  owners_.clear();
  auto succeeded = [&](const RecordedIo& io) {
    return io.ok && io.completed != 0 && io.completed <= point;
  };
  uint64_t coveredBefore = 0;
  for (const RecordedIo& io : log_)
    if (io.op == IoOp::Flush && succeeded(io))
      coveredBefore = std::max(coveredBefore, io.submitted);
  for (size_t i = 0; i < log_.size(); ++i) {
    const RecordedIo& io = log_[i];
    durable_[i] = false;
    if (!changesContents(io) || io.submitted > point) continue;
    durable_[i] =
        succeeded(io) && ((io.fua && io.op == IoOp::Write) || io.completed < coveredBefore);
    if (!durable_[i]) {
      volatile_.push_back(i);
      sectors_ += io.length.v / sector_;
      continue;
    }
    settled_.image = mixBits(settled_.image, i);
    if (io.cls == IoClass::Journal) settled_.log += wholeWrite(i);
    if (rewrites(i)) ownContested(owners_, i, 0, io.length.v / sector_);
  }
}

Phase CrashStates::phase() const {
  const RecordedIo* last = nullptr;
  for (const RecordedIo& io : log_) {
    const bool underWay = io.submitted <= point_ && (io.completed == 0 || io.completed > point_);
    if (underWay && (last == nullptr || io.submitted > last->submitted)) last = &io;
  }
  if (last == nullptr && !volatile_.empty()) last = &log_[volatile_.back()];
  return last == nullptr ? Phase::Settled : phaseOf(*last);
}

bool CrashStates::keeps(uint64_t choice, size_t write, size_t sector, size_t ordinal) const {
  const uint64_t salt = choice >> 3;
  switch (choice & 7) {
    case 0:
      return false;
    case 1:
      return true;
    case 2:
      return mixBits(salt, ordinal) % 2 == 0;
    case 3:
      return mixBits(salt, write) % 2 == 0;
    case 4:
      return mixBits(salt, write) % 8 != 0;
    case 5:
      return mixBits(mixBits(salt, write), sector) % 16 != 0;
    case 6:
      return write < 61 && (salt >> write & 1) != 0;
    default:
      return ordinal < 61 && (salt >> ordinal & 1) != 0;
  }
}

// Of the journal, what lies behind the first gap is not replayed, and a record that is there in
// part is not either; a record takes whole physical sectors.
CrashStates::Signature CrashStates::signatureOf(uint64_t choice) const {
  Signature signature = settled_;
  size_t ordinal = 0;
  bool chain = true;
  for (size_t v = 0; v < volatile_.size(); ++v) {
    const size_t write = volatile_[v];
    const uint64_t count = log_[write].length.v / sector_;
    uint64_t kept = 0, leading = 0;
    for (uint64_t s = 0; s < count; ++s, ++ordinal) {
      if (!keeps(choice, v, s, ordinal)) continue;
      ++kept;
      leading += leading == s ? 1 : 0;
      signature.image = mixBits(signature.image, mixBits(write << 24, s));
    }
    if (log_[write].cls != IoClass::Journal || !chain) continue;
    chain = kept == count;
    signature.torn = !chain && kept != 0;
    const uint64_t units = leading * sector_ / kRecordUnit;
    signature.log += chain ? wholeWrite(write) : units * mixBits(write << 24, 0);
  }
  return signature;
}

uint64_t CrashStates::bytesOf(uint64_t choice, std::span<const uint32_t> sectors) const {
  auto owners = owners_;
  size_t ordinal = 0;
  for (size_t v = 0; v < volatile_.size(); ++v) {
    const uint64_t count = log_[volatile_[v]].length.v / sector_;
    for (uint64_t s = 0; rewrites(volatile_[v]) && s < count; ++s)
      if (keeps(choice, v, s, ordinal + s)) ownContested(owners, volatile_[v], s, 1);
    ordinal += count;
  }
  uint64_t bytes = 0;
  for (const uint32_t sector : sectors) {
    const auto owner = owners.find(sector);
    if (owner == owners.end()) continue;
    const size_t write = owner->second - 1;
    bytes += mixBits(hashes_[write][sector - log_[write].offset.v / sector_], sector);
  }
  return bytes;
}

// Writes those of `count` sectors that no later durable write has.
void CrashStates::applyFresh(MemoryDevice& image, size_t write, uint64_t from, uint64_t count) {
  const RecordedIo& io = log_[write];
  const uint64_t first = io.offset.v / sector_;
  for (uint64_t s = from; s < from + count;) {
    uint64_t end = s;
    while (end < from + count && owner_[first + end] <= write) ++end;
    if (end > s) {
      const DeviceOffset at((first + s) * sector_);
      // A device in memory refuses only misuse, and the recorder has let none through.
      if (io.op == IoOp::Discard) {
        (void)image.discard(at, ByteCount((end - s) * sector_));
      } else {
        (void)image.write(at, std::span(io.bytes).subspan(s * sector_, (end - s) * sector_));
      }
    }
    s = std::max(end, s + 1);
  }
}

void CrashStates::rollForward() {
  for (size_t i = 0; i < log_.size(); ++i) {
    if (!durable_[i] || applied_[i]) continue;
    applied_[i] = true;
    const uint64_t first = log_[i].offset.v / sector_, count = log_[i].length.v / sector_;
    applyFresh(*rolled_, i, 0, count);
    for (uint64_t s = first; s < first + count; ++s)
      owner_[s] = std::max(owner_[s], static_cast<uint32_t>(i + 1));
  }
}

std::unique_ptr<MemoryDevice> CrashStates::image(uint64_t choice) {
  rollForward();
  std::unique_ptr<MemoryDevice> image = rolled_->clone();
  size_t ordinal = 0;
  for (size_t v = 0; v < volatile_.size(); ++v) {
    const uint64_t count = log_[volatile_[v]].length.v / sector_;
    for (uint64_t s = 0; s < count;) {
      uint64_t end = s;
      while (end < count && keeps(choice, v, end, ordinal + end)) ++end;
      if (end > s) applyFresh(*image, volatile_[v], s, end - s);
      s = std::max(end, s + 1);
    }
    ordinal += count;
  }
  return image;
}

}  // namespace ourfs::crash
