#include "writeback/writeback.h"

#include "common/thread.h"
#include "file_list.h"
#include "flush_pass.h"
#include "ioend_queue.h"
#include "reclaim.h"
#include "throttle.h"

namespace ourfs {

namespace {

constexpr ByteCount kSlice{16 * MiB};  // of one file, then it is the next one's turn

ByteCount orElse(ByteCount chosen, uint64_t otherwise) {
  return chosen.v != 0 ? chosen : ByteCount(otherwise);
}

class WritebackImpl : public Writeback {
 public:
  WritebackImpl(BlockDevice& device, FolioPool& pool, WritebackOps& ops,
                const WritebackOptions& options)
      : options_(options),
        pool_(pool),
        throttle_(pool, orElse(options.backgroundDirty, pool.limit().v / 8),
                  orElse(options.dirtyLimit, pool.limit().v / 2)),
        ioends_(ops, [this](uint64_t bytes) { throttle_.completed(bytes); }),
        context_{device, ops, ioends_, options.ioSize, std::max(options.maxInFlight, 1u)},
        reclaim_(files_, pool) {
    for (int i = 0; i < std::max(options.threads, 1); ++i)
      flushers_.emplace_back([this] { flushLoop(); });
  }

  ~WritebackImpl() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      wake_.notifyAll();
    }
    for (Thread& flusher : flushers_) flusher.join();
  }

  void dirtied(const std::shared_ptr<Mapping>& mapping) override {
    files_.add(mapping);
    if (counters_.load(std::memory_order_relaxed) == nullptr) counters_ = &mapping->counters;
    if (throttle_.overBackground()) kick();
  }

  Status flush(const std::shared_ptr<Mapping>& mapping, FileOffset from, FileOffset to) override {
    const std::shared_ptr<DirtyFile> file = files_.use(mapping);
    const auto window = std::make_shared<FlushWindow>();
    const FileOffset end = startFlush(file, window, from, to);
    const Status status = window->wait();
    file->flights.waitBefore(file->flights.ticket(), from, end);
    files_.unuse(file);
    return status;
  }

  Status flushAll() override {
    const auto window = std::make_shared<FlushWindow>();
    const auto files = files_.useBusy();
    for (const auto& file : files) startFlush(file, window, FileOffset(0), kFileEnd);
    const Status status = window->wait();
    for (const auto& file : files) {
      file->flights.waitBefore(file->flights.ticket(), FileOffset(0), kFileEnd);
      files_.unuse(file);
    }
    return status;
  }

  void throttle(ByteCount about) override {
    const bool waited = throttle_.wait(about, [this] { kick(); });
    MappingCounters* const counters = counters_.load();
    if (waited && counters != nullptr) ++counters->throttled;
    if (pool_.used() + about > pool_.limit())
      reclaim_.tryRun(std::max(about, ByteCount(pool_.limit().v / 16)));
  }

  void reclaim(ByteCount want) override { reclaim_.run(want); }
  void forget(const std::shared_ptr<Mapping>& mapping) override { files_.forget(mapping); }
  size_t dirtyFiles() const override { return files_.dirty(); }

 private:
  // Returns the end of what it covers: what is appended from now on is not waited for.
  FileOffset startFlush(const std::shared_ptr<DirtyFile>& file,
                        const std::shared_ptr<FlushWindow>& window, FileOffset from,
                        FileOffset to) {
    const FileOffset end(roundUp(file->mapping->size.load(), pool_.folioSize()));
    const FlushGoal goal{.from = from, .to = std::min(to, end)};
    FlushPass(context_, file, window, goal).run();
    return goal.to;
  }

  void kick() {
    if (kicked_.exchange(true)) return;
    MutexLock lock(mutex_);
    wake_.notifyAll();
  }

  void flushLoop() {
    const auto window = std::make_shared<FlushWindow>();
    while (!stopping()) {
      kicked_ = false;
      const bool pressure = throttle_.overBackground() || throttle_.anyWaiting();
      const auto expired = FileList::Clock::now() - options_.expire;
      const std::shared_ptr<DirtyFile> file = files_.take(expired, pressure);
      if (file) writeSlice(file, window);
      if (pool_.used().v > pool_.limit().v / 8 * 7) reclaim_.tryRun(ByteCount(pool_.limit().v / 4));
      if (!file) sleep();
    }
    // What was submitted still uses the context.
    (void)window->wait();
  }

  void writeSlice(const std::shared_ptr<DirtyFile>& file,
                  const std::shared_ptr<FlushWindow>& window) {
    const FlushGoal goal{.from = FileOffset(file->writeIndex.load() * pool_.folioSize()),
                         .to = kFileEnd,
                         .sync = false,
                         .budget = kSlice};
    FlushPass pass(context_, file, window, goal);
    pass.run();
    // A slice that began in the middle ends at the end; then the part before it has its turn.
    const bool more = pass.more() || goal.from.v != 0;
    file->writeIndex = pass.more() ? pass.nextIndex() : 0;
    // All that is dirty is in writeback too: that must end first.
    const bool stuck = pass.started().v == 0 && file->mapping->pages.dirtyFolios() != 0;
    files_.giveBack(file, more);
    if (stuck) throttle_.awaitProgress(std::chrono::milliseconds(5));
  }

  void sleep() {
    {
      MutexLock lock(mutex_);
      if (stopping_ || kicked_) return;
      wake_.waitFor(mutex_, options_.interval);
    }
    if (!throttle_.overBackground()) pool_.trim(pool_.limit().v / 16 / pool_.folioSize());
  }

  bool stopping() {
    MutexLock lock(mutex_);
    return stopping_;
  }

  const WritebackOptions options_;
  FolioPool& pool_;
  Throttle throttle_;
  FileList files_;
  IoendQueue ioends_;
  const FlushContext context_;
  Reclaim reclaim_;
  std::atomic<MappingCounters*> counters_{nullptr};
  std::atomic<bool> kicked_{false};
  Mutex mutex_;
  CondVar wake_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<Thread> flushers_;
};

}  // namespace

std::unique_ptr<Writeback> Writeback::start(BlockDevice& device, FolioPool& pool, WritebackOps& ops,
                                            const WritebackOptions& options) {
  return std::make_unique<WritebackImpl>(device, pool, ops, options);
}

}  // namespace ourfs
