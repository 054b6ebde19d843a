// The spelling of the file table's operations and snapshot: varints, texts with their length in
// front, and runs as differences.
//   runs := count { zigzag(start - end of the run before) length }
#pragma once

#include <string>
#include <vector>

#include "format.h"
#include "table_state.h"
#include "varint.h"

namespace ourfs {

// Adds a run behind the others, into the last one where they touch.
inline void appendRun(std::vector<BlockRun>& runs, const BlockRun& run) {
  if (!runs.empty() && runs.back().start + runs.back().count == run.start) {
    runs.back().count += run.count;
  } else {
    runs.push_back(run);
  }
}

class TableWriter {
 public:
  TableWriter() = default;
  explicit TableWriter(TableOp op) { e_.u8(static_cast<uint8_t>(op)); }
  TableWriter(const TableWriter&) = delete;
  TableWriter& operator=(const TableWriter&) = delete;
  TableWriter& number(uint64_t v) {
    putVarint(e_, v);
    return *this;
  }
  TableWriter& text(std::string_view s) {
    number(s.size());
    e_.bytes(s);
    return *this;
  }
  TableWriter& runs(const std::vector<BlockRun>& runs, uint64_t end) {
    number(runs.size());
    for (const BlockRun& run : runs) {
      number(zigzag(static_cast<int64_t>(run.start.v - end))).number(run.count.v);
      end = run.start.v + run.count.v;
    }
    return *this;
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
  Encoder e_{out_};
};

// Once something cannot be read, ok() is false and everything else is zero or empty.
class TableState::Reader {
 public:
  explicit Reader(std::string_view bytes) : d_(bytes) {}
  TableOp op() { return static_cast<TableOp>(d_.u8()); }
  uint64_t number() {
    uint64_t v = 0;
    ok_ = ok_ && getVarint(d_, &v);
    return ok_ ? v : 0;
  }
  // A number of things of at least one byte each: nothing is allocated for more than there can be.
  uint64_t count() {
    const uint64_t n = number();
    ok_ = ok_ && n <= d_.remaining();
    return ok_ ? n : 0;
  }
  std::string text() { return std::string(d_.bytes(count())); }
  std::vector<BlockRun> runs(uint64_t end) {
    std::vector<BlockRun> runs;
    for (uint64_t n = count(); n > 0 && ok_; --n) {
      const uint64_t start = end + static_cast<uint64_t>(unzigzag(number()));
      const uint64_t length = number();
      ok_ = ok_ && length > 0 && start <= UINT64_MAX - length;
      if (ok_) runs.push_back({BlockNo(start), BlockCount(length)});
      end = start + length;
    }
    return runs;
  }
  bool ok() const { return ok_ && d_.ok(); }
  bool atEnd() const { return d_.atEnd(); }

 private:
  Decoder d_;
  bool ok_ = true;
};

}  // namespace ourfs
