// IndexBatch: a set of key-value changes that together keep the filesystem consistent.
//
// It is what a journal record carries (encode) and what replay gives back (decode). Order matters:
// a later change to the same key wins.
//
//   batch := count:u32 { op:u8 key:bytes16 [value:bytes32 if op = Put] }
//   op: 1 = Put, 2 = Delete
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace ourfs {

class IndexBatch {
 public:
  struct Change {
    bool isPut = false;
    std::string key;
    std::string value;
  };
  void put(std::string key, std::string value);
  void erase(std::string key);
  bool empty() const { return changes_.empty(); }
  const std::vector<Change>& changes() const { return changes_; }
  size_t encodedSize() const { return encodedSize_; }
  std::string encode() const;
  static Result<IndexBatch> decode(std::string_view bytes);  // EUCLEAN

 private:
  std::vector<Change> changes_;
  size_t encodedSize_ = 4;
};

}  // namespace ourfs
