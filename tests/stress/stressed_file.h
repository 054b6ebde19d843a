// One file of ourfs-stress, its copy in memory, and who holds which bytes of it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "random_seed.h"
#include "stress/operation.h"

namespace ourfs::stress {

// An operation failed: one line, exit code 2.
[[noreturn]] void die(const std::string& what);

// Memory that direct I/O takes.
using Buffer = std::unique_ptr<char, decltype(&std::free)>;
Buffer makeBuffer(uint64_t size);

// Each thread: begin(), apply(), end(). Two operations that mayNotMeet() are never between begin()
// and end() together; so each byte of the copy has one owner, or only readers.
class StressedFile {
 public:
  struct Plan {
    uint64_t seed = 0;        // for reports
    uint64_t size = 6 << 20;  // at most; whole units of kApart
    std::vector<Kind> kinds;  // each as often as its weight
  };
  StressedFile(std::string path, const Plan& plan);  // makes the file anew
  ~StressedFile();
  StressedFile(const StressedFile&) = delete;
  StressedFile& operator=(const StressedFile&) = delete;

  // Chooses an operation that can run beside those that do, and holds its bytes until end().
  // False, after a wait, if none was found: try another file.
  bool begin(test::Random& random, unsigned thread, Operation& operation);
  // Whether the bytes that it saw were right. `bytes`: kLongest and two units of kApart.
  bool apply(const Operation& operation, char* bytes);
  void end(const Operation& operation);

  // While nobody holds anything. `bytes`: for the whole file. `when`: for the report.
  bool checkWhole(char* bytes, const std::string& when);
  void writeExpected(const std::string& path) const;

 private:
  Operation choose(test::Random& random) const;
  uint64_t place(test::Random& random, uint64_t length) const;
  uint64_t newEnd(test::Random& random, uint64_t length) const;

  void open(const std::string& path, int flags);
  void must(bool done, const char* what) const;
  const char* fresh(const Operation& operation, char* bytes);
  void zero(uint64_t from, uint64_t to);
  void changeSpace(const Operation& operation, int mode) const;
  void cleanEnd(uint64_t size) const;
  bool throughMapping(const Operation& operation, char* bytes);
  void replace(const Operation& operation);

  bool check(int fd, const Operation& operation, char* bytes, const std::string& how);
  bool compare(const Operation& operation, const char* bytes, uint64_t length,
               const std::string& how);
  void tellLast(uint64_t from, uint64_t to, char found);

  const std::string path_;
  const uint64_t seed_;
  const std::vector<Kind> kinds_;
  uint64_t block_ = kPage;
  int file_ = -1, direct_ = -1;  // Replace, which runs alone, changes them
  std::vector<char> good_;       // the file as it should be; zeros behind its end

  std::mutex mutex_;  // guards what follows
  std::condition_variable released_;
  std::vector<const Operation*> held_;
  std::vector<Operation> log_;  // a ring of the last ones
  uint64_t begun_ = 0;          // the next in the ring
  uint64_t size_ = 0;           // who may change it holds all bytes from the lower end on
};

}  // namespace ourfs::stress
