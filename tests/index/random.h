// Random numbers for tests: the seed is printed when a test fails, and OURFS_SEED gives it back.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

namespace ourfs::test {

class Random {
 public:
  Random() : seed_(pick()), engine_(seed_) {}
  explicit Random(uint64_t seed) : seed_(seed), engine_(seed) {}
  uint64_t seed() const { return seed_; }
  std::string trace() const { return "OURFS_SEED=" + std::to_string(seed_); }
  uint64_t below(uint64_t n) { return n == 0 ? 0 : engine_() % n; }
  bool oneIn(uint64_t n) { return below(n) == 0; }
  std::string bytes(size_t n) {
    std::string s(n, '\0');
    for (size_t at = 0; at < n; at += sizeof(uint64_t)) {
      const uint64_t eight = engine_();
      std::memcpy(s.data() + at, &eight, std::min(sizeof eight, n - at));
    }
    return s;
  }

 private:
  static uint64_t pick() {
    const char* given = std::getenv("OURFS_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  }
  uint64_t seed_;
  std::mt19937_64 engine_;
};

}  // namespace ourfs::test
