// World: one file over a stand-in volume, with everything that can happen to it, and a byte model.
//
// Operations that take the inode lock change the model under it, so the order of the model is that
// of the lock. A store through a mapping takes no lock: a scenario keeps it on pages that nobody
// else changes.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/thread.h"
#include "iomap/operations.h"
#include "random_seed.h"
#include "schedule/scheduler.h"
#include "writeback/test_volume.h"
#include "writeback/writeback.h"

namespace ourfs::test {

// A disk that takes its time: writes wait in a queue, from which a fiber carries them out. Reads
// are answered at once.
class SlowDisk : public BlockDevice {
 public:
  explicit SlowDisk(BlockDevice& inner);
  ~SlowDisk() override;
  void submit(IoRequest request) override;
  ByteCount size() const override { return inner_.size(); }
  uint32_t logicalSector() const override { return inner_.logicalSector(); }
  uint32_t physicalSector() const override { return inner_.physicalSector(); }
  bool readOnly() const override { return false; }
  std::string name() const override { return "slow disk"; }

 private:
  void serve();
  BlockDevice& inner_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<IoRequest> queue_;
  bool stop_ = false;
  Thread thread_;
};

class World {
 public:
  explicit World(uint32_t blockSize);
  ~World();

  void preallocate(uint64_t length);  // of an empty file
  void write(uint64_t pos, uint64_t length, uint64_t seed);
  void failingWrite(uint64_t pos, uint64_t length, uint64_t seed);  // after its first block
  void store(uint64_t page, uint64_t seed);  // a page of 4096 through a shared mapping
  void truncate(uint64_t size);
  void punch(uint64_t from, uint64_t to);  // whole blocks
  void zero(uint64_t pos, uint64_t length);
  void read(uint64_t pos,
            uint64_t length);  // each byte must be one that it was or became meanwhile
  void flush();
  // What a crash may leave on disk behind the end of the file, in its last block.
  void pollute();
  void reclaim();

  // Everything is quiet: what is wrong, "" for nothing.
  std::string verify();

 private:
  void change(uint64_t pos, const std::string& bytes);
  void wrong(const std::string& what);
  std::string difference(const char* where, const std::string& found) const;

  TestVolume volume_;
  const uint64_t freeAtFirst_;
  SlowDisk disk_;
  std::unique_ptr<Writeback> writeback_;
  std::shared_ptr<Mapping> file_;
  IoContext io_;
  SharedMutex inode_;
  std::string model_;
  struct Past {
    uint64_t pos;
    std::string bytes;
  };
  std::vector<Past> past_;  // what bytes have been, beside zero
  std::string wrong_;
};

}  // namespace ourfs::test
