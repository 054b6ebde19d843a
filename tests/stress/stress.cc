// ourfs-stress: writers of all kinds at once on the same files, against a copy in memory.
//
//   ourfs-stress [--seed N] [--seconds S] [--threads T] [--files F] [--size BYTES]
//                [--without KIND,…] [--expect OTHER_DIR] DIR
//
// The copy is exact although everything happens at once. An operation holds the bytes that it
// needs: those that it changes for itself, those that it compares together with others that
// compare. Ranges begin and end at any byte, so that many threads are in one block and one folio,
// each with bytes of its own; what one does must never show in the bytes of another. Who may change
// the size holds everything from the end on, or from the new end.
//
// Every few seconds, and at the end, all threads stop and the files are compared whole: as the
// kernel's page cache shows them, then past it. With --expect the copies are written into
// OTHER_DIR, to be compared once more after an unmount.
//
// Exit code 1: a file is not what it should be; seed, file and range are printed, with the last
// operations there. 2: wrong use, or an operation failed. The seed repeats what is tried, not how
// the threads interleave.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "stress/stressed_file.h"

namespace ourfs::stress {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kRound = std::chrono::seconds(2);  // from one look at the whole files to the next

struct Options {
  StressedFile::Plan plan;
  uint64_t seconds = 10, threads = 6, files = 4;
  std::string dir, expect;
};

class Stress {
 public:
  explicit Stress(const Options& options) : options_(options) {
    for (uint64_t i = 0; i < options.files; ++i)
      files_.push_back(std::make_unique<StressedFile>(options.dir + "/" + nameOf(i), options.plan));
  }

  // Whether the files were right all the time.
  bool run() {
    const Clock::time_point end = begin_ + std::chrono::seconds(options_.seconds);
    const Buffer bytes = makeBuffer(options_.plan.size);
    for (uint64_t round = 0; Clock::now() < end && !wrong_; ++round) {
      const Clock::time_point until = std::min(end, Clock::now() + kRound);
      std::vector<std::jthread> threads;
      for (uint64_t t = 0; t < options_.threads; ++t)
        threads.emplace_back([=, this] { work(round, t, until); });
      threads.clear();  // joins them
      const std::string when = "when all had stopped after " + std::to_string(seconds()) + " s";
      for (const auto& file : files_)
        if (!wrong_ && !file->checkWhole(bytes.get(), when)) wrong_ = true;
    }
    tellCounts();
    for (uint64_t i = 0; i < files_.size() && !wrong_ && !options_.expect.empty(); ++i)
      files_[i]->writeExpected(options_.expect + "/" + nameOf(i));
    return !wrong_;
  }

 private:
  static std::string nameOf(uint64_t i) { return "file" + std::to_string(i); }
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

  void work(uint64_t round, uint64_t thread, Clock::time_point until) {
    test::Random random(options_.plan.seed * 1000003 + round * options_.threads + thread);
    const Buffer bytes = makeBuffer(kLongest + 2 * kApart);
    while (!wrong_ && Clock::now() < until) {
      StressedFile& file = *files_[random.below(files_.size())];
      Operation operation;
      if (!file.begin(random, static_cast<unsigned>(thread), operation)) continue;
      if (!file.apply(operation, bytes.get())) wrong_ = true;
      file.end(operation);
      ++counts_[static_cast<size_t>(operation.kind)];
    }
  }

  void tellCounts() const {
    uint64_t all = 0;
    for (const auto& count : counts_) all += count;
    std::printf("stress: %lu operations in %.1f s, %.0f/s:", all, seconds(),
                static_cast<double>(all) / seconds());
    for (const KindInfo& k : kKinds)
      std::printf(" %s %lu", k.name, counts_[static_cast<size_t>(k.kind)].load());
    std::printf("\n");
  }

  const Options options_;
  const Clock::time_point begin_ = Clock::now();
  std::vector<std::unique_ptr<StressedFile>> files_;
  std::array<std::atomic<uint64_t>, kKinds.size()> counts_{};
  std::atomic<bool> wrong_ = false;
};

}  // namespace
}  // namespace ourfs::stress

int main(int argc, char** argv) {
  using namespace ourfs::stress;
  Options o;
  o.plan.seed = std::random_device()();
  CLI::App app("Writers of all kinds at once on the same files, against a copy in memory.",
               "ourfs-stress");
  app.add_option("DIR", o.dir, "where the files are made")->required();
  app.add_option("--seed", o.plan.seed, "of what the threads try");
  app.add_option("--seconds", o.seconds)->capture_default_str();
  app.add_option("--threads", o.threads)->check(CLI::Range(1, 64))->capture_default_str();
  app.add_option("--files", o.files)->check(CLI::Range(1, 64))->capture_default_str();
  app.add_option("--size", o.plan.size, "of each file at most, in bytes; down to whole 64 KiB")
      ->check(CLI::Range(uint64_t{1} << 20, uint64_t{1} << 30))
      ->capture_default_str();
  std::vector<std::string> without;
  app.add_option("--without", without, "kinds of operations, as they are counted at the end")
      ->delimiter(',');
  app.add_option("--expect", o.expect, "a directory for what the files hold at the end");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  for (const KindInfo& k : kKinds)
    if (std::find(without.begin(), without.end(), k.name) == without.end())
      o.plan.kinds.insert(o.plan.kinds.end(), k.weight, k.kind);
  o.plan.size -= o.plan.size % kApart;
  std::printf("stress: seed %lu, %lu s; the seed repeats what is tried, not how it interleaves\n",
              o.plan.seed, o.seconds);
  std::fflush(stdout);
  return Stress(o).run() ? 0 : 1;
}
