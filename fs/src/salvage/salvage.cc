#include "fs/salvage.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "common/aligned_buffer.h"
#include "quoted.h"
#include "salvage/salvage_source.h"
#include "salvage/salvage_target.h"
#include "volume_settings.h"

namespace ourfs {

namespace {

constexpr uint64_t kPieceBytes = 1 * MiB;
constexpr unsigned kDeepest =
    200;  // each level holds a file descriptor; what is deeper is lost+found

class Salvager {
 public:
  Salvager(SalvageSource& source, SalvageTarget& target, const SalvageOptions& options,
           SalvageReport& report)
      : source_(source), target_(target), options_(options), report_(report) {}

  Status run() {
    all_ = source_.allInodes();
    TRY_ASSIGN(TargetDirectory root, target_.openRoot(options_.directory));
    copyRoot(root);
    TRY(copyLost(root));
    const auto record = rootRecord();
    target_.setAttributes(root, "", record, source_.attributes(kRootInode));
    return Status::ok();
  }

 private:
  using TellOthers = SalvageSource::TellOthers;
  void problem(const std::string& line) {
    ++report_.problemCount;
    if (options_.report) options_.report(line);
  }

  void step() {
    ++done_;
    if (options_.progress && (done_ % 64 == 0 || done_ >= all_.size()))
      options_.progress({3, "files", std::min<uint64_t>(done_, all_.size()), all_.size()});
  }

  InodeRecord rootRecord() const {
    std::string why;
    return source_.inode(kRootInode, why).value_or(InodeRecord{});
  }

  void copyRoot(const TargetDirectory& root) {
    std::string why;
    (void)source_.inode(kRootInode, why);
    if (!why.empty()) problem("the root directory: " + why);
    copied_.insert(kRootInode.v);
    step();
    copyNames(kRootInode, root, 0);
  }

  void copyNames(InodeNo dir, const TargetDirectory& to, unsigned depth) {
    for (const DirentRecord& name : source_.names(dir, TellOthers::Yes))
      copyName(to, name.name, InodeNo(name.ino), depth);
  }

  // Directories that nobody names first, since they lead to others; then what is left.
  Status copyLost(const TargetDirectory& root) {
    std::unordered_set<uint64_t> named;
    for (uint64_t dir : all_) {
      for (const DirentRecord& name : source_.names(InodeNo(dir), TellOthers::No))
        named.insert(name.ino);
    }
    for (const bool alsoNamed : {false, true}) {
      for (uint64_t ino : all_) {
        if (copied_.contains(ino) || (!alsoNamed && named.contains(ino))) continue;
        std::string why;
        const auto record = source_.inode(InodeNo(ino), why);
        if (!record || record->nlink == 0) continue;  // an unlinked file
        TRY(openLostAndFound(root));
        problem("inode " + std::to_string(ino) + ": no name leads to it: see " +
                quoted(lost_->path + "#" + std::to_string(ino)));
        copyName(*lost_, "#" + std::to_string(ino), InodeNo(ino), 1);
      }
    }
    return Status::ok();
  }

  Status openLostAndFound(const TargetDirectory& root) {
    if (lost_) return Status::ok();
    TRY_ASSIGN(const std::string name, target_.freeName(root, "lost+found"));
    TRY_ASSIGN(TargetDirectory made, target_.makeDirectory(root, name));
    lost_ = std::make_unique<TargetDirectory>(std::move(made));
    return Status::ok();
  }

  void copyName(const TargetDirectory& to, const std::string& wanted, InodeNo ino, unsigned depth) {
    const std::string where = quoted(to.path + wanted);
    std::string why;
    const auto record = source_.inode(ino, why);
    if (!record) return problem(where + ": " + why);
    if (!why.empty()) problem(where + ": " + why);
    if (depth > kDeepest) return;  // copyLost() will find it
    const auto name = target_.freeName(to, wanted);
    const Status done = name ? copyInode(to, *name, ino, *record, depth) : name.status();
    if (!done) problem(where + ": not copied: " + done.message());
  }

  Status copyInode(const TargetDirectory& to, const std::string& name, InodeNo ino,
                   const InodeRecord& record, unsigned depth) {
    if (S_ISDIR(record.mode)) return copyDirectory(to, name, ino, record, depth);
    if (const auto first = paths_.find(ino.v); first != paths_.end()) {
      TRY(target_.link(first->second, to, name));
      ++report_.links;
      return Status::ok();
    }
    copied_.insert(ino.v);
    step();
    if (S_ISREG(record.mode)) {
      TRY_ASSIGN(const OwnedFd file, target_.makeFile(to, name));
      copyData(file.get(), to.path + name, ino, record);
      ++report_.files;
    } else {
      TRY(target_.makeOther(to, name, record));
      ++(S_ISLNK(record.mode) ? report_.symlinks : report_.others);
    }
    if (record.nlink > 1) paths_[ino.v] = to.path + name;
    target_.setAttributes(to, name, record, source_.attributes(ino));
    return Status::ok();
  }

  Status copyDirectory(const TargetDirectory& to, const std::string& name, InodeNo ino,
                       const InodeRecord& record, unsigned depth) {
    if (!copied_.insert(ino.v).second) return Status::corrupt("it is another name of a directory");
    step();
    TRY_ASSIGN(const TargetDirectory made, target_.makeDirectory(to, name));
    ++report_.directories;
    copyNames(ino, made, depth + 1);
    target_.setAttributes(to, name, record, source_.attributes(ino));
    return Status::ok();
  }

  void copyData(int file, const std::string& path, InodeNo ino, const InodeRecord& record) {
    if (::ftruncate(file, static_cast<off_t>(std::min<uint64_t>(record.size, INT64_MAX))) != 0)
      problem(quoted(path) + ": its size cannot be kept: " + Status::error(errno).message());
    for (const SalvagedExtent& extent : source_.extents(ino, TellOthers::Yes)) {
      if (extent.record.state != StoredExtentState::Mapped) continue;
      const Status done = copyExtent(file, path, extent, record.size);
      if (done) continue;
      problem(quoted(path) + ": " + done.message());
      return;  // the directory that is copied to takes no more
    }
  }

  // What cannot be read is left out, block by block. An error only if it cannot be written.
  Status copyExtent(int file, const std::string& path, const SalvagedExtent& extent,
                    uint64_t size) {
    const uint64_t blockSize = source_.blockSize();
    const uint64_t end = std::min(size, extent.offset.v + extent.record.blocks * blockSize);
    AlignedBuffer buffer(kPieceBytes);
    uint64_t lost = 0, firstLost = 0;
    std::string why;
    for (uint64_t at = extent.offset.v; at < end; at += kPieceBytes) {
      const uint64_t blocks = (std::min(end - at, kPieceBytes) + blockSize - 1) / blockSize;
      const uint64_t block = extent.record.block + (at - extent.offset.v) / blockSize;
      bool whole = source_.read(block, buffer.span().first(blocks * blockSize)).isOk();
      for (uint64_t i = 0; i < (whole ? 1 : blocks); ++i) {
        const uint64_t from = at + i * blockSize;
        const auto piece =
            whole ? buffer.span().first(blocks * blockSize) : buffer.span().first(blockSize);
        if (const Status read = whole ? Status::ok() : source_.read(block + i, piece); !read) {
          if (lost == 0) firstLost = from;
          lost += std::min(end - from, blockSize);
          why = read.message();
          continue;
        }
        TRY(writeAt(file, from, piece.first(std::min<uint64_t>(end - from, piece.size()))));
      }
    }
    if (lost != 0)
      problem(quoted(path) + ": " + std::to_string(lost) + " bytes from " +
              std::to_string(firstLost) + " on cannot be read: " + why);
    return Status::ok();
  }

  Status writeAt(int file, uint64_t at, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return Status::error(errno != 0 ? errno : EIO);
      at += static_cast<uint64_t>(n);
      report_.bytes += static_cast<uint64_t>(n);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return Status::ok();
  }

  SalvageSource& source_;
  SalvageTarget& target_;
  const SalvageOptions& options_;
  SalvageReport& report_;
  std::vector<uint64_t> all_;
  std::unordered_set<uint64_t> copied_;
  std::unordered_map<uint64_t, std::string> paths_;  // of inodes with several names
  std::unique_ptr<TargetDirectory> lost_;
  uint64_t done_ = 0;
};

}  // namespace

Result<SalvageReport> salvageVolume(BlockDevice& device, const SalvageOptions& options) {
  SalvageReport report;
  const auto note = [&](const std::string& line) {
    ++report.problemCount;
    if (options.report) options.report(line);
  };
  const auto tell = [&](unsigned phase, const char* name, uint64_t done, uint64_t total) {
    if (options.progress) options.progress({phase, name, done, total});
  };
  tell(1, "the index", 0, 0);
  TRY_ASSIGN(const auto source,
             SalvageSource::open(device, note, [&](uint64_t done, uint64_t total) {
               tell(1, "the index", done, total);
             }));
  tell(2, "the journal", 0, 0);
  source->replayJournal();
  tell(3, "files", 0, 0);
  SalvageTarget target(note);
  TRY(Salvager(*source, target, options, report).run());
  return report;
}

}  // namespace ourfs
