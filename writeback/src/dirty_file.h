// DirtyFile: what writeback knows of one file, and FlushWindow: the I/Os that one flush has in
// flight.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>

#include "common/mutex.h"
#include "common/result.h"
#include "iomap/mapping.h"

namespace ourfs {

// The I/Os of one flush. Threads: any.
class FlushWindow {
 public:
  void enter(uint32_t most);  // waits until fewer than `most` are in flight, and counts one more
  void leave(const Status& status);
  Status wait();  // until none is in flight; the first error

 private:
  Mutex mutex_;
  CondVar changed_;
  uint32_t inFlight_ GUARDED_BY(mutex_) = 0;
  Status first_ GUARDED_BY(mutex_);
};

// The I/Os of one file, of all flushes, by ticket. A ticket is taken before the folios of its I/O
// go into writeback: who sees a folio clean and then asks for ticket() waits for the I/O that
// cleaned it.
class Flights {
 public:
  uint64_t begin(FileOffset from, FileOffset to);
  void end(uint64_t ticket);
  bool any() const { return count_.load() != 0; }
  // The ticket that the next I/O will get.
  uint64_t ticket() const;
  // Waits for the I/Os with an earlier ticket that touch [from, to), and for no later one: a file
  // that is written all the time does not hold a flush for ever.
  void waitBefore(uint64_t ticket, FileOffset from, FileOffset to);

 private:
  struct Range {
    FileOffset from, to;
  };
  bool anyBefore(uint64_t ticket, FileOffset from, FileOffset to) const REQUIRES(mutex_);
  mutable Mutex mutex_;
  CondVar ended_;
  std::map<uint64_t, Range> flights_ GUARDED_BY(mutex_);
  uint64_t next_ GUARDED_BY(mutex_) = 1;
  std::atomic<uint32_t> count_{0};
};

struct DirtyFile {
  explicit DirtyFile(std::shared_ptr<Mapping> m) : mapping(std::move(m)) {}

  std::shared_ptr<Mapping> mapping;  // reset by FileList::forget, when nobody uses it any more
  Flights flights;
  std::atomic<bool> errorLogged{false};
  std::atomic<uint64_t> writeIndex{0};    // where the next slice begins
  std::atomic<uint64_t> reclaimIndex{0};  // where reclaim's hand stands

  // Owned by FileList, guarded by its mutex.
  enum class Place : uint8_t { None, Waiting, Active, Running };
  Place place = Place::None;
  using Position = std::list<std::shared_ptr<DirtyFile>>::iterator;
  Position at;                      // in Waiting or Active
  std::optional<Position> inRound;  // of reclaim
  int users = 0;
  bool forgotten = false;
};

}  // namespace ourfs
