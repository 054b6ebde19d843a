#include "images/tree_text.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "common/codec.h"
#include "fs/extents.h"

namespace ourfs::images {

namespace {

constexpr uint64_t kMostBytes = 1 * MiB;
constexpr size_t kShortestRun = 6;
constexpr size_t kMostEntries = 100000;  // of a directory that does not end

std::string printable(std::string_view name) {
  std::string out;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 0x20 && byte < 0x7f && byte != '\\') {
      out += c;
    } else {
      out += fmt::format("\\{:02x}", byte);
    }
  }
  return out;
}

// Hexadecimal; a byte that is repeated is written once: 61*4096.
std::string hex(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    size_t end = i;
    while (end < bytes.size() && bytes[end] == bytes[i]) ++end;
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (end - i >= kShortestRun) {
      out += fmt::format(" {:02x}*{} ", byte, end - i);
      i = end;
    } else {
      out += fmt::format("{:02x}", byte);
      ++i;
    }
  }
  return out;
}

std::string timeText(const Timestamp& t) { return fmt::format("{}.{:09}", t.sec, t.nsec); }

class Walk {
 public:
  explicit Walk(Filesystem& filesystem) : fs_(filesystem) {}

  TreeText run() {
    visit("/", InodeNo(1));
    while (!waiting_.empty()) {
      const auto [path, ino] = waiting_.back();
      waiting_.pop_back();
      list(path, ino);
    }
    return std::move(tree_);
  }

 private:
  struct Entry {
    std::string name;
    InodeNo ino;
    uint8_t type = 0;
    uint64_t cookie = 0;
  };

  bool failed(const std::string& path, const char* what, const Status& status) {
    if (status.isOk()) return false;
    tree_.errors.push_back(fmt::format("{}: {}: {}", printable(path), what, status.message()));
    return true;
  }

  void line(const std::string& text) { tree_.text += "  " + text + "\n"; }

  void visit(const std::string& path, InodeNo ino) {
    tree_.text += fmt::format("{} inode {}\n", printable(path), ino.v);
    if (!seen_.insert(ino.v).second) return;
    const auto got = fs_.getattr(ino);
    if (failed(path, "attributes", got.status())) return;
    const InodeRecord& r = got->record;
    line(fmt::format("mode {:06o} owner {}:{} links {} generation {} flags {} project {} rdev {}",
                     r.mode, r.uid, r.gid, r.nlink, r.generation, r.flags, r.projectId, r.rdev));
    line(fmt::format("size {} blocks {} entries {}", r.size, r.blocks, r.entries));
    line(fmt::format("times {} {} {} {}", timeText(r.atime), timeText(r.mtime), timeText(r.ctime),
                     timeText(r.btime)));
    attributes(path, ino);
    if (S_ISLNK(r.mode)) {
      const auto target = fs_.readlink(ino);
      if (!failed(path, "target", target.status())) line("target " + printable(*target));
    }
    if (S_ISREG(r.mode)) contents(path, ino, r.size);
    if (S_ISDIR(r.mode)) waiting_.emplace_back(path, ino);
  }

  void attributes(const std::string& path, InodeNo ino) {
    const auto names = fs_.listxattr(ino);
    if (failed(path, "names of attributes", names.status())) return;
    std::set<std::string> sorted;
    for (std::string_view rest = *names; !rest.empty();) {
      const size_t end = std::min(rest.find('\0'), rest.size());
      sorted.emplace(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    for (const std::string& name : sorted) {
      const auto value = fs_.getxattr(ino, name);
      if (!failed(path, "attribute", value.status())) {
        line(fmt::format("attribute {} = {}", printable(name), hex(*value)));
      }
    }
  }

  void contents(const std::string& path, InodeNo ino, uint64_t size) {
    const auto extents = extentsOf(fs_, ino);
    if (!failed(path, "extents", extents.status())) {
      for (const Extent& e : *extents) {
        line(fmt::format("extent {}+{} at {} {}", e.offset.v, e.length.v, e.address.v,
                         e.state == ExtentState::Mapped ? "mapped" : "unwritten"));
      }
    }
    auto file = fs_.open(ino, O_RDONLY | O_NOATIME);
    if (failed(path, "open", file.status())) return;
    std::string bytes(std::min(size, kMostBytes), '\0');
    const auto got = fs_.read(**file, FileOffset(0), std::as_writable_bytes(std::span(bytes)));
    fs_.release(std::move(*file));
    if (failed(path, "read", got.status())) return;
    bytes.resize(got->v);
    line(fmt::format("bytes {}: {}", bytes.size(), hex(bytes)));
  }

  void list(const std::string& path, InodeNo ino) {
    auto directory = fs_.openDirectory(ino);
    if (failed(path, "open", directory.status())) return;
    std::vector<Entry> entries;
    const Status read = fs_.readDirectory(**directory, 0, false, [&](const DirectoryEntry& e) {
      entries.push_back({std::string(e.name), e.ino, e.type, e.nextCookie});
      return entries.size() < kMostEntries;
    });
    fs_.release(std::move(*directory));
    (void)failed(path, "names", read);
    std::ranges::sort(entries, {}, &Entry::name);
    for (const Entry& e : entries) {
      if (e.name == "." || e.name == "..") continue;
      const std::string child = path + (path == "/" ? "" : "/") + e.name;
      const auto found = fs_.lookup(ino, e.name);
      if (!failed(child, "lookup", found.status())) {
        if (found->ino != e.ino) tree_.errors.push_back(child + ": lookup and listing differ");
        fs_.forget(found->ino, 1);
      }
      tree_.text += fmt::format("type {} next {} ", e.type, e.cookie);
      visit(child, e.ino);
    }
  }

  Filesystem& fs_;
  TreeText tree_;
  std::set<uint64_t> seen_;
  std::vector<std::pair<std::string, InodeNo>> waiting_;
};

}  // namespace

TreeText readTree(Filesystem& filesystem) { return Walk(filesystem).run(); }

}  // namespace ourfs::images
