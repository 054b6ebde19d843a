// Work in child processes: what crashes or hangs there is found, named, and the rest goes on.
//
// RocksDB has threads, and a fork takes none of them along. So the process of a test that uses this
// opens no volume itself, not even to make one.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ourfs::images {

// The answer of `work`, done in a child. Empty if the child crashed.
std::string inChild(const std::function<std::string()>& work);

using Counts = std::array<uint64_t, 64>;  // what they mean is the caller's business

struct Outcome {
  Counts counts{};                    // of all children
  std::vector<std::string> failures;  // one for each id that failed, crashed or hung
  uint64_t assertions = 0;            // of RocksDB have ended a child, where that is allowed
};

struct Judgement {
  // Judges one id, in a child; empty or what is wrong. Counts go to all ids' sum.
  std::function<std::string(uint64_t id, Counts& counts)> look;
  // Seconds of processor time. An id that takes more hangs; so does one that has not ended after
  // twelve times as long, on however busy a machine.
  unsigned patience = 10;
  size_t stopAfter = 5;  // failures
  // Debian builds RocksDB with its assertions, and some contents of its files meet them.
  bool rocksMayAssert = false;
};

// Looks at ids [from, from + count), by as many children as there are processors.
Outcome judgeAll(uint64_t from, uint64_t count, const Judgement& judgement);

}  // namespace ourfs::images
