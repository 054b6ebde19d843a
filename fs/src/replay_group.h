// ReplayGroup: what replay has read and not yet applied to the index. It applies many records as
// one batch, the last change of each key alone: neighbours in the log change the same parent, the
// same inode, the same position, and an insertion into a memtable is what replay waits for.
// One thread.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>

#include "common/result.h"
#include "index/index.h"

namespace ourfs {

class ReplayGroup {
 public:
  explicit ReplayGroup(Index& index) : index_(index) {}
  // A record, in the order of the log. EUCLEAN if its payload is no batch; else the errors of
  // apply(), as a group that is large enough is applied.
  Status add(const AppliedPosition& position, std::span<const std::byte> payload);
  Status apply();

 private:
  Status decode(std::span<const std::byte> payload);

  Index& index_;
  std::map<std::string, std::optional<std::string>> changes_;  // in the order of the index
  AppliedPosition position_;                                   // of the last record in changes_
  size_t records_ = 0, bytes_ = 0;
};

}  // namespace ourfs
