#include "crash/crash_sequence.h"

#include <linux/falloc.h>

#include <algorithm>
#include <array>
#include <random>

#include "crash/crash_exploration.h"

namespace ourfs::crash {

namespace {

constexpr uint64_t kSizeOfA = 20000, kSizeOfB = 6000, kSizeOfX = 5000;
constexpr uint64_t kBatch = 12;  // sequences in one mount

// What a step finds. An earlier step may have moved `a` away, or replaced `b` by it.
struct Scene {
  CrashActor& actor;
  std::string dir;
  std::string a, b;
  std::string fresh;  // a name that nobody has
  Writing how = Writing::Buffered;

  Status write(uint64_t at, uint64_t length) { return actor.writeFile(a, at, length, how); }
  uint64_t size() { return actor.sizeOf(a); }
  Status rename(const std::string& to) {
    TRY(actor.renameNode(a, to));
    a = to;
    return Status::ok();
  }
};

struct Operation {
  const char* name;
  bool writes;  // so it can have O_SYNC
  Status (*run)(Scene&);
};

Status unlinkB(Scene& s) {
  const std::string path = s.actor.exists(s.b) && s.b != s.a ? s.b : s.dir + "/s/x";
  if (!s.actor.exists(path) || path == s.a) return Status::ok();
  return s.actor.unlinkFile(path, true);
}

Status writeAs(Scene& s, Writing how, uint64_t at, uint64_t length) {
  return s.actor.writeFile(s.a, at, length, how);
}

Status writeDirect(Scene& s) {
  const Writing how = s.how == Writing::Synchronous       ? Writing::DirectSynchronous
                      : s.how == Writing::DataSynchronous ? Writing::DirectDataSynchronous
                                                          : Writing::Direct;
  return writeAs(s, how, 8192, 8192);
}

// Not aligned to blocks unless it says so.
constexpr std::array kOperations{
    Operation{"create", false, [](Scene& s) { return s.actor.createFile(s.fresh); }},
    Operation{"mkdir", false, [](Scene& s) { return s.actor.makeDirectory(s.fresh); }},
    Operation{"write-aligned", true, [](Scene& s) { return s.write(4096, 8192); }},
    Operation{"write-unaligned", true, [](Scene& s) { return s.write(5001, 3003); }},
    Operation{"append", true, [](Scene& s) { return s.write(s.size(), 5000); }},
    Operation{"overwrite", true, [](Scene& s) { return s.write(0, s.size()); }},
    Operation{"store", false, [](Scene& s) { return writeAs(s, Writing::Stored, 100, 5000); }},
    Operation{"truncate-down", false, [](Scene& s) { return s.actor.truncateFile(s.a, 9001); }},
    Operation{"truncate-up", false, [](Scene& s) { return s.actor.truncateFile(s.a, 30011); }},
    Operation{"punch", false,
              [](Scene& s) {
                return s.actor.allocate(s.a, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 3000,
                                        10000);
              }},
    Operation{"zero-range", false,
              [](Scene& s) { return s.actor.allocate(s.a, FALLOC_FL_ZERO_RANGE, 6000, 17000); }},
    Operation{"fallocate", false, [](Scene& s) { return s.actor.allocate(s.a, 0, 16384, 32768); }},
    Operation{"link", false, [](Scene& s) { return s.actor.linkFile(s.a, s.fresh); }},
    Operation{"unlink", false, unlinkB},
    Operation{"rename", false, [](Scene& s) { return s.rename(s.fresh); }},
    Operation{"rename-across", false,
              [](Scene& s) { return s.rename(s.dir + "/s" + s.fresh.substr(s.fresh.rfind('/'))); }},
    Operation{"rename-over", false,
              [](Scene& s) { return s.rename(s.a == s.b ? s.dir + "/s/x" : s.b); }},
    Operation{"symlink", false, [](Scene& s) { return s.actor.makeSymlink(s.fresh, "to/where"); }},
    Operation{"setxattr", false,
              [](Scene& s) {
                return s.actor.setAttribute(s.a, "user." + s.fresh.substr(s.fresh.rfind('/') + 1),
                                            "value");
              }},
    Operation{"direct", true, writeDirect},
};

const char* nameOf(Persistence persistence) {
  static const char* const names[kPersistences] = {
      "", "+fsync", "+fdatasync", "+sync", "+dirsync", "+subdirsync", "+O_SYNC", "+O_DSYNC"};
  return names[static_cast<size_t>(persistence)];
}

bool fits(const SequenceStep& step) {
  return step.after < Persistence::Synchronous || kOperations[step.operation].writes;
}

std::vector<SequenceStep> allSteps() {
  std::vector<SequenceStep> steps;
  for (size_t operation = 0; operation < kOperations.size(); ++operation)
    for (size_t p = 0; p < kPersistences; ++p)
      if (SequenceStep step{operation, static_cast<Persistence>(p)}; fits(step))
        steps.push_back(step);
  return steps;
}

Status persist(Scene& s, Persistence how) {
  switch (how) {
    case Persistence::Fsync:
      return s.actor.syncFile(s.a, false);
    case Persistence::Fdatasync:
      return s.actor.syncFile(s.a, true);
    case Persistence::SyncAll:
      return s.actor.syncAll();
    case Persistence::DirectorySync:
      return s.actor.syncDirectory(s.dir);
    case Persistence::SubdirectorySync:
      return s.actor.syncDirectory(s.dir + "/s");
    case Persistence::None:
    case Persistence::Synchronous:
    case Persistence::DataSynchronous:
      break;
  }
  return Status::ok();
}

History recordBatch(const ExplorerOptions& options, const MemoryDevice& base,
                    std::span<const Sequence> batch) {
  return recordHistory(
      options, base, [&](Filesystem& filesystem, RecordDevice& device, History& history) -> Status {
        CrashActor actor(filesystem, device, history.model);
        for (size_t i = 0; i < batch.size(); ++i) {
          const std::string dir = "q" + std::to_string(i);
          TRY(prepareSequence(actor, dir));
          History::Window window{device.mark(), 0, textOf(batch[i])};
          TRY(runSequence(actor, dir, batch[i]));
          // What was left open reaches the disk, and a crash may come on the way.
          TRY(actor.syncAll());
          if (i % 4 == 3) TRY(actor.checkpoint());
          window.to = device.mark();
          history.windows.push_back(window);
        }
        return Status::ok();
      });
}

}  // namespace

size_t operationCount() { return kOperations.size(); }

std::string textOf(const Sequence& sequence) {
  std::string text;
  for (const SequenceStep& step : sequence)
    text += (text.empty() ? "" : ", ") + std::string(kOperations[step.operation].name) +
            nameOf(step.after);
  return "(" + text + ")";
}

std::vector<Sequence> shortSequences() {
  std::vector<Sequence> sequences;
  for (const SequenceStep& last : allSteps()) {
    sequences.push_back({last});
    for (size_t first = 0; first < kOperations.size(); ++first)
      sequences.push_back({{first, Persistence::None}, last});
  }
  return sequences;
}

std::vector<Sequence> longSequences() {
  std::vector<Sequence> sequences;
  for (const SequenceStep& first : allSteps())
    for (const SequenceStep& last : allSteps()) sequences.push_back({first, last});
  return sequences;
}

std::vector<Sequence> sampledSequences(uint64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  const std::vector<SequenceStep> steps = allSteps();
  std::vector<Sequence> sequences(count);
  for (Sequence& sequence : sequences)
    for (int i = 0; i < 3; ++i) sequence.push_back(steps[random() % steps.size()]);
  return sequences;
}

Status prepareSequence(CrashActor& actor, const std::string& dir) {
  TRY(actor.makeDirectory(dir));
  TRY(actor.makeDirectory(dir + "/s"));
  const std::pair<const char*, uint64_t> files[] = {
      {"/a", kSizeOfA}, {"/b", kSizeOfB}, {"/s/x", kSizeOfX}};
  for (const auto& [name, size] : files) {
    TRY(actor.createFile(dir + name));
    TRY(actor.writeFile(dir + name, 0, size, Writing::Buffered));
  }
  return actor.syncAll();
}

Status runSequence(CrashActor& actor, const std::string& dir, const Sequence& sequence) {
  Scene scene{actor, dir, dir + "/a", dir + "/b", ""};
  for (size_t i = 0; i < sequence.size(); ++i) {
    const SequenceStep& step = sequence[i];
    scene.fresh = dir + "/n" + std::to_string(i);
    scene.how = step.after == Persistence::Synchronous       ? Writing::Synchronous
                : step.after == Persistence::DataSynchronous ? Writing::DataSynchronous
                                                             : Writing::Buffered;
    TRY(kOperations[step.operation].run(scene));
    TRY(persist(scene, step.after));
  }
  return Status::ok();
}

// In an order that has nothing to do with what they are (and is always the same, for the names of
// states): else two mounts whose sequences differ in their last step's persistence only would show
// the same contents all along.
ExplorerResult exploreSequences(const ExplorerOptions& options, std::vector<Sequence> sequences) {
  std::ranges::shuffle(sequences, std::mt19937_64(sequences.size()));
  HistorySource source;
  source.prefix = "s";
  source.first = 0;
  source.count = (sequences.size() + kBatch - 1) / kBatch;
  source.exhaustive = true;
  source.statesPerWindow = static_cast<uint64_t>(options.statesPerWorkload);
  source.record = [&](const MemoryDevice& base, uint64_t batch) {
    const size_t from = std::min<size_t>(batch * kBatch, sequences.size());
    const size_t count = std::min<size_t>(kBatch, sequences.size() - from);
    return recordBatch(options, base, std::span<const Sequence>(sequences).subspan(from, count));
  };
  return exploreHistories(options, source);
}

}  // namespace ourfs::crash
