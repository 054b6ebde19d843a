#include "journal_writer.h"

#include <algorithm>
#include <cstring>

#include "common/sync_point.h"

namespace ourfs {

namespace {
constexpr uint64_t kBufferBytes = MiB;  // bounds the memory; a larger group takes several writes
}  // namespace

JournalWriter::JournalWriter(BlockDevice& device, const JournalGeometry& geometry)
    : device_(device),
      geometry_(geometry),
      buffer_(std::max<uint64_t>(std::min(kBufferBytes, geometry.size.v), geometry.sector)) {}

Status JournalWriter::write(const JournalGroup& group, std::span<const std::byte> records) {
  SYNC_POINT_TRY("journal.before_flush");
  const bool oneFlush = mutantEnabled("journal.one_flush");
  // Mutant: the record is durable at once, the data that it names only with the flush behind it.
  const bool late =
      group.preflush && !records.empty() && mutantEnabled("journal.flush_after_commit");
  if (group.preflush && !oneFlush && !late) TRY(device_.flush(IoClass::Journal));
  if (records.empty()) return oneFlush ? device_.flush(IoClass::Journal) : Status::ok();

  // A write alone is durable by itself. Of several, each could land without the one before it; one
  // flush behind them all makes them durable together, and until then nobody is answered.
  const bool fua = !oneFlush && stepLength(group.start, records.size()) == records.size();
  for (uint64_t done = 0; done < records.size();) {
    const uint64_t step = stepLength(group.start + done, records.size() - done);
    TRY(writeStep(group.start + done, records.subspan(done, step), fua));
    done += step;
  }
  return fua && !late ? Status::ok() : device_.flush(IoClass::Journal);
}

uint64_t JournalWriter::stepLength(uint64_t lsn, uint64_t rest) const {
  const uint64_t toRingEnd = geometry_.size.v - lsn % geometry_.size.v;
  const uint64_t room = roundDown(buffer_.size(), geometry_.sector);
  return std::min({rest, toRingEnd, room});
}

Status JournalWriter::writeStep(uint64_t lsn, std::span<const std::byte> bytes, bool fua) {
  const uint64_t padded = roundUp(bytes.size(), geometry_.sector);
  std::memcpy(buffer_.data(), bytes.data(), bytes.size());
  std::memset(buffer_.data() + bytes.size(), 0, padded - bytes.size());
  const DeviceOffset at = geometry_.start + ByteCount(lsn % geometry_.size.v);
  return device_.write(at, buffer_.span().first(padded), IoClass::Journal, fua);
}

}  // namespace ourfs
