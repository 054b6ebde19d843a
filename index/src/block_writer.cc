#include "block_writer.h"

#include <algorithm>
#include <cstring>

#include "common/sync_point.h"
#include "table_codec.h"

namespace ourfs {

namespace {
constexpr uint64_t kWriteSize = 256 * KiB;
}  // namespace

BlockWriter::BlockWriter(FileContext& context, std::shared_ptr<IndexFile> file)
    : context_(context),
      file_(std::move(file)),
      isManifest_(file_->name().starts_with("MANIFEST-")),
      bufferUnits_(kWriteSize / context.unitSize()) {}

Status BlockWriter::append(std::string_view bytes) {
  const uint64_t payload = context_.payload();
  if (buffer_.size() == 0) buffer_ = AlignedBuffer(kWriteSize);
  size_ += bytes.size();
  while (!bytes.empty()) {
    std::byte* unit = buffer_.data() + fullUnits_ * context_.unitSize();
    const size_t piece = std::min<uint64_t>(bytes.size(), payload - fill_);
    std::memcpy(unit + kUnitHeader + fill_, bytes.data(), piece);
    bytes.remove_prefix(piece);
    fill_ += piece;
    if (fill_ < payload) continue;
    fill_ = 0;
    ++fullUnits_;
    if (fullUnits_ == bufferUnits_) TRY(writeUnits(fullUnits_));
  }
  return Status::ok();
}

Result<std::vector<BlockRun>> BlockWriter::allocate(uint64_t blocks) {
  const BlockNo hint = runs_.empty() ? BlockNo(0) : runs_.back().start + runs_.back().count;
  Result<std::vector<BlockRun>> got = context_.pool.allocate(blocks, hint);
  if (got.isOk() || got.errnum() != ENOSPC || context_.table.droppedBlocks().v == 0) return got;
  // Blocks of removed files become free with the next table.
  TRY(context_.table.sync());
  return context_.pool.allocate(blocks, hint);
}

// Writes the first `count` units of the buffer; the last one may be the partial one.
Status BlockWriter::writeUnits(uint64_t count) {
  const uint64_t unitSize = context_.unitSize(), perBlock = context_.unitsPerBlock();
  const uint64_t blocks = (unitsWritten_ + count + perBlock - 1) / perBlock;
  std::vector<BlockRun> fresh;
  if (blocks > blocks_) {
    TRY_ASSIGN(fresh, allocate(blocks - blocks_));
    for (const BlockRun& run : fresh) appendRun(runs_, run);
    blocks_ = blocks;
  }
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t length = i < fullUnits_ ? context_.payload() : fill_;
    sealUnit(buffer_.span().subspan(i * unitSize, unitSize), file_->id(),
             static_cast<uint32_t>(unitsWritten_ + i), length, context_.table.seed());
    bytes += length;
  }
  IoGroup group(context_.device, IoClass::Index);
  forEachPiece(
      context_, runs_, unitsWritten_, count, [&](DeviceOffset at, uint64_t unit, uint64_t units) {
        group.submit(IoOp::Write, at,
                     buffer_.span().subspan((unit - unitsWritten_) * unitSize, units * unitSize));
      });
  const Status written = group.wait();
  unitsWritten_ += count;
  fullUnits_ = 0;
  fill_ = 0;
  // Also after an error: the blocks are the file's, and go back with it.
  TRY(file_->extend(bytes, fresh));
  return written;
}

Status BlockWriter::writeOut() {
  const uint64_t count = fullUnits_ + (fill_ > 0 ? 1 : 0);
  return count > 0 ? writeUnits(count) : Status::ok();
}

Status BlockWriter::sync() {
  if (isManifest_) return syncManifest();
  TRY(writeOut());
  return file_->recordExtent();
}

Status BlockWriter::syncManifest() {
  SYNC_POINT_TRY("index.before_manifest_sync");
  if (context_.beforePersist && !mutantEnabled("index.no_persist_hook")) {
    TRY(context_.beforePersist());
  }
  TRY(writeOut());
  TRY(file_->recordExtent());
  TRY(context_.table.sync());
  context_.manifestSyncs.fetch_add(1, std::memory_order_relaxed);
  return Status::ok();
}

}  // namespace ourfs
