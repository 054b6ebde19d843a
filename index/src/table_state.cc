#include "table_state.h"

#include <algorithm>

#include "table_codec.h"
#include "unit.h"

namespace ourfs {

namespace {

constexpr size_t kMaxFileName = 64;

bool validFileName(std::string_view name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_';
  };
  return !name.empty() && name.size() <= kMaxFileName && std::ranges::all_of(name, plain);
}

Status bad(const std::string& what) { return Status::corrupt("index file table: " + what); }

std::string label(uint64_t id) { return "file " + std::to_string(id); }

}  // namespace

uint64_t TableFile::size() const {
  uint64_t total = bytes.size();
  for (uint64_t s : segments) total += s;
  return total;
}

uint64_t TableFile::units(uint64_t unitSize) const {
  uint64_t total = 0;
  for (uint64_t s : segments) total += (s + unitSize - kUnitHeader - 1) / (unitSize - kUnitHeader);
  return total;
}

// ---- changes ----

Status TableState::step(std::string& ops, const std::string& op) {
  TRY(replay(op));
  ops += op;
  return Status::ok();
}

Status TableState::addPool(std::string& ops, const BlockRun& run) {
  TableWriter w(TableOp::AddPool);
  w.runs({run}, 0);
  return step(ops, w.take());
}

Status TableState::removePool(std::string& ops, const BlockRun& run) {
  TableWriter w(TableOp::RemovePool);
  w.runs({run}, 0);
  return step(ops, w.take());
}

Status TableState::create(std::string& ops, uint64_t id, const std::string& name) {
  TableWriter w(TableOp::Create);
  w.number(id).text(name);
  return step(ops, w.take());
}

Status TableState::append(std::string& ops, uint64_t id, uint64_t bytes,
                          const std::vector<BlockRun>& runs) {
  TableWriter w(TableOp::Append);
  w.number(id).number(bytes).runs(runs, lastEnd(id));
  return step(ops, w.take());
}

Status TableState::setInline(std::string& ops, uint64_t id, const std::string& name,
                             std::string_view bytes) {
  TableWriter w(TableOp::SetInline);
  w.number(id).text(name).text(bytes);
  return step(ops, w.take());
}

Status TableState::rename(std::string& ops, uint64_t id, const std::string& name) {
  TableWriter w(TableOp::Rename);
  w.number(id).text(name);
  return step(ops, w.take());
}

Status TableState::remove(std::string& ops, uint64_t id) {
  TableWriter w(TableOp::Remove);
  w.number(id);
  return step(ops, w.take());
}

void TableState::close(std::string& ops, uint64_t nextSequence) {
  TableWriter w(TableOp::Closed);
  w.number(nextSequence);
  ops += w.take();
}

// ---- applying ----

Status TableState::replay(std::string_view ops) {
  Reader in(ops);
  while (!in.atEnd()) TRY(applyOne(in));
  return Status::ok();
}

Status TableState::applyOne(Reader& in) {
  const TableOp op = in.op();
  if (op == TableOp::AddPool || op == TableOp::RemovePool) {
    const std::vector<BlockRun> runs = in.runs(0);
    if (!in.ok()) return bad("a pool extent cannot be read");
    for (const BlockRun& run : runs) TRY(op == TableOp::AddPool ? insertPool(run) : erasePool(run));
    return Status::ok();
  }
  const uint64_t number = in.number();
  switch (op) {
    case TableOp::Create: {
      TableFile file{number, in.text(), false, {}, {}, {}};
      return in.ok() ? insertFile(std::move(file)) : bad("a new file cannot be read");
    }
    case TableOp::SetInline: {
      TableFile file{number, in.text(), true, in.text(), {}, {}};
      if (!in.ok()) return bad("an inline file cannot be read");
      if (auto it = files_.find(number); it != files_.end() && it->second.isInline) {
        if (it->second.name != file.name) return bad(label(number) + " changes its name");
        dropFile(number);
      }
      return insertFile(std::move(file));
    }
    case TableOp::Append: {
      const uint64_t bytes = in.number();
      const std::vector<BlockRun> runs = in.runs(lastEnd(number));
      return in.ok() ? appendTo(number, bytes, runs) : bad("an append cannot be read");
    }
    case TableOp::Rename: {
      const std::string name = in.text();
      return in.ok() ? renameTo(number, name) : bad("a rename cannot be read");
    }
    case TableOp::Remove:
      if (!in.ok() || !files_.contains(number)) return bad("a file that is not there is removed");
      dropFile(number);
      return Status::ok();
    case TableOp::Closed:
      if (!in.ok() || number == 0) return bad("no slot took over");
      takenOverBy_ = number;
      return Status::ok();
    default:
      return bad("unknown operation");
  }
}

Status TableState::insertPool(const BlockRun& run) {
  const uint64_t volumeBlocks = geometry_.volumeSize.v / geometry_.blockSize;
  const uint64_t start = run.start.v, count = run.count.v;
  if (count == 0 || start >= volumeBlocks || count > volumeBlocks - start) {
    return bad("a pool extent outside the volume");
  }
  const uint64_t tableStart = geometry_.tableStart.v / geometry_.blockSize;
  const uint64_t tableEnd =
      (geometry_.tableStart.v + 2 * geometry_.tableSlotSize.v + geometry_.blockSize - 1) /
      geometry_.blockSize;
  if (start < tableEnd && start + count > tableStart) {
    return bad("a pool extent over the table itself");
  }
  auto next = pool_.lower_bound(start);
  if (next != pool_.end() && next->first < start + count) return bad("pool extents overlap");
  auto it = next;
  if (next != pool_.begin()) {
    auto prev = std::prev(next);
    if (prev->first + prev->second > start) return bad("pool extents overlap");
    if (prev->first + prev->second == start) {
      prev->second += count;
      it = prev;
    }
  }
  if (it == next) it = pool_.emplace_hint(next, start, count);
  if (next != pool_.end() && it->first + it->second == next->first) {
    it->second += next->second;
    pool_.erase(next);
  }
  return Status::ok();
}

Status TableState::erasePool(const BlockRun& run) {
  if (!owns(run)) return bad("a pool extent that is not there leaves the pool");
  const auto it = std::prev(pool_.upper_bound(run.start.v));
  const uint64_t start = it->first, end = start + it->second;
  const uint64_t from = run.start.v, to = (run.start + run.count).v;
  pool_.erase(it);
  if (start < from) pool_.emplace(start, from - start);
  if (to < end) pool_.emplace(to, end - to);
  return Status::ok();
}

Status TableState::insertFile(TableFile file) {
  if (file.id == 0 || file.id >> 48 != 0) return bad("not a file number");
  if (!validFileName(file.name)) return bad(label(file.id) + " has no valid name");
  if (file.bytes.size() > kInlineLimit) return bad(label(file.id) + " is too large to be inline");
  if (files_.contains(file.id)) return bad(label(file.id) + " appears twice");
  if (byName_.contains(file.name)) return bad("two files named " + file.name);
  nextId_ = std::max(nextId_, file.id + 1);
  byName_.emplace(file.name, file.id);
  files_.emplace(file.id, std::move(file));
  return Status::ok();
}

void TableState::dropFile(uint64_t id) {
  auto it = files_.find(id);
  dropped_.insert(dropped_.end(), it->second.runs.begin(), it->second.runs.end());
  byName_.erase(it->second.name);
  files_.erase(it);
}

Status TableState::appendTo(uint64_t id, uint64_t bytes, const std::vector<BlockRun>& runs) {
  auto it = files_.find(id);
  if (it == files_.end() || it->second.isInline) return bad("an append to no file");
  if (bytes == 0 || bytes > geometry_.volumeSize.v) return bad("an append without bytes");
  for (const BlockRun& run : runs) {
    if (!owns(run)) return bad(label(id) + " has blocks outside the pool");
  }
  it->second.segments.push_back(bytes);
  for (const BlockRun& run : runs) appendRun(it->second.runs, run);
  return Status::ok();
}

Status TableState::renameTo(uint64_t id, const std::string& name) {
  auto it = files_.find(id);
  if (it == files_.end() || !validFileName(name)) return bad("not a rename");
  if (it->second.name == name) return Status::ok();
  if (auto old = byName_.find(name); old != byName_.end()) dropFile(old->second);
  byName_.erase(it->second.name);
  byName_.emplace(name, id);
  it->second.name = name;
  return Status::ok();
}

uint64_t TableState::lastEnd(uint64_t id) const {
  auto it = files_.find(id);
  if (it == files_.end() || it->second.runs.empty()) return 0;
  const BlockRun& last = it->second.runs.back();
  return last.start.v + last.count.v;
}

// ---- snapshots ----

std::string TableState::encode() const {
  TableWriter w;
  w.runs(pool(), 0).number(files_.size());
  for (const auto& [id, file] : files_) {
    w.number(id).number(file.isInline ? 1 : 0).text(file.name);
    if (file.isInline) {
      w.text(file.bytes);
      continue;
    }
    w.number(file.segments.size());
    for (uint64_t s : file.segments) w.number(s);
    w.runs(file.runs, 0);
  }
  return w.take();
}

uint64_t TableState::encodedBound() const {
  // A run is two varints: a distance on the volume, with its sign, and a length.
  uint64_t volumeBits = 1;
  while (geometry_.volumeSize.v / geometry_.blockSize >> volumeBits != 0) ++volumeBits;
  const uint64_t varint = volumeBits / 7 + 1, run = 2 * varint, perFile = kMaxFileName + 32;
  uint64_t bytes = 2 * varint + pool_.size() * run;
  for (const auto& [id, file] : files_) {
    bytes += perFile + file.bytes.size() + file.segments.size() * 6 + file.runs.size() * run;
  }
  return bytes;
}

Result<TableState> TableState::decode(const IndexGeometry& geometry, uint64_t nextId,
                                      std::string_view body) {
  TableState state(geometry);
  Reader in(body);
  for (const BlockRun& run : in.runs(0)) TRY(state.insertPool(run));
  for (uint64_t n = in.number(); n > 0 && in.ok(); --n) {
    TableFile file;
    file.id = in.number();
    const uint64_t kind = in.number();
    file.isInline = kind == 1;
    file.name = in.text();
    if (kind > 1) return bad("unknown kind of file");
    if (file.isInline) {
      file.bytes = in.text();
    } else {
      for (uint64_t s = in.count(); s > 0 && in.ok(); --s) {
        file.segments.push_back(in.number());
        if (file.segments.back() == 0 || file.segments.back() > geometry.volumeSize.v) {
          return bad("a segment without bytes");
        }
      }
      file.runs = in.runs(0);
    }
    if (!in.ok()) break;
    for (const BlockRun& run : file.runs) {
      if (!state.owns(run)) return bad(label(file.id) + " has blocks outside the pool");
    }
    TRY(state.insertFile(std::move(file)));
  }
  if (!in.ok() || !in.atEnd()) return bad("the snapshot cannot be read");
  if (nextId < state.nextId_) return bad("a file number from the future");
  state.nextId_ = nextId;
  return state;
}

Status TableState::validate() const {
  const uint64_t unitSize = unitSizeFor(geometry_.blockSize);
  const uint64_t unitsPerBlock = geometry_.blockSize / unitSize;
  for (const auto& [id, file] : files_) {
    uint64_t blocks = 0;
    for (const BlockRun& run : file.runs) {
      if (!owns(run)) return bad(label(id) + " has blocks that have left the pool");
      blocks += run.count.v;
    }
    const uint64_t units = file.units(unitSize);
    if (units > UINT32_MAX || (units + unitsPerBlock - 1) / unitsPerBlock != blocks) {
      return bad(label(id) + " has a size that does not fit its blocks");
    }
  }
  std::vector<BlockRun> used = usedRuns();
  std::ranges::sort(used, {}, [](const BlockRun& r) { return r.start.v; });
  for (size_t i = 1; i < used.size(); ++i) {
    if (used[i - 1].start + used[i - 1].count > used[i].start)
      return bad("two files share a block");
  }
  return Status::ok();
}

// ---- looking ----

std::vector<BlockRun> TableState::takeDropped() { return std::exchange(dropped_, {}); }

std::vector<BlockRun> TableState::pool() const {
  std::vector<BlockRun> runs;
  runs.reserve(pool_.size());
  for (const auto& [start, count] : pool_) runs.push_back({BlockNo(start), BlockCount(count)});
  return runs;
}

std::vector<BlockRun> TableState::usedRuns() const {
  std::vector<BlockRun> runs;
  for (const auto& [id, file] : files_) {
    runs.insert(runs.end(), file.runs.begin(), file.runs.end());
  }
  return runs;
}

bool TableState::owns(const BlockRun& run) const {
  auto it = pool_.upper_bound(run.start.v);
  if (run.count.v == 0 || it == pool_.begin()) return false;
  --it;
  const uint64_t offset = run.start.v - it->first;
  return offset < it->second && run.count.v <= it->second - offset;
}

}  // namespace ourfs
