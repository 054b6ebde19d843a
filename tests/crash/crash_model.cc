#include "crash/crash_model.h"

#include <algorithm>
#include <cstring>

namespace ourfs::crash {

void fillBytes(std::span<std::byte> into, uint64_t file, uint64_t version, uint64_t at) {
  for (size_t i = 0; i < into.size(); ++i) {
    const uint64_t place = at + i, word = place / 8;
    uint64_t value = (file << 40 ^ version << 8 ^ word * 0x9e3779b97f4a7c15ull) | 1;
    into[i] = static_cast<std::byte>(value >> (place % 8 * 8));
  }
}

bool Tree::names(uint64_t id) const {
  return std::any_of(nodes.begin(), nodes.end(), [&](const auto& n) { return n.second.id == id; });
}

CrashModel::CrashModel() { snapshots_.push_back({now_, {0, 0}, {}}); }

void CrashModel::changed(Span span, const std::vector<uint64_t>& touched) {
  snapshots_.push_back({now_, span, touched});
}

const std::string& CrashModel::contentOf(uint64_t file) const {
  static const std::string none;
  const auto found = files_.find(file);
  return found == files_.end() ? none : found->second.content;
}

// Writes down the sectors of [from, to) that are not what they were.
void CrashModel::noteSectors(File& file, uint64_t from, uint64_t to, Span span) {
  for (uint64_t number = from / kSector; number * kSector < to; ++number) {
    Sector sector{};
    const uint64_t at = number * kSector;
    if (at < file.content.size())
      std::memcpy(sector.data(), file.content.data() + at,
                  std::min<uint64_t>(kSector, file.content.size() - at));
    auto& events = file.sectors[number];
    const bool same = events.empty()
                          ? sector == Sector{}
                          : events.back().bytes == sector && events.back().span.end != kNever;
    if (!same) events.push_back({sector, span});
  }
}

void CrashModel::wrote(uint64_t id, uint64_t at, std::span<const std::byte> bytes, Span span) {
  File& file = files_[id];
  const uint64_t end = at + bytes.size(), size = file.content.size();
  if (end > size) resized(id, end, span);
  std::memcpy(file.content.data() + at, bytes.data(), bytes.size());
  noteSectors(file, at, end, span);
}

void CrashModel::zeroed(uint64_t id, uint64_t at, uint64_t length, Span span) {
  File& file = files_[id];
  const uint64_t end = std::min<uint64_t>(at + length, file.content.size());
  if (at >= end) return;
  std::memset(file.content.data() + at, 0, end - at);
  noteSectors(file, at, end, span);
}

void CrashModel::resized(uint64_t id, uint64_t size, Span span) {
  File& file = files_[id];
  const uint64_t before = file.content.size();
  file.content.resize(size);
  noteSectors(file, std::min(size, before), std::max(size, before), span);
  file.sizes.push_back({size, span});
}

void CrashModel::tried(uint64_t id, uint64_t at, std::span<const std::byte> bytes, uint64_t begin,
                       std::span<const std::byte> now) {
  File& file = files_[id];
  const Span span{begin, kNever};
  const uint64_t end = at + bytes.size();
  file.content.resize(std::max<uint64_t>(file.content.size(), end));
  std::memcpy(file.content.data() + at, bytes.data(), bytes.size());
  noteSectors(file, at, end, span);
  file.sizes.push_back({file.content.size(), span});
  file.content.assign(reinterpret_cast<const char*>(now.data()), now.size());
  noteSectors(file, at, end, span);
  file.sizes.push_back({file.content.size(), span});
}

void CrashModel::stamped(uint64_t id, const Times& times, const Timestamp& from, Span span) {
  File& file = files_[id];
  if (file.times.empty() || !(file.times.back().times == times))
    file.times.push_back({times, from, span});
}

void CrashModel::synced(std::optional<uint64_t> id, bool dataOnly, Span span) {
  syncs_.push_back({id, dataOnly, span});
}

uint64_t CrashModel::coveredAt(uint64_t id, uint64_t point, bool needsTimes) const {
  uint64_t covered = 0;
  for (const Sync& sync : syncs_) {
    if ((sync.id && *sync.id != id) || (needsTimes && sync.dataOnly)) continue;
    if (sync.span.end <= point) covered = std::max(covered, sync.span.begin);
  }
  return covered;
}

}  // namespace ourfs::crash
