// git, and rsync: files that are written under another name and then get theirs.
#include <algorithm>
#include <memory>
#include <random>

#include "common/checksum.h"
#include "crash/crash_program.h"

namespace ourfs::crash {

namespace {

// Letters that nobody else has.
std::string randomText(std::mt19937_64& random, size_t length) {
  std::string text(length, '\0');
  std::ranges::generate(text, [&] { return static_cast<char>('a' + random() % 26); });
  return text;
}

// ---- git: an object is named by its bytes, and names others in lines of their own ----

constexpr char kMain[] = "refs/heads/main", kIndex[] = "index";

std::string objectName(std::string_view bytes) {
  const auto all = std::as_bytes(std::span(bytes));
  char name[17];
  std::snprintf(name, sizeof name, "%08x%08x", crc32c(all), crc32c(all, 0x5eed));
  return name;
}
std::string objectPath(const std::string& name) {
  return "objects/" + name.substr(0, 2) + "/" + name.substr(2);
}

// All that leads from one object to others must be whole.
std::string judgeObject(const CrashModel::Files& files, const std::string& name) {
  const auto found = files.find(objectPath(name));
  if (found == files.end()) return "git: object " + name + " is missing";
  const std::string& bytes = found->second;
  if (objectName(bytes) != name) return "git: object " + name + " is not whole";
  for (size_t at = 0, end; (end = bytes.find('\n', at)) != std::string::npos; at = end + 1) {
    if (bytes[at] != '>') continue;
    std::string wrong = judgeObject(files, bytes.substr(at + 1, end - at - 1));
    if (!wrong.empty()) return wrong;
  }
  return "";
}

// One of refs/heads/main and the index: a name, and the end of a line.
std::string judgeReference(const CrashModel::Files& files, const char* path) {
  const auto found = files.find(path);
  if (found == files.end()) return "";
  const std::string& text = found->second;
  if (text.size() != 17 || text.back() != '\n') return std::string("git: half of ") + path;
  return judgeObject(files, text.substr(0, 16));
}

Status writeObject(CrashActor& actor, const std::string& bytes, std::string& name) {
  name = objectName(bytes);
  const std::string path = objectPath(name), dir = path.substr(0, path.rfind('/'));
  if (actor.exists(path)) return Status::ok();
  if (!actor.exists(dir)) TRY(actor.makeDirectory(dir));
  const std::string temporary = dir + "/tmp_obj_" + name.substr(10);
  TRY(actor.createFile(temporary, 0444));
  TRY(actor.writeBytes(temporary, 0, bytes, Writing::Buffered));
  TRY(syncFor(actor, temporary, false, "program.unsynced_object"));
  TRY(actor.linkFile(temporary, path));
  return actor.unlinkFile(temporary, false);
}

Status replaceFile(CrashActor& actor, const std::string& path, const std::string& bytes) {
  TRY(actor.createFile(path + ".lock"));
  TRY(actor.writeBytes(path + ".lock", 0, bytes, Writing::Buffered));
  TRY(actor.syncFile(path + ".lock", false));
  return actor.renameNode(path + ".lock", path);
}

Status commitOnce(CrashActor& actor, std::mt19937_64& random, std::string& head) {
  std::string blob, tree, commit, listed = "tree " + randomText(random, 20) + "\n";
  for (uint64_t files = 1 + random() % 3; files > 0; --files) {
    TRY(writeObject(actor, "blob " + randomText(random, 20 + random() % 6000) + "\n", blob));
    listed += ">" + blob + "\n";
  }
  TRY(writeObject(actor, listed, tree));
  TRY(replaceFile(actor, kIndex, tree + "\n"));
  const std::string parent = head.empty() ? "" : ">" + head + "\n";
  TRY(writeObject(actor, "commit " + randomText(random, 100) + "\n>" + tree + "\n" + parent,
                  commit));
  const std::string line = randomText(random, 80) + " " + commit + "\n";
  TRY(actor.writeBytes("logs", actor.sizeOf("logs"), line, Writing::Buffered));
  TRY(replaceFile(actor, kMain, commit + "\n"));
  head = commit;
  return Status::ok();
}

// ---- rsync ----

// The versions of each file, each with when it began to get the file's name.
struct Versions {
  struct One {
    uint64_t begin;
    std::string bytes;
  };
  std::map<std::string, std::vector<One>> files;

  std::string judge(const CrashModel::Files& found, uint64_t point) const {
    for (const auto& [path, versions] : files) {
      const auto file = found.find(path);
      if (file == found.end()) continue;  // whether it may be missing is the tree's affair
      const bool whole = std::ranges::any_of(
          versions, [&](const One& one) { return one.begin < point && one.bytes == file->second; });
      if (!whole) return "rsync: " + path + " has none of its versions";
    }
    return "";
  }
};

Status copyOver(CrashActor& actor, const std::string& path, const std::string& bytes,
                uint64_t number, Versions& versions) {
  constexpr uint64_t kPiece = 32 * KiB;
  const std::string temporary = "to/." + path.substr(3) + "." + std::to_string(number);
  TRY(actor.createFile(temporary, 0600));
  for (uint64_t at = 0; at < bytes.size(); at += kPiece)
    TRY(actor.writeBytes(temporary, at, std::string_view(bytes).substr(at, kPiece),
                         Writing::Buffered));
  TRY(syncFor(actor, temporary, false, "program.unsynced_copy"));
  versions.files[path].push_back({actor.mark(), bytes});
  return actor.renameNode(temporary, path);
}

}  // namespace

Status runGitCommits(Stage& stage) {
  constexpr int kCommits = 8;
  std::mt19937_64 random(stage.seed);
  CrashActor& actor = stage.actor;
  for (const char* dir : {"objects", "refs", "refs/heads"}) TRY(actor.makeDirectory(dir));
  TRY(actor.createFile("logs"));
  stage.model.promises([](const CrashModel::Files& files, uint64_t) {
    const std::string wrong = judgeReference(files, kMain);
    return wrong.empty() ? judgeReference(files, kIndex) : wrong;
  });
  std::string head;
  for (int i = 0; i < kCommits; ++i) {
    TRY(commitOnce(actor, random, head));
    if (i % 3 == 2) TRY(actor.checkpoint());
  }
  return Status::ok();
}

Status runRsync(Stage& stage) {
  constexpr uint64_t kFiles = 6, kCopies = 30, kLongest = 80 * KiB;
  std::mt19937_64 random(stage.seed);
  const auto versions = std::make_shared<Versions>();
  stage.model.promises([versions](const CrashModel::Files& files, uint64_t point) {
    return versions->judge(files, point);
  });
  TRY(stage.actor.makeDirectory("to"));
  for (uint64_t i = 0; i < kCopies; ++i) {
    const std::string path = "to/f" + std::to_string(random() % kFiles);
    const std::string bytes =
        randomText(random, 1 + random() % (random() % 2 == 0 ? 5000 : kLongest));
    TRY(copyOver(stage.actor, path, bytes, i, *versions));
    if (i % 10 == 9) TRY(stage.actor.checkpoint());
  }
  return Status::ok();
}

}  // namespace ourfs::crash
