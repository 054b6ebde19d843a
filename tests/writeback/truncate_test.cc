// Truncate against I/O in flight: no block is freed under it, and no ioend brings a size back.
#include <thread>

#include "writeback_fixture.h"

namespace ourfs::test {
namespace {

class TruncateTest : public WritebackFixture {
 protected:
  void startWith(const char* mutant) {
    rule_.reset();
    start();  // switches mutants off
    if (mutant != nullptr) rule_.emplace(mutant);
    write(0, data_);
    SyncPoints::instance().count("folio.before_wait");
  }
  // Runs `cut` until it has to wait for writeback, lets the I/O go on by `resume`, and waits for
  // the end of both. If it does not wait, it is over before the I/O goes on.
  template <class Cut, class Resume>
  void cutUnderIo(std::thread& flusher, Cut cut, Resume resume) {
    std::atomic<bool> done{false};
    std::thread cutter([&] {
      cut();
      done = true;
    });
    while (!done && SyncPoints::instance().hits("folio.before_wait") == 0)
      std::this_thread::yield();
    waited_ = SyncPoints::instance().hits("folio.before_wait") != 0;
    resume();
    cutter.join();
    flusher.join();
  }
  // The write is with the device when the file is cut and another file gets its blocks.
  bool freedBlocksAreWrittenByTheirOwnerAlone(uint64_t size, const char* mutant = nullptr) {
    startWith(mutant);
    const int held = volume->holdWrites();
    std::thread flusher([this] { EXPECT_TRUE(flush().isOk()); });
    volume->waitForHeld(1);
    const auto other = volume->newFile();
    const auto cut = [&] {
      volume->truncate(*file, size);
      writeTo(other, 0, pattern(2, 4 * 4096));
      EXPECT_TRUE(writeback->flush(other, FileOffset(0), kFileEnd).isOk());
    };
    cutUnderIo(flusher, cut, [&] { volume->fault->removeRule(held); });
    return volume->onDisk(*other) == pattern(2, 4 * 4096) && volume->violations().empty();
  }
  // The ioend of an append stands before it stores the size when the file is cut.
  bool sizeStaysCut(uint64_t size, const char* mutant = nullptr) {
    startWith(mutant);
    SyncPoints::instance().park("ioend.before_size");
    std::thread flusher([this] { EXPECT_TRUE(flush().isOk()); });
    EXPECT_TRUE(SyncPoints::instance().awaitParked("ioend.before_size"));
    cutUnderIo(
        flusher, [&] { volume->truncate(*file, size); },
        [] { SyncPoints::instance().release("ioend.before_size"); });
    writeback->dirtied(file);
    EXPECT_TRUE(flush().isOk());
    return file->storedSize == size && volume->onDisk(*file) == data_.substr(0, size);
  }

  const std::string data_ = pattern(1, 8 * 4096);
  std::optional<ScopedMutant> rule_;
  bool waited_ = false;
};

constexpr uint64_t kSizes[] = {0, 4096, 4096 + 100};

TEST_F(TruncateTest, NoBlockIsFreedUnderItsWrite) {
  for (const uint64_t size : kSizes) {
    EXPECT_TRUE(freedBlocksAreWrittenByTheirOwnerAlone(size)) << size;
    EXPECT_TRUE(waited_) << size;
    expectSound();
    EXPECT_FALSE(freedBlocksAreWrittenByTheirOwnerAlone(size, "iomap.truncate_no_wait")) << size;
  }
}

TEST_F(TruncateTest, AnAppendInFlightDoesNotBringTheOldSizeBack) {
  for (const uint64_t size : kSizes) {
    EXPECT_TRUE(sizeStaysCut(size)) << size;
    EXPECT_TRUE(waited_) << size;
    expectSound();
    EXPECT_FALSE(sizeStaysCut(size, "iomap.truncate_no_wait")) << size;
  }
}

}  // namespace
}  // namespace ourfs::test
