// Times single operations in a directory: microseconds each, the median of several rounds.
//   time_operations DIRECTORY [COUNT] [ROUNDS]
// Prints one line per operation: name, median, fastest, slowest round.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace {

std::map<std::string, std::vector<double>> results;
std::vector<std::string> order;

void timed(const std::string& name, int count, const std::function<void(int)>& operation) {
  auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < count; ++i) operation(i);
  std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - begin;
  if (!results.count(name)) order.push_back(name);
  results[name].push_back(spent.count() / count);
}

void must(bool ok, const char* what) {
  if (ok) return;
  std::perror(what);
  std::exit(1);
}

void round(const std::string& directory, int count) {
  auto name = [&](int i) { return directory + "/t" + std::to_string(i); };
  std::vector<char> block(4096, 'b');
  struct stat st;
  timed("create+close", count, [&](int i) {
    int fd = open(name(i).c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644);
    must(fd >= 0, "create");
    close(fd);
  });
  timed("open+close", count, [&](int i) {
    int fd = open(name(i).c_str(), O_RDONLY);
    must(fd >= 0, "open");
    close(fd);
  });
  timed("negative lookup", count,
        [&](int i) { must(stat((name(i) + "-none").c_str(), &st) != 0, "stat"); });
  int fd = open((directory + "/data").c_str(), O_CREAT | O_RDWR, 0644);
  must(fd >= 0, "open");
  timed("write 4 KiB", count,
        [&](int i) { must(pwrite(fd, block.data(), 4096, off_t{i} * 4096) == 4096, "write"); });
  timed("overwrite 4 KiB", count,
        [&](int i) { must(pwrite(fd, block.data(), 4096, off_t{i} * 4096) == 4096, "write"); });
  timed("overwrite 700 B", count,
        [&](int i) { must(pwrite(fd, block.data(), 700, off_t{i} * 4096 + 13) == 700, "write"); });
  timed("write 4 KiB + fdatasync", std::max(1, count / 20), [&](int i) {
    must(pwrite(fd, block.data(), 4096, off_t{i} * 4096) == 4096 && fdatasync(fd) == 0,
         "fdatasync");
  });
  timed("read 4 KiB (cached)", count,
        [&](int i) { must(pread(fd, block.data(), 4096, off_t{i} * 4096) == 4096, "read"); });
  close(fd);
  must(unlink((directory + "/data").c_str()) == 0, "unlink");
  timed("unlink", count, [&](int i) { must(unlink(name(i).c_str()) == 0, "unlink"); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: time_operations DIRECTORY [COUNT] [ROUNDS]\n");
    return 2;
  }
  std::string directory = std::string(argv[1]) + "/time-operations";
  int count = argc > 2 ? std::atoi(argv[2]) : 2000, rounds = argc > 3 ? std::atoi(argv[3]) : 5;
  must(mkdir(directory.c_str(), 0755) == 0, directory.c_str());
  for (int i = 0; i < rounds; ++i) round(directory, count);
  must(rmdir(directory.c_str()) == 0, "rmdir");
  for (const std::string& name : order) {
    std::vector<double>& times = results[name];
    std::sort(times.begin(), times.end());
    std::printf("%-26s %9.1f %9.1f %9.1f\n", name.c_str(), times[times.size() / 2], times.front(),
                times.back());
  }
  return 0;
}
