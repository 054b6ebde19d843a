#include "directory.h"

#include <algorithm>

#include "common/sync_point.h"

namespace ourfs {

namespace {

bool same(const DirentRecord& a, const DirentRecord& b) {
  return a.kind == b.kind && a.more == b.more && a.type == b.type && a.ino == b.ino &&
         a.name == b.name;
}

std::vector<DirentRecord>::iterator slotOf(std::vector<DirentRecord>& slots,
                                           std::string_view name) {
  return std::find_if(slots.begin(), slots.end(), [&](const DirentRecord& r) {
    return r.kind == DirentKind::Entry && r.name == name;
  });
}

}  // namespace

uint64_t bucketOf(std::string_view name, const SipKey& key) {
  const uint64_t cookie = nameCookie(name, key);
  if (mutantEnabled("directory.few_buckets")) return (1 + cookie / kSlotsPerBucket % 3) << 20;
  return cookie;
}

Result<Directory::Bucket*> Directory::bucket(std::string_view name, uint64_t* cookie) {
  *cookie = bucketOf(name, key_);
  auto known = buckets_.find(*cookie);
  if (known != buckets_.end()) return &known->second;
  Bucket loaded;
  for (uint64_t slot = 0; slot < kSlotsPerBucket; ++slot) {
    TRY_ASSIGN(auto value, index_.get(direntKey(ino_, *cookie + slot)));
    if (!value) {
      if (slot == 0) break;
      return Status::corrupt("directory " + std::to_string(ino_.v) +
                             ": a bucket has a gap; run fsck.ourfs");
    }
    TRY_ASSIGN(DirentRecord record, decodeDirent(*value));
    loaded.stored.push_back(std::move(record));
    if (!loaded.stored.back().more) break;
  }
  loaded.slots = loaded.stored;
  return &buckets_.emplace(*cookie, std::move(loaded)).first->second;
}

Result<std::optional<Dirent>> Directory::find(std::string_view name) {
  uint64_t cookie = 0;
  TRY_ASSIGN(Bucket * bucket, this->bucket(name, &cookie));
  auto slot = slotOf(bucket->slots, name);
  if (slot == bucket->slots.end()) return std::optional<Dirent>();
  const auto number = static_cast<uint64_t>(slot - bucket->slots.begin());
  return std::optional<Dirent>({cookie + number, InodeNo(slot->ino), slot->type, slot->name});
}

Result<uint64_t> Directory::insert(std::string_view name, InodeNo ino, uint8_t type) {
  uint64_t cookie = 0;
  TRY_ASSIGN(Bucket * bucket, this->bucket(name, &cookie));
  auto& slots = bucket->slots;
  auto vacated = std::find_if(slots.begin(), slots.end(),
                              [](const DirentRecord& r) { return r.kind == DirentKind::Vacated; });
  if (vacated == slots.end()) {
    if (slots.size() == kSlotsPerBucket) return Status::error(ENOSPC);
    if (!slots.empty()) slots.back().more = true;
    vacated = slots.insert(slots.end(), DirentRecord{});
  }
  vacated->kind = DirentKind::Entry;
  vacated->type = type;
  vacated->ino = ino.v;
  vacated->name = name;
  return cookie + static_cast<uint64_t>(vacated - slots.begin());
}

Status Directory::replace(std::string_view name, InodeNo ino, uint8_t type) {
  uint64_t cookie = 0;
  TRY_ASSIGN(Bucket * bucket, this->bucket(name, &cookie));
  auto slot = slotOf(bucket->slots, name);
  if (slot == bucket->slots.end()) return Status::error(ENOENT);
  slot->ino = ino.v;
  slot->type = type;
  return Status::ok();
}

Status Directory::remove(std::string_view name) {
  uint64_t cookie = 0;
  TRY_ASSIGN(Bucket * bucket, this->bucket(name, &cookie));
  auto& slots = bucket->slots;
  auto slot = slotOf(slots, name);
  if (slot == slots.end()) return Status::error(ENOENT);
  const bool more = slot->more;
  *slot = DirentRecord{};
  slot->kind = DirentKind::Vacated;
  slot->more = more;
  while (!slots.empty() && slots.back().kind == DirentKind::Vacated) slots.pop_back();
  if (!slots.empty()) slots.back().more = false;
  return Status::ok();
}

void Directory::emit(Transaction& transaction) const {
  for (const auto& [cookie, bucket] : buckets_) {
    for (size_t i = 0; i < bucket.slots.size(); ++i) {
      if (i < bucket.stored.size() && same(bucket.slots[i], bucket.stored[i])) continue;
      transaction.put(direntKey(ino_, cookie + i), encodeDirent(bucket.slots[i]));
    }
    for (size_t i = bucket.slots.size(); i < bucket.stored.size(); ++i) {
      transaction.erase(direntKey(ino_, cookie + i));
    }
  }
}

Result<std::vector<Dirent>> Directory::read(uint64_t from, size_t limit) {
  std::vector<Dirent> found;
  Status bad;
  TRY(index_.scan(direntKey(ino_, from), prefixEnd(direntPrefix(ino_)),
                  [&](std::string_view key, std::string_view value) {
                    auto parsed = parseKey(key);
                    auto record =
                        parsed ? decodeDirent(value) : Result<DirentRecord>(parsed.status());
                    if (!record) {
                      bad = record.status();
                      return false;
                    }
                    if (record->kind == DirentKind::Vacated) return true;
                    found.push_back({parsed->number, InodeNo(record->ino), record->type,
                                     std::move(record->name)});
                    return found.size() < limit;
                  }));
  TRY(bad);
  return found;
}

}  // namespace ourfs
