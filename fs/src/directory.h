// Directory: the names of one directory, as the index keeps them.
//
// A name's cookie says its bucket; a bucket is the slots 0, 1, 2 … behind it (index/schema.h).
// Changes are staged in core, so that several of them in one bucket fit into one transaction, and
// are written by emit().
//
// REQUIRES: the directory's inode lock, shared for find and read, exclusively from the first find
// of a change to the end of its commit. An object lives no longer than that.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "common/checksum.h"
#include "common/result.h"
#include "fs/transaction.h"
#include "index/index.h"
#include "index/schema.h"

namespace ourfs {

inline constexpr size_t kMaxNameLength = 255;
inline constexpr uint64_t kSlotsPerBucket = 256;

// The cookie of the bucket. With the mutant directory.few_buckets there are only three, so that
// tests can make names share them.
uint64_t bucketOf(std::string_view name, const SipKey& key);

struct Dirent {
  uint64_t cookie = 0;
  InodeNo ino;
  uint8_t type = 0;  // DT_*
  std::string name;
};

class Directory {
 public:
  Directory(Index& index, const SipKey& key, InodeNo ino) : index_(index), key_(key), ino_(ino) {}

  Result<std::optional<Dirent>> find(std::string_view name);
  // Adds a name that find() did not find; its cookie. ENOSPC if its bucket is full.
  Result<uint64_t> insert(std::string_view name, InodeNo ino, uint8_t type);
  // The name keeps its cookie and leads elsewhere. REQUIRES: it exists (ENOENT).
  Status replace(std::string_view name, InodeNo ino, uint8_t type);
  Status remove(std::string_view name);  // ENOENT
  // Writes what differs from the index into the transaction.
  void emit(Transaction& transaction) const;

  // Up to `limit` names with cookies of at least `from`, in order.
  Result<std::vector<Dirent>> read(uint64_t from, size_t limit);

 private:
  struct Bucket {
    std::vector<DirentRecord> slots, stored;  // as changed, and as in the index
  };
  Result<Bucket*> bucket(std::string_view name, uint64_t* cookie);

  Index& index_;
  const SipKey key_;
  const InodeNo ino_;
  std::map<uint64_t, Bucket> buckets_;  // by cookie of slot 0
};

}  // namespace ourfs
