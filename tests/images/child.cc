#include "images/child.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

namespace ourfs::images {

namespace {

constexpr size_t kLongestLine = 4000;

// What a child and its parent share. The parent reads it when the child has ended.
struct Desk {
  uint64_t next = 0;  // the id at hand; what is below it (in steps) is done
  uint64_t end = 0;
  Counts counts{};
  char failure[kLongestLine + 1] = {};
};

struct Unmap {
  void operator()(Desk* desk) const { munmap(desk, sizeof(Desk)); }
};
using DeskPtr = std::unique_ptr<Desk, Unmap>;

DeskPtr newDesk() {
  void* memory =
      mmap(nullptr, sizeof(Desk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return DeskPtr(std::construct_at(static_cast<Desk*>(memory)));
}

[[noreturn]] void endChild() {
  std::fflush(nullptr);
  std::exit(0);  // the leak detector looks on the way
}

constexpr unsigned kStandstill = 12;  // times the patience

// The signals of both timers end the child.
void setTimers(unsigned patience) {
  alarm(patience * kStandstill);
  const itimerval processor{{0, 0}, {patience, 0}};
  setitimer(ITIMER_PROF, &processor, nullptr);
}

std::string howItEnded(int status) {
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  if (signal == SIGALRM || signal == SIGPROF) return "it hung";
  if (WIFSIGNALED(status)) return "it was killed by signal " + std::to_string(WTERMSIG(status));
  return "it ended with " + std::to_string(WEXITSTATUS(status));
}

// Its standard error is looked at: an assertion of our own is a failure.
bool metAnAssertionOfRocks(int status, int complaints) {
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) return false;
  std::string text(kLongestLine, '\0');
  const ssize_t n = pread(complaints, text.data(), text.size(), 0);
  text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  return text.find("Assertion") != text.npos && text.find("rocksdb::") != text.npos;
}

bool endedWell(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

// One child's share: every step-th id. Stops behind a failure, and says what it was. `complaints`,
// if it is a file, becomes its standard error.
pid_t startChild(Desk& desk, uint64_t step, const Judgement& judgement, int complaints) {
  std::fflush(nullptr);  // or the child would say it again
  if (complaints >= 0 && (ftruncate(complaints, 0) != 0 || lseek(complaints, 0, SEEK_SET) != 0)) {
    std::abort();
  }
  const pid_t child = fork();
  if (child != 0) return child;
  if (complaints >= 0) {
    dup2(complaints, STDERR_FILENO);
    const rlimit noCoreFile{0, 0};
    setrlimit(RLIMIT_CORE, &noCoreFile);
  }
  for (; desk.next < desk.end; desk.next += step) {
    setTimers(judgement.patience);
    const std::string wrong = judgement.look(desk.next, desk.counts);
    setTimers(0);
    if (wrong.empty()) continue;
    std::strncpy(desk.failure, wrong.c_str(), kLongestLine);
    break;
  }
  endChild();
}

}  // namespace

std::string inChild(const std::function<std::string()>& work) {
  const int file = memfd_create("answer", 0);
  if (file < 0) std::abort();
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const std::string answer = work();
    if (write(file, answer.data(), answer.size()) != static_cast<ssize_t>(answer.size())) {
      std::abort();
    }
    endChild();
  }
  int status = 0;
  std::string answer;
  if (waitpid(child, &status, 0) == child && endedWell(status)) {
    answer.resize(static_cast<size_t>(lseek(file, 0, SEEK_END)));
    if (pread(file, answer.data(), answer.size(), 0) != static_cast<ssize_t>(answer.size())) {
      answer.clear();
    }
  }
  close(file);
  return answer;
}

Outcome judgeAll(uint64_t from, uint64_t count, const Judgement& judgement) {
  Outcome outcome;
  const uint64_t step = std::max(1u, std::min(4u, std::thread::hardware_concurrency()));
  struct Worker {
    DeskPtr desk = newDesk();
    pid_t pid = -1;
    int complaints = -1;
  };
  std::vector<Worker> workers(step);
  size_t running = 0;
  const auto start = [&](Worker& worker) {
    worker.pid = worker.desk->next < worker.desk->end
                     ? startChild(*worker.desk, step, judgement, worker.complaints)
                     : -1;
    if (worker.pid > 0) ++running;
  };
  for (uint64_t w = 0; w < step; ++w) {
    workers[w].desk->next = from + w;
    workers[w].desk->end = from + count;
    if (judgement.rocksMayAssert) workers[w].complaints = memfd_create("complaints", 0);
    start(workers[w]);
  }
  while (running > 0) {
    int status = 0;
    const pid_t ended = waitpid(-1, &status, 0);
    const auto worker = std::ranges::find(workers, ended, &Worker::pid);
    if (worker == workers.end()) continue;
    --running;
    Desk& desk = *worker->desk;
    std::string wrong = desk.failure;
    if (!endedWell(status)) wrong = howItEnded(status);
    desk.failure[0] = '\0';
    if (wrong.empty()) continue;  // its share is done
    if (judgement.rocksMayAssert && metAnAssertionOfRocks(status, worker->complaints)) {
      ++outcome.assertions;
    } else {
      outcome.failures.push_back("id " + std::to_string(desk.next) + ": " + wrong);
    }
    desk.next += step;
    if (outcome.failures.size() < judgement.stopAfter) start(*worker);
  }
  for (const Worker& worker : workers) {
    if (worker.complaints >= 0) close(worker.complaints);
    for (size_t i = 0; i < outcome.counts.size(); ++i) outcome.counts[i] += worker.desk->counts[i];
  }
  return outcome;
}

}  // namespace ourfs::images
