#include "footprint.h"

#include <algorithm>
#include <set>

#include "tuning.h"
#include "unit.h"

namespace ourfs {

namespace {

std::string bare(const std::string& name) { return name.substr(name.rfind('/') + 1); }

}  // namespace

uint64_t Footprint::poolBytes(uint64_t tableBytes) const {
  const uint64_t unit = unitSizeFor(geometry_.blockSize), payload = unit - kUnitHeader;
  return roundUp((tableBytes + payload - 1) / payload * unit, geometry_.blockSize);
}

uint64_t Footprint::levelBytes(const rocksdb::LevelMetaData& level) const {
  uint64_t total = 0;
  for (const rocksdb::SstFileMetaData& file : level.files) total += poolBytes(file.size);
  return total;
}

// One table of a sorted level, and all those of the next one that it overlaps.
uint64_t Footprint::largestStep(const rocksdb::LevelMetaData& from,
                                const rocksdb::LevelMetaData& to) const {
  uint64_t largest = 0;
  size_t first = 0;
  for (const rocksdb::SstFileMetaData& file : from.files) {
    while (first < to.files.size() && to.files[first].largestkey < file.smallestkey) ++first;
    uint64_t step = poolBytes(file.size);
    for (size_t i = first; i < to.files.size() && to.files[i].smallestkey <= file.largestkey; ++i) {
      step += poolBytes(to.files[i].size);
    }
    largest = std::max(largest, step);
  }
  return largest;
}

uint64_t Footprint::largestCompaction(const Levels& levels) const {
  const auto& all = levels.meta.levels;
  if (all.empty()) return 0;
  // Out of level 0: all of it and, as a rule, all of the level it goes to.
  uint64_t need = levelBytes(all[0]);
  const size_t base = static_cast<size_t>(std::max(levels.base, 1));
  if (base < all.size()) need += levelBytes(all[base]);
  for (size_t l = base; l + 1 < all.size(); ++l) {
    // RocksDB adds neighbours up to a limit.
    const uint64_t both = levelBytes(all[l]) + levelBytes(all[l + 1]);
    need = std::max(
        {need, largestStep(all[l], all[l + 1]), std::min(both, compactionLimit(geometry_))});
  }
  return need;
}

void Footprint::refresh(const std::function<Levels()>& read, const std::vector<std::string>& inputs,
                        const std::function<uint64_t(const std::string& name)>& size) {
  MutexLock l(mu_);
  const Levels levels = read();
  live_ = livePayload_ = 0;
  std::set<std::string> names;
  for (const rocksdb::LevelMetaData& level : levels.meta.levels) {
    if (level.level == 0) level0_.store(static_cast<int>(level.files.size()));
    for (const rocksdb::SstFileMetaData& file : level.files) {
      live_ += poolBytes(file.size);
      livePayload_ += file.size;
      if (!inputs.empty()) names.insert(bare(file.name));
    }
  }
  for (const std::string& input : inputs) {
    const std::string name = bare(input);
    if (names.contains(name)) continue;  // it has only moved to another level
    if (const uint64_t bytes = size(name); bytes > 0) retired_[name] = bytes;
  }
  compaction_.store(largestCompaction(levels), std::memory_order_relaxed);
  publish();
}

void Footprint::deleted(const std::string& name) {
  MutexLock l(mu_);
  if (retired_.erase(bare(name)) > 0) publish();
}

void Footprint::publish() {
  uint64_t used = live_, payload = livePayload_;
  for (const auto& [name, bytes] : retired_) {
    used += poolBytes(bytes);
    payload += bytes;
  }
  used_.store(used, std::memory_order_relaxed);
  payload_.store(payload, std::memory_order_relaxed);
  anyRetired_.store(!retired_.empty(), std::memory_order_relaxed);
}

}  // namespace ourfs
