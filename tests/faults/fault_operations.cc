// FaultWorkload: its operations.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include "common/aligned_buffer.h"
#include "faults/fault_workload.h"

namespace ourfs::faults {

FaultWorkload::Place FaultWorkload::at(const std::string& path) const {
  const Tree& tree = model_.tree();
  const size_t slash = path.rfind('/');
  Place place{path, path, InodeNo(1), InodeNo(0)};
  if (slash != std::string::npos) {
    const auto parent = tree.find(path.substr(0, slash));
    place.name = path.substr(slash + 1);
    place.parent = parent == tree.end() ? InodeNo(0) : parent->second.ino;
  }
  if (const auto node = tree.find(path); node != tree.end()) place.ino = node->second.ino;
  return place;
}

bool FaultWorkload::note(const std::string& what, const Status& status, InodeNo ino) {
  if (!status.isOk()) failures_.push_back({what, status.errnum(), ino});
  return status.isOk();
}

bool FaultWorkload::heard(Handle& handle, const std::string& what, const Status& status) {
  if (note(what, status, handle.ino)) return true;
  handle.told = model_.now();
  ++handle.errors;
  return false;
}

FaultWorkload::HandlePtr FaultWorkload::open(const std::string& path) {
  const Place place = at(path);
  auto file = fs_.open(place.ino, O_RDWR);
  if (!note("open " + path, file.status(), place.ino)) return nullptr;
  // It claims nothing from before an error that others were told.
  const FaultModel::Time told = failures_.empty() ? 0 : model_.now();
  return std::make_unique<Handle>(Handle{std::move(*file), place.ino, told});
}

FaultWorkload::HandlePtr FaultWorkload::create(const std::string& path) {
  const Place place = at(path);
  if (place.parent.v == 0) return nullptr;
  auto made = fs_.create(caller_, place.parent, place.name, 0644, O_RDWR);
  if (!note("create " + path, made.status())) return nullptr;
  Tree tree = model_.tree();
  tree[path] = {made->first.ino, 'f'};
  model_.changed(std::move(tree), {made->first.ino, place.parent});
  return std::make_unique<Handle>(Handle{std::move(made->second), made->first.ino});
}

FaultWorkload::Kept FaultWorkload::keep(HandlePtr first) {
  if (!first) return {};
  auto second = fs_.open(first->ino, O_RDWR);
  if (!note("open again", second.status(), first->ino)) return {};
  const InodeNo ino = first->ino;
  return {std::move(first), std::make_unique<Handle>(Handle{std::move(*second), ino})};
}

void FaultWorkload::close(HandlePtr handle) {
  if (!handle) return;
  (void)heard(*handle, "close", fs_.flush(*handle->file));
  fs_.release(std::move(handle->file));
}

void FaultWorkload::write(const HandlePtr& handle, uint64_t pos, uint64_t length, bool direct) {
  if (!handle) return;
  const uint64_t first = pos / kSectorBytes, count = length / kSectorBytes;
  AlignedBuffer buffer(length);
  ++version_;
  for (uint64_t s = 0; s < count; ++s) {
    stampSector(buffer.span().subspan(s * kSectorBytes, kSectorBytes), handle->ino, first + s,
                version_);
  }
  FileData::WriteFlags flags;
  flags.direct = direct;
  const auto done = fs_.write(*handle->file, FileOffset(pos), buffer.span().first(length), flags);
  (void)note(direct ? "direct write" : "write", done.status(), handle->ino);
  const uint64_t whole = done ? done->v / kSectorBytes : 0;
  model_.wrote(handle->ino, first, whole, version_, true);
  model_.wrote(handle->ino, first + whole, count - whole, version_, false);
  if (pos + length > model_.sizeOf(handle->ino)) {
    model_.resized(handle->ino, pos + length, whole == count);
  }
}

void FaultWorkload::truncate(const HandlePtr& handle, uint64_t size) {
  if (!handle) return;
  AttributeChange change;
  change.size = size;
  const bool done =
      note("truncate", fs_.setattr(caller_, handle->ino, change).status(), handle->ino);
  const uint64_t before = model_.sizeOf(handle->ino);
  model_.resized(handle->ino, size, done);
  if (size >= before) return;
  model_.wrote(handle->ino, size / kSectorBytes, (before - size) / kSectorBytes, 0, done);
}

void FaultWorkload::punch(const HandlePtr& handle, uint64_t pos, uint64_t length, bool zero) {
  if (!handle) return;
  const int mode = FALLOC_FL_KEEP_SIZE | (zero ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE);
  const Status done = fs_.fallocate(*handle->file, mode, FileOffset(pos), ByteCount(length));
  (void)note(zero ? "zero range" : "punch", done, handle->ino);
  model_.wrote(handle->ino, pos / kSectorBytes, length / kSectorBytes, 0, done.isOk());
}

bool FaultWorkload::fsync(const HandlePtr& handle, bool dataOnly) {
  if (!handle) return false;
  const Status done = fs_.fsync(*handle->file, dataOnly);
  if (!heard(*handle, dataOnly ? "fdatasync" : "fsync", done)) return false;
  model_.synced(handle->ino, handle->told);
  return true;
}

// While nothing has failed, a file holds what was written to it last.
void FaultWorkload::look(const HandlePtr& handle) {
  if (!handle) return;
  const auto wrong = model_.judgeFile(fs_, handle->ino, {}, failures_.empty());
  if (!note("read", wrong.status(), handle->ino)) return;
  if (looks_ && !wrong->empty()) broken_.push_back("before the end: " + *wrong);
}

void FaultWorkload::makeDirectory(const std::string& path) {
  const Place place = at(path);
  const auto made = fs_.mkdir(caller_, place.parent, place.name, 0755);
  if (!note("mkdir " + path, made.status())) return;
  Tree tree = model_.tree();
  tree[path] = {made->ino, 'd'};
  model_.changed(std::move(tree), {made->ino, place.parent});
}

void FaultWorkload::rename(const std::string& from, const std::string& to) {
  const Place source = at(from), target = at(to);
  if (source.ino.v == 0 || target.parent.v == 0) return;
  const Status done =
      fs_.rename(caller_, source.parent, source.name, target.parent, target.name, 0);
  if (!note("rename " + from, done)) return;
  Tree tree = model_.tree();
  tree[to] = tree.at(from);
  tree.erase(from);
  model_.changed(std::move(tree), {source.ino, source.parent, target.parent});
}

void FaultWorkload::link(const std::string& from, const std::string& to) {
  const Place source = at(from), target = at(to);
  if (source.ino.v == 0 || target.parent.v == 0) return;
  const auto done = fs_.link(caller_, source.ino, target.parent, target.name);
  if (!note("link " + from, done.status())) return;
  Tree tree = model_.tree();
  tree[to] = tree.at(from);
  model_.changed(std::move(tree), {source.ino, target.parent});
}

void FaultWorkload::unlink(const std::string& path) {
  const Place place = at(path);
  if (place.ino.v == 0) return;
  if (!note("unlink " + path, fs_.unlink(caller_, place.parent, place.name))) return;
  Tree tree = model_.tree();
  tree.erase(path);
  model_.changed(std::move(tree), {place.parent});
}

void FaultWorkload::setAttribute(const std::string& path) {
  const Place place = at(path);
  if (place.ino.v == 0) return;
  (void)note("setxattr", fs_.setxattr(caller_, place.ino, "user.a", std::string(300, 'v'), 0),
             place.ino);
}

void FaultWorkload::syncDirectory(const std::string& path) {
  const Place place = at(path);
  if (place.ino.v == 0) return;
  auto handle = fs_.openDirectory(place.ino);
  if (!note("opendir " + path, handle.status())) return;
  if (note("fsync of " + path, fs_.fsyncDirectory(**handle))) model_.synced(place.ino, 0);
  fs_.release(std::move(*handle));
}

void FaultWorkload::syncAll() {
  const FaultModel::Time since = syncFailed_;
  if (note("sync", fs_.syncAll())) {
    model_.synced(InodeNo(0), since);
  } else {
    syncFailed_ = model_.now();
  }
}

void FaultWorkload::checkpoint() { (void)note("checkpoint", fs_.volume().checkpoint()); }

}  // namespace ourfs::faults
