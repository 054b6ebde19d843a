// IoendQueue: the thread that ends I/Os. Completions of the device only put them here.
//
// The end of an I/O, in this order: convert and bump, advance the size (WritebackOps::finish), end
// the writeback of its folios, tell the flush. I/Os that wait here together and continue each
// other, in the file and on disk, in the same state, share one transaction.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "common/mutex.h"
#include "common/thread.h"
#include "dirty_file.h"
#include "writeback/writeback.h"

namespace ourfs {

// A folio whose blocks went into more than one I/O: its writeback ends with the last of them.
struct FolioShare {
  std::atomic<int> left{1};  // I/Os, and the flush until it has assigned all blocks
  std::atomic<bool> failed{false};
};

// One write to the device, and everything that hangs on it.
struct WriteIo {
  Ioend ioend;
  std::vector<IoVec> pieces;
  std::vector<std::pair<const Folio*, std::shared_ptr<FolioShare>>> shares;
  std::shared_ptr<FlushWindow> window;
  std::shared_ptr<DirtyFile> file;
  uint64_t ticket = 0;
  bool boundary = false;  // must not continue the one before it
};

// Ends the writeback of a folio; one that failed leaves the cache, unless it is dirty again.
void endFolio(Mapping& mapping, const std::shared_ptr<Folio>& folio, bool failed);

class IoendQueue {
 public:
  using Done = std::function<void(uint64_t bytes)>;
  IoendQueue(WritebackOps& ops, Done done);
  ~IoendQueue();  // REQUIRES: everything announced has ended

  void announce() { outstanding_.fetch_add(1); }  // one more I/O will be pushed
  void push(std::shared_ptr<WriteIo> io);         // never blocks
  bool idle() const { return outstanding_.load() == 0; }

 private:
  using Ios = std::vector<std::shared_ptr<WriteIo>>;
  void run();
  void endAll(Ios ios);
  void endGroup(WriteIo* const* first, WriteIo* const* last);
  Status finish(WriteIo* const* first, WriteIo* const* last);
  void fail(WriteIo& io);
  void giveBack(WriteIo& io, const Folio& folio);
  void end(WriteIo& io);

  WritebackOps& ops_;
  const Done done_;
  std::atomic<uint64_t> outstanding_{0};
  Mutex mutex_;
  CondVar changed_;
  Ios queue_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  Thread thread_;
};

}  // namespace ourfs
