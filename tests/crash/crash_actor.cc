#include "crash/crash_actor.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>

#include "common/aligned_buffer.h"

namespace ourfs::crash {

namespace {
const Caller kCaller{};
constexpr uint64_t kPage = 4096;
bool refused(const Status& status) { return status.errnum() == ENOSPC; }

Timestamp timeOfDay() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return {t.tv_sec, static_cast<uint32_t>(t.tv_nsec)};
}
}  // namespace

CrashActor::CrashActor(Filesystem& filesystem, RecordDevice& device, CrashModel& model)
    : filesystem_(filesystem), device_(device), model_(model) {
  inodes_[kRootId] = {InodeNo(1), 0};
}

CrashActor::Place CrashActor::placeOf(const std::string& path) const {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {kRootId, path};
  return {idOf(path.substr(0, slash)), path.substr(slash + 1)};
}

uint64_t CrashActor::idOf(const std::string& path) const {
  return path.empty() ? kRootId : model_.tree().nodes.at(path).id;
}

CrashActor::Begun CrashActor::begin() { return {{mark(), 0}, timeOfDay()}; }

Status CrashActor::sampleTimes(const Begun& begun, uint64_t id, bool written) {
  TRY_ASSIGN(const Attributes attributes, filesystem_.getattr(inodeOf(id)));
  const Times times{attributes.record.mtime, attributes.record.ctime};
  if (written && (times.mtime < begun.at || times.ctime < begun.at))
    return Status::error(EIO, "a file that was changed has its times from before");
  if (S_ISDIR(attributes.record.mode)) {
    model_.tree().directoryTimes[id] = times;
  } else {
    model_.stamped(id, times, begun.at, begun.span);
  }
  return Status::ok();
}

Status CrashActor::finishNames(Begun begun, const Status& done,
                               const std::vector<uint64_t>& touched) {
  if (refused(done)) return Status::ok();
  TRY(done);
  begun.span.end = mark();
  for (uint64_t id : touched) {
    if (id == kRootId || model_.tree().names(id)) TRY(sampleTimes(begun, id, false));
  }
  model_.changed(begun.span, touched);
  return Status::ok();
}

uint64_t CrashActor::adopt(const std::string& path, char kind, const std::string& target,
                           const Attributes& made) {
  const uint64_t id = nextId_++;
  inodes_[id] = {made.ino, 1};
  model_.tree().nodes[path] = {id, kind, target, made.record.mode & 07777};
  return id;
}

Status CrashActor::createFile(const std::string& path, uint32_t permissions) {
  const Place place = placeOf(path);
  const Begun begun = begin();
  auto made = filesystem_.create(kCaller, inodeOf(place.parent), place.name, permissions, O_RDWR);
  if (!made) return finishNames(begun, made.status(), {});
  const uint64_t id = adopt(path, 'f', "", made->first);
  filesystem_.release(std::move(made->second));
  return finishNames(begun, Status::ok(), {id, place.parent});
}

Status CrashActor::makeDirectory(const std::string& path) {
  const Place place = placeOf(path);
  const Begun begun = begin();
  auto made = filesystem_.mkdir(kCaller, inodeOf(place.parent), place.name, 0755);
  if (!made) return finishNames(begun, made.status(), {});
  return finishNames(begun, Status::ok(), {adopt(path, 'd', "", *made), place.parent});
}

Status CrashActor::makeSymlink(const std::string& path, const std::string& text) {
  const Place place = placeOf(path);
  const Begun begun = begin();
  auto made = filesystem_.symlink(kCaller, inodeOf(place.parent), place.name, text);
  if (!made) return finishNames(begun, made.status(), {});
  adopt(path, 'l', text, *made);
  return finishNames(begun, Status::ok(), {place.parent});
}

Status CrashActor::linkFile(const std::string& from, const std::string& to) {
  const Place place = placeOf(to);
  const uint64_t id = idOf(from);
  const Begun begun = begin();
  auto made = filesystem_.link(kCaller, inodeOf(id), inodeOf(place.parent), place.name);
  if (made) {
    ++inodes_.at(id).lookups;
    model_.tree().nodes[to] = model_.tree().nodes.at(from);
  }
  return finishNames(begun, made.status(), {id, place.parent});
}

Status CrashActor::unlinkFile(const std::string& path, bool forget) {
  const Place place = placeOf(path);
  const uint64_t id = idOf(path);
  const Begun begun = begin();
  const Status done = filesystem_.unlink(kCaller, inodeOf(place.parent), place.name);
  if (done.isOk()) model_.tree().nodes.erase(path);
  TRY(finishNames(begun, done, {id, place.parent}));
  if (forget && done.isOk() && !model_.tree().names(id)) {
    filesystem_.forget(inodeOf(id), inodes_.at(id).lookups);
    inodes_.erase(id);
    (void)filesystem_.statfs();  // waits for the reclaimer
  }
  return Status::ok();
}

Status CrashActor::removeDirectory(const std::string& path) {
  const Place place = placeOf(path);
  const uint64_t id = idOf(path);
  const Begun begun = begin();
  const Status done = filesystem_.rmdir(kCaller, inodeOf(place.parent), place.name);
  if (done.errnum() == ENOTEMPTY) return Status::ok();
  if (done.isOk()) {
    model_.tree().nodes.erase(path);
    model_.tree().directoryTimes.erase(id);
  }
  return finishNames(begun, done, {place.parent});
}

void CrashActor::movePaths(const std::string& from, const std::string& to) {
  auto& nodes = model_.tree().nodes;
  std::map<std::string, Node> moved;
  for (auto it = nodes.lower_bound(from); it != nodes.end();) {
    if (it->first == from || it->first.starts_with(from + "/")) {
      moved[to + it->first.substr(from.size())] = it->second;
      it = nodes.erase(it);
    } else {
      ++it;
    }
  }
  for (auto& [path, node] : moved) nodes[path] = node;
}

Status CrashActor::renameNode(const std::string& from, const std::string& to) {
  const Place old = placeOf(from), place = placeOf(to);
  const uint64_t id = idOf(from), over = exists(to) ? idOf(to) : 0;
  const Begun begun = begin();
  const Status done = filesystem_.rename(kCaller, inodeOf(old.parent), old.name,
                                         inodeOf(place.parent), place.name, 0);
  // Of two links of one file nothing happens, and what has changed nothing obliges no fsync.
  if (over == id) return finishNames(begun, done, {});
  if (done.isOk()) movePaths(from, to);
  std::vector<uint64_t> touched{id, old.parent, place.parent};
  if (over != 0) touched.push_back(over);
  return finishNames(begun, done, touched);
}

Status CrashActor::setAttribute(const std::string& path, const std::string& name,
                                const std::string& value) {
  const uint64_t id = idOf(path);
  const Begun begun = begin();
  const Status done = filesystem_.setxattr(kCaller, inodeOf(id), name, value, 0);
  if (done.isOk()) model_.tree().attributes[id][name] = value;
  return finishNames(begun, done, {id});
}

Status CrashActor::readBack(OpenFile& file, uint64_t id, uint64_t at,
                            std::span<const std::byte> tried, uint64_t begin) {
  TRY_ASSIGN(const Attributes attributes, filesystem_.getattr(inodeOf(id)));
  std::vector<std::byte> now(attributes.record.size);
  for (uint64_t done = 0; done < now.size();) {
    TRY_ASSIGN(const ByteCount got,
               filesystem_.read(file, FileOffset(done), std::span(now).subspan(done)));
    if (got.v == 0) return Status::error(EIO, "short read of a file after a failed write");
    done += got.v;
  }
  model_.tried(id, at, tried, begin, now);
  return Status::ok();
}

Status CrashActor::writeFile(const std::string& path, uint64_t at, uint64_t length, Writing how) {
  const uint64_t id = idOf(path), size = model_.sizeOf(id);
  // A mapping stores nothing behind the end, and what the kernel hands over are its pages.
  uint64_t from = at, to = at + length;
  if (how == Writing::Stored) {
    to = std::min(to, size);
    if (at >= to) return Status::ok();
    length = to - at;
    from = roundDown(from, kPage);
    to = std::min(roundUp(to, kPage), size);
  }
  AlignedBuffer buffer(roundUp(to - from, kPage));
  const auto bytes = buffer.span().first(to - from);
  if (how == Writing::Stored)
    std::ranges::copy(std::as_bytes(std::span(model_.contentOf(id))).subspan(from, to - from),
                      bytes.begin());
  fillBytes(bytes.subspan(at - from, length), id, nextVersion_++, at);
  return put(id, from, bytes, how);
}

Status CrashActor::writeBytes(const std::string& path, uint64_t at, std::string_view bytes,
                              Writing how) {
  AlignedBuffer buffer(roundUp(bytes.size(), kPage));
  std::ranges::copy(std::as_bytes(std::span(bytes)), buffer.data());
  return put(idOf(path), at, buffer.span().first(bytes.size()), how);
}

Status CrashActor::put(uint64_t id, uint64_t at, std::span<std::byte> bytes, Writing how) {
  const bool sync = how == Writing::Synchronous || how == Writing::DirectSynchronous;
  const bool dataSync = how == Writing::DataSynchronous || how == Writing::DirectDataSynchronous;
  const int flags = O_RDWR | (sync ? O_SYNC : dataSync ? O_DSYNC : 0);
  TRY_ASSIGN(OpenFilePtr handle, filesystem_.open(inodeOf(id), flags));
  Begun begun = begin();
  FileData::WriteFlags write;
  write.direct = how == Writing::Direct || how >= Writing::DirectSynchronous;
  write.fromKernelCache = how == Writing::Stored;
  write.mayExtend = how != Writing::Stored;
  const auto done = filesystem_.write(*handle, FileOffset(at), bytes, write);
  const uint64_t answered = mark();
  if (!done && !refused(done.status())) return done.status();
  if (!done) {
    TRY(readBack(*handle, id, at, bytes, begun.span.begin));
  } else {
    // The file is synced as a whole before the answer, this write too.
    begun.span.end = sync || dataSync ? begun.span.begin : answered;
    model_.wrote(id, at, bytes.first(done->v), begun.span);
  }
  TRY(sampleTimes(begun, id, done.isOk()));
  if (done && (sync || dataSync)) model_.synced(id, dataSync, {begun.span.begin, answered});
  filesystem_.release(std::move(handle));
  return Status::ok();
}

Status CrashActor::truncateFile(const std::string& path, uint64_t size) {
  const uint64_t id = idOf(path);
  AttributeChange change;
  change.size = size;
  Begun begun = begin();
  const auto done = filesystem_.setattr(kCaller, inodeOf(id), change);
  begun.span.end = mark();
  if (refused(done.status())) return Status::ok();
  TRY(done);
  model_.resized(id, size, begun.span);
  return sampleTimes(begun, id, true);
}

Status CrashActor::allocate(const std::string& path, int mode, uint64_t at, uint64_t length) {
  const uint64_t id = idOf(path);
  TRY_ASSIGN(OpenFilePtr handle, filesystem_.open(inodeOf(id), O_RDWR));
  const bool zeroes = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
  Begun begun = begin();
  const Status done = filesystem_.fallocate(*handle, mode, FileOffset(at), ByteCount(length));
  begun.span.end = mark();
  if (!done.isOk() && !refused(done)) return done;
  if (!done.isOk()) {
    // Zeroed in parts, perhaps.
    const uint64_t end = std::min(at + length, model_.sizeOf(id));
    const std::vector<std::byte> zeros(zeroes && at < end ? end - at : 0);
    TRY(readBack(*handle, id, std::min(at, end), zeros, begun.span.begin));
  } else {
    if (zeroes) model_.zeroed(id, at, length, begun.span);
    if (!(mode & FALLOC_FL_KEEP_SIZE) && at + length > model_.sizeOf(id))
      model_.resized(id, at + length, begun.span);
  }
  filesystem_.release(std::move(handle));
  return sampleTimes(begun, id, done.isOk());
}

Status CrashActor::syncFile(const std::string& path, bool dataOnly) {
  const uint64_t id = idOf(path);
  TRY_ASSIGN(OpenFilePtr handle, filesystem_.open(inodeOf(id), O_RDWR));
  Span span{mark(), 0};
  TRY(filesystem_.fsync(*handle, dataOnly));
  span.end = mark();
  filesystem_.release(std::move(handle));
  model_.synced(id, dataOnly, span);
  return Status::ok();
}

Status CrashActor::syncDirectory(const std::string& path) {
  const uint64_t id = idOf(path);
  TRY_ASSIGN(OpenFilePtr handle, filesystem_.openDirectory(inodeOf(id)));
  Span span{mark(), 0};
  TRY(filesystem_.fsyncDirectory(*handle));
  span.end = mark();
  filesystem_.release(std::move(handle));
  model_.synced(id, false, span);
  return Status::ok();
}

Status CrashActor::syncAll() {
  Span span{mark(), 0};
  TRY(filesystem_.syncAll());
  span.end = mark();
  model_.synced(std::nullopt, false, span);
  return Status::ok();
}

}  // namespace ourfs::crash
