#include "index_file.h"

#include <algorithm>
#include <cstring>

#include "table_codec.h"

namespace ourfs {

void forEachPiece(const FileContext& context, const std::vector<BlockRun>& runs, uint64_t first,
                  uint64_t count,
                  const std::function<void(DeviceOffset at, uint64_t unit, uint64_t units)>& each) {
  const uint64_t perBlock = context.unitsPerBlock(), unitSize = context.unitSize();
  uint64_t runStart = 0;  // its first unit in the file
  for (const BlockRun& run : runs) {
    const uint64_t runUnits = run.count.v * perBlock;
    const uint64_t from = std::max(first, runStart);
    const uint64_t to = std::min(first + count, runStart + runUnits);
    if (from < to) {
      const uint64_t at = run.start.v * context.geometry.blockSize + (from - runStart) * unitSize;
      each(DeviceOffset(at), from, to - from);
    }
    runStart += runUnits;
    if (runStart >= first + count) return;
  }
}

// ---- FileReader ----

FileReader::FileReader(FileContext& context, TableFile file)
    : context_(context), file_(std::move(file)) {
  const uint64_t payload = context_.payload();
  uint64_t units = 0;
  for (uint64_t bytes : file_.segments) {
    segmentByte_.push_back(size_);
    segmentUnit_.push_back(units);
    size_ += bytes;
    units += (bytes + payload - 1) / payload;
  }
}

FileReader::Place FileReader::find(uint64_t offset) const {
  const auto it = std::ranges::upper_bound(segmentByte_, offset) - 1;
  const uint64_t inside = offset - *it;
  const size_t segment = static_cast<size_t>(it - segmentByte_.begin());
  return {segmentUnit_[segment] + inside / context_.payload(), inside % context_.payload()};
}

uint64_t FileReader::lengthOf(uint64_t unit) const {
  const auto it = std::ranges::upper_bound(segmentUnit_, unit) - 1;
  const size_t segment = static_cast<size_t>(it - segmentUnit_.begin());
  const uint64_t before = (unit - *it) * context_.payload();
  return std::min(context_.payload(), file_.segments[segment] - before);
}

Status FileReader::readUnits(uint64_t first, uint64_t count, AlignedBuffer& into) const {
  const uint64_t unitSize = context_.unitSize();
  IoGroup group(context_.device, IoClass::Index);
  forEachPiece(context_, file_.runs, first, count,
               [&](DeviceOffset at, uint64_t unit, uint64_t units) {
                 group.submit(IoOp::Read, at,
                              into.span().subspan((unit - first) * unitSize, units * unitSize));
               });
  TRY(group.wait());
  for (uint64_t i = 0; i < count; ++i) {
    TRY(checkUnit(into.span().subspan(i * unitSize, unitSize), file_.id,
                  static_cast<uint32_t>(first + i), lengthOf(first + i), context_.table.seed()));
  }
  return Status::ok();
}

Result<size_t> FileReader::read(uint64_t offset, size_t n, char* into) const {
  if (offset >= size_ || n == 0) return size_t{0};
  n = std::min<uint64_t>(n, size_ - offset);
  const Place from = find(offset), to = find(offset + n - 1);
  const uint64_t unitSize = context_.unitSize(), count = to.unit - from.unit + 1;
  AlignedBuffer buffer(count * unitSize);
  TRY(readUnits(from.unit, count, buffer));
  size_t copied = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t skip = i == 0 ? from.offset : 0;
    const size_t piece = std::min<uint64_t>(lengthOf(from.unit + i) - skip, n - copied);
    std::memcpy(into + copied, buffer.data() + i * unitSize + kUnitHeader + skip, piece);
    copied += piece;
  }
  return copied;
}

Result<std::string> FileReader::readExactly(uint64_t offset, uint64_t length) const {
  if (offset > size_ || length > size_ - offset)
    return Status::corrupt("index: a file is too short");
  std::string bytes(length, '\0');
  TRY(read(offset, length, bytes.data()));
  return bytes;
}

Status FileReader::verify(const std::function<void(uint64_t)>& read) const {
  constexpr uint64_t kAtOnce = 256;
  const uint64_t units = file_.units(context_.unitSize());
  for (uint64_t first = 0; first < units; first += kAtOnce) {
    const uint64_t count = std::min(kAtOnce, units - first);
    AlignedBuffer buffer(count * context_.unitSize());
    TRY(readUnits(first, count, buffer));
    read(count * context_.payload());
  }
  return Status::ok();
}

// ---- IndexFile ----

IndexFile::IndexFile(FileContext& context, FileKind kind, uint64_t id, std::string name)
    : context_(context), kind_(kind), id_(id) {
  file_.id = id;
  file_.isInline = kind == FileKind::Inline;
  file_.name = std::move(name);
}

IndexFile::IndexFile(FileContext& context, TableFile known)
    : context_(context),
      kind_(known.isInline ? FileKind::Inline : FileKind::Blocks),
      id_(known.id),
      file_(std::move(known)),
      inTable_(true) {}

std::string IndexFile::name() const {
  MutexLock l(mu_);
  return file_.name;
}

uint64_t IndexFile::size() const {
  MutexLock l(mu_);
  return file_.size();
}

std::shared_ptr<const FileReader> IndexFile::reader() const {
  MutexLock l(mu_);
  return std::make_shared<const FileReader>(context_, file_);
}

size_t IndexFile::readMemory(uint64_t offset, size_t n, char* into) const {
  MutexLock l(mu_);
  if (offset >= file_.bytes.size()) return 0;
  return file_.bytes.copy(into, n, offset);
}

void IndexFile::appendMemory(std::string_view bytes) {
  MutexLock l(mu_);
  file_.bytes.append(bytes);
}

Status IndexFile::syncInline() {
  MutexLock l(mu_);
  if (removed_) return Status::error(ENOENT, "index: a removed file is written");
  if (kind_ != FileKind::Inline) return Status::ok();
  TRY(context_.table.setInline(id_, file_.name, file_.bytes));
  inTable_ = true;
  return Status::ok();
}

Status IndexFile::extend(uint64_t bytes, const std::vector<BlockRun>& runs) {
  MutexLock l(mu_);
  if (removed_) return Status::error(ENOENT, "index: a removed file is written");
  for (const BlockRun& run : runs) {
    appendRun(file_.runs, run);
    appendRun(newRuns_, run);
  }
  // What is not recorded yet is one segment, also if it comes in pieces.
  if (newBytes_ == 0 && bytes > 0) file_.segments.push_back(0);
  newBytes_ += bytes;
  if (bytes > 0) file_.segments.back() += bytes;
  return Status::ok();
}

Status IndexFile::recordExtent() {
  MutexLock l(mu_);
  if (removed_) return Status::error(ENOENT, "index: a removed file is written");
  if (!inTable_) {
    TRY(context_.table.create(id_, file_.name));
    inTable_ = true;
  }
  if (newBytes_ == 0) return Status::ok();
  TRY(context_.table.append(id_, newBytes_, newRuns_));
  newBytes_ = 0;
  newRuns_.clear();
  return Status::ok();
}

Status IndexFile::renamed(const std::string& name) {
  MutexLock l(mu_);
  if (kind_ != FileKind::Volatile) {
    if (!inTable_) return Status::error(EINVAL, "index: a file is renamed before it was synced");
    TRY(context_.table.rename(id_, name));
  }
  file_.name = name;
  return Status::ok();
}

Status IndexFile::removed() {
  MutexLock l(mu_);
  removed_ = true;
  context_.pool.giveBack(newRuns_);
  newRuns_.clear();
  return inTable_ ? context_.table.remove(id_) : Status::ok();
}

}  // namespace ourfs
