#include "crash/crash_workload.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include "common/aligned_buffer.h"

namespace ourfs::crash {

namespace {
constexpr uint64_t kRoot = 1;
constexpr uint64_t kLongest = 96 * KiB;  // of a file
constexpr uint64_t kNever = ~uint64_t{0};
const Caller kCaller{};
// An operation that could not be done for want of space has changed nothing.
bool refused(const Status& status) { return status.errnum() == ENOSPC; }
}  // namespace

CrashWorkload::CrashWorkload(Filesystem& filesystem, RecordDevice& device, CrashModel& model,
                             const WorkloadOptions& options)
    : filesystem_(filesystem),
      device_(device),
      model_(model),
      options_(options),
      random_(options.seed) {}

Status CrashWorkload::run() {
  TRY(makeBallast());
  for (int i = 0; i < options_.operations; ++i) {
    TRY(step());
    if (options_.roundTheRing) TRY(syncAll());
  }
  return Status::ok();
}

Status CrashWorkload::step() {
  uint64_t dice = pick(100);
  if (dice < 14) return createFile();
  if (dice < 18) return makeDirectory();
  if (dice < 20) return makeSymlink();
  if (dice < 23) return linkFile();
  if (dice < 31) return unlinkFile();
  if (dice < 33) return removeDirectory();
  if (dice < 39) return renameNode();
  if (dice < 41) return setAttribute();
  if (dice < 66) return writeFile(false);
  if (dice < 71) return writeFile(true);
  if (dice < 77) return truncateFile();
  if (dice < 81) return punchFile();
  if (dice < 90) return syncOne(pick(2) == 0);
  if (dice < 93) return syncDirectory();
  if (dice < 94) return syncAll();
  if (dice < 97) return filesystem_.data().writeback().flushAll();
  return options_.roundTheRing ? setAttribute() : filesystem_.volume().checkpoint();
}

// A file outside the model's tree takes most of the space.
Status CrashWorkload::makeBallast() {
  if (options_.ballast.v == 0) return Status::ok();
  Span span{mark(), 0};
  TRY_ASSIGN(auto made, filesystem_.create(kCaller, InodeNo(kRoot), "ballast", 0600, O_RDWR));
  uint64_t id = nextId_++;
  TRY(filesystem_.fallocate(*made.second, FALLOC_FL_KEEP_SIZE, FileOffset(0), options_.ballast));
  TRY(filesystem_.fsync(*made.second, false));
  span.end = mark();
  model_.tree().nodes["ballast"] = {id, 'f', ""};
  model_.changed(span, {id, kRoot});
  model_.synced(id, {span.end, mark()});
  filesystem_.release(std::move(made.second));
  return Status::ok();
}

CrashWorkload::Target CrashWorkload::targetOf(const std::string& path) {
  Target target;
  target.path = path;
  size_t slash = path.rfind('/');
  target.parent = slash == std::string::npos ? "" : path.substr(0, slash);
  target.name = slash == std::string::npos ? path : path.substr(slash + 1);
  auto& nodes = model_.tree().nodes;
  target.parentId = target.parent.empty() ? kRoot : nodes.at(target.parent).id;
  if (nodes.count(path)) target.id = nodes.at(path).id;
  return target;
}

std::optional<CrashWorkload::Target> CrashWorkload::pickNode(char kind) {
  std::vector<std::string> paths;
  for (auto& [path, node] : model_.tree().nodes) {
    if (path != "ballast" && (kind == '*' || node.kind == kind)) paths.push_back(path);
  }
  if (paths.empty()) return std::nullopt;
  return targetOf(paths[pick(paths.size())]);
}

CrashWorkload::Target CrashWorkload::freshName() {
  auto dir = pick(2) == 0 ? pickNode('d') : std::nullopt;
  std::string name = "n" + std::to_string(nextName_++);
  return targetOf(dir ? dir->path + "/" + name : name);
}

Result<InodeNo> CrashWorkload::inodeOf(const std::string& path) {
  InodeNo at(kRoot);
  for (size_t begin = 0; begin < path.size();) {
    size_t end = std::min(path.find('/', begin), path.size());
    TRY_ASSIGN(Attributes next, filesystem_.lookup(at, path.substr(begin, end - begin)));
    at = next.ino;
    begin = end + 1;
  }
  return at;
}

Status CrashWorkload::finish(Span span, const Status& done, const std::vector<uint64_t>& touched) {
  if (refused(done)) return Status::ok();
  TRY(done);
  span.end = mark();
  model_.changed(span, touched);
  return Status::ok();
}

Status CrashWorkload::createFile() {
  Target target = freshName();
  TRY_ASSIGN(InodeNo parent, inodeOf(target.parent));
  Span span{mark(), 0};
  auto made = filesystem_.create(kCaller, parent, target.name, 0644, O_RDWR);
  if (made) {
    target.id = nextId_++;
    model_.tree().nodes[target.path] = {target.id, 'f', ""};
    filesystem_.release(std::move(made->second));
  }
  return finish(span, made.status(), {target.id, target.parentId});
}

Status CrashWorkload::makeDirectory() {
  Target target = freshName();
  TRY_ASSIGN(InodeNo parent, inodeOf(target.parent));
  Span span{mark(), 0};
  auto made = filesystem_.mkdir(kCaller, parent, target.name, 0755);
  if (made) model_.tree().nodes[target.path] = {target.id = nextId_++, 'd', ""};
  return finish(span, made.status(), {target.id, target.parentId});
}

Status CrashWorkload::makeSymlink() {
  Target target = freshName();
  TRY_ASSIGN(InodeNo parent, inodeOf(target.parent));
  std::string text(1 + pick(300), 't');
  Span span{mark(), 0};
  auto made = filesystem_.symlink(kCaller, parent, target.name, text);
  if (made) model_.tree().nodes[target.path] = {target.id = nextId_++, 'l', text};
  return finish(span, made.status(), {target.parentId});
}

Status CrashWorkload::linkFile() {
  auto from = pickNode('f');
  if (!from) return Status::ok();
  Target to = freshName();
  TRY_ASSIGN(InodeNo ino, inodeOf(from->path));
  TRY_ASSIGN(InodeNo parent, inodeOf(to.parent));
  Span span{mark(), 0};
  auto made = filesystem_.link(kCaller, ino, parent, to.name);
  if (made) model_.tree().nodes[to.path] = {from->id, 'f', ""};
  return finish(span, made.status(), {from->id, to.parentId});
}

Status CrashWorkload::unlinkFile() {
  auto target = pick(8) == 0 ? pickNode('l') : pickNode('f');
  if (!target) return Status::ok();
  TRY_ASSIGN(InodeNo parent, inodeOf(target->parent));
  Span span{mark(), 0};
  Status done = filesystem_.unlink(kCaller, parent, target->name);
  if (done.isOk()) model_.tree().nodes.erase(target->path);
  return finish(span, done, {target->parentId});
}

Status CrashWorkload::removeDirectory() {
  auto target = pickNode('d');
  if (!target) return Status::ok();
  TRY_ASSIGN(InodeNo parent, inodeOf(target->parent));
  Span span{mark(), 0};
  Status done = filesystem_.rmdir(kCaller, parent, target->name);
  if (done.errnum() == ENOTEMPTY) return Status::ok();
  if (done.isOk()) model_.tree().nodes.erase(target->path);
  return finish(span, done, {target->parentId});
}

Status CrashWorkload::renameNode() {
  auto from = pickNode('*');
  if (!from) return Status::ok();
  auto over = from->id != 0 && model_.tree().nodes.at(from->path).kind == 'f' && pick(2) == 0
                  ? pickNode('f')
                  : std::nullopt;
  Target to = over ? *over : freshName();
  if (to.path == from->path || to.path.starts_with(from->path + "/")) return Status::ok();
  TRY_ASSIGN(InodeNo fromParent, inodeOf(from->parent));
  TRY_ASSIGN(InodeNo toParent, inodeOf(to.parent));
  bool sameFile = over && over->id == from->id;  // two links of one file: rename does nothing
  Span span{mark(), 0};
  Status done = filesystem_.rename(kCaller, fromParent, from->name, toParent, to.name, 0);
  if (done.isOk() && !sameFile) {
    auto& nodes = model_.tree().nodes;
    std::map<std::string, Node> moved;
    for (auto it = nodes.lower_bound(from->path); it != nodes.end();) {
      bool inside = it->first == from->path || it->first.starts_with(from->path + "/");
      if (!inside) {
        ++it;
        continue;
      }
      moved[to.path + it->first.substr(from->path.size())] = it->second;
      it = nodes.erase(it);
    }
    for (auto& [path, node] : moved) nodes[path] = node;
  }
  // What has changed nothing obliges no fsync.
  if (sameFile) return finish(span, done, {});
  return finish(span, done, {from->id, from->parentId, to.parentId});
}

Status CrashWorkload::setAttribute() {
  auto target = pickNode('f');
  if (!target) return Status::ok();
  TRY_ASSIGN(InodeNo ino, inodeOf(target->path));
  std::string name = "user.a" + std::to_string(pick(3)), value(1 + pick(200), 'v');
  Span span{mark(), 0};
  Status done = filesystem_.setxattr(kCaller, ino, name, value, 0);
  if (done.isOk()) model_.tree().attributes[target->id][name] = value;
  return finish(span, done, {target->id});
}

Status CrashWorkload::writeFile(bool direct) {
  auto target = pickNode('f');
  if (!target) return Status::ok();
  TRY_ASSIGN(InodeNo ino, inodeOf(target->path));
  TRY_ASSIGN(OpenFilePtr handle, filesystem_.open(ino, O_RDWR));
  uint64_t unit = direct ? 4096 : kSector;
  uint64_t count = 1 + pick(pick(3) == 0 ? 32 : 6);
  uint64_t size = model_.sizeOf(target->id);
  uint64_t at = pick(2) == 0 ? roundDown(size, unit) : roundDown(pick(kLongest / 2), unit);
  uint64_t length = count * unit;
  if (at + length > kLongest) return Status::ok();
  AlignedBuffer buffer(length);
  Stamp stamp{target->id, nextVersion_++};
  for (uint64_t s = 0; s < length / kSector; ++s)
    fillSector(buffer.span().subspan(s * kSector, kSector), stamp, at / kSector + s);

  Span span{mark(), 0};
  FileData::WriteFlags flags;
  flags.direct = direct;
  auto done = filesystem_.write(*handle, FileOffset(at), buffer.span().first(length), flags);
  span.end = mark();
  filesystem_.release(std::move(handle));
  if (!done && !refused(done.status())) return done.status();
  // A direct write that failed half way may have reached the disk in parts: from now on the range
  // may be new, and no fsync makes it certain.
  uint64_t wrote = done ? done->v : direct ? length : 0;
  if (!done) span.end = kNever;
  for (uint64_t s = 0; s < wrote / kSector; ++s)
    model_.wrote(target->id, at / kSector + s, stamp, span);
  if (done && at + wrote > size) model_.resized(target->id, at + wrote, span);
  return Status::ok();
}

Status CrashWorkload::truncateFile() {
  auto target = pickNode('f');
  if (!target) return Status::ok();
  TRY_ASSIGN(InodeNo ino, inodeOf(target->path));
  uint64_t size = model_.sizeOf(target->id);
  uint64_t to =
      pick(2) == 0 ? roundDown(pick(size + 1), kSector) : roundDown(pick(kLongest), kSector);
  AttributeChange change;
  change.size = to;
  Span span{mark(), 0};
  auto done = filesystem_.setattr(kCaller, ino, change);
  span.end = mark();
  if (refused(done.status())) return Status::ok();
  TRY(done);
  for (uint64_t s = to / kSector; s < roundUp(size, kSector) / kSector; ++s)
    model_.wrote(target->id, s, Stamp{}, span);
  model_.resized(target->id, to, span);
  return Status::ok();
}

Status CrashWorkload::punchFile() {
  auto target = pickNode('f');
  if (!target) return Status::ok();
  uint64_t size = model_.sizeOf(target->id);
  if (size < kSector) return Status::ok();
  TRY_ASSIGN(InodeNo ino, inodeOf(target->path));
  TRY_ASSIGN(OpenFilePtr handle, filesystem_.open(ino, O_RDWR));
  uint64_t at = roundDown(pick(size), kSector), length = kSector * (1 + pick(40));
  int mode = FALLOC_FL_KEEP_SIZE | (pick(2) == 0 ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
  Span span{mark(), 0};
  Status done = filesystem_.fallocate(*handle, mode, FileOffset(at), ByteCount(length));
  span.end = mark();
  filesystem_.release(std::move(handle));
  if (!done.isOk() && !refused(done)) return done;
  if (!done.isOk()) span.end = kNever;  // zeroed in parts
  for (uint64_t s = at / kSector; s < std::min(roundUp(size, kSector), at + length) / kSector; ++s)
    model_.wrote(target->id, s, Stamp{}, span);
  return Status::ok();
}

Status CrashWorkload::syncOne(bool dataOnly) {
  auto target = pickNode('f');
  if (!target) return Status::ok();
  TRY_ASSIGN(InodeNo ino, inodeOf(target->path));
  TRY_ASSIGN(OpenFilePtr handle, filesystem_.open(ino, O_RDWR));
  Span span{mark(), 0};
  TRY(filesystem_.fsync(*handle, dataOnly));
  span.end = mark();
  filesystem_.release(std::move(handle));
  model_.synced(target->id, span);
  return Status::ok();
}

Status CrashWorkload::syncDirectory() {
  auto target = pickNode('d');
  TRY_ASSIGN(InodeNo ino, inodeOf(target ? target->path : ""));
  TRY_ASSIGN(OpenFilePtr handle, filesystem_.openDirectory(ino));
  Span span{mark(), 0};
  TRY(filesystem_.fsyncDirectory(*handle));
  span.end = mark();
  filesystem_.release(std::move(handle));
  model_.synced(target ? target->id : kRoot, span);
  return Status::ok();
}

Status CrashWorkload::syncAll() {
  Span span{mark(), 0};
  TRY(filesystem_.syncAll());
  span.end = mark();
  model_.synced(std::nullopt, span);
  return Status::ok();
}

}  // namespace ourfs::crash
