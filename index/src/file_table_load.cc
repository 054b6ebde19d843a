// Reading the file table back: every byte is doubted.
#include <cstring>

#include "common/checksum.h"
#include "common/codec.h"
#include "common/sync_point.h"
#include "file_table.h"
#include "file_table_slot.h"
#include "unit.h"

namespace ourfs {

namespace {

Status bad(const std::string& what) { return Status::corrupt("index file table: " + what); }

std::string_view chars(const AlignedBuffer& buffer, uint64_t offset, uint64_t length) {
  return asChars(buffer.span().subspan(offset, length));
}

// The delta at `offset`, if one of this table is there.
std::optional<DeltaHeader> deltaAt(const AlignedBuffer& bytes, uint64_t offset, uint32_t seed) {
  DeltaHeader header;
  if (offset + sizeof header > bytes.size()) return {};
  std::memcpy(&header, bytes.data() + offset, sizeof header);
  if (header.magic != kDeltaMagic || header.length > bytes.size() - offset - sizeof header)
    return {};
  const auto covered = bytes.span().subspan(offset + 8, sizeof header - 8 + header.length);
  if (header.crc != crc32c(covered, seed) && !mutantEnabled("filetable.skip_delta_checksum"))
    return {};
  return header;
}

}  // namespace

Result<FileTable::Slot> FileTable::readSlot(BlockDevice& device, const IndexGeometry& geometry,
                                            unsigned number) {
  Slot slot;
  slot.bytes = AlignedBuffer(geometry.tableSlotSize.v);
  TRY(device.read(slotStart(geometry, number), slot.bytes.span(), IoClass::FileTable));
  TRY(parse(geometry, number, slot));
  return slot;
}

// Leaves the slot without a state if there is no intact snapshot, which is normal: it may have been
// torn. Fails if what is there was written as it is and still cannot be right.
Status FileTable::parse(const IndexGeometry& geometry, unsigned number, Slot& slot) {
  SlotHeader header;
  std::memcpy(&header, slot.bytes.data(), sizeof header);
  const uint64_t room = slot.bytes.size() - sizeof header;
  if (header.magic != kSlotMagic || header.bodyLength > room) return Status::ok();
  const auto covered = slot.bytes.span().subspan(8, sizeof header - 8 + header.bodyLength);
  if (header.crc != crc32c(covered) && !mutantEnabled("filetable.skip_slot_checksum"))
    return Status::ok();
  if (header.version != kTableVersion) {
    return bad("unknown version " + std::to_string(header.version));
  }
  if (header.blockSize != geometry.blockSize || header.volumeSize != geometry.volumeSize.v) {
    return bad("it was made for another volume size or block size");
  }
  if (header.sequence % 2 != number || header.sequence == 0)
    return bad("a slot in the wrong place");
  if (header.nextId == 0 || header.nextId >> 48 != 0) return bad("file numbers are used up");
  TRY_ASSIGN(slot.state, TableState::decode(geometry, header.nextId,
                                            chars(slot.bytes, sizeof header, header.bodyLength)));
  slot.tableId = header.tableId;
  slot.chain.sequence = header.sequence;
  slot.chain.previous = header.crc;
  slot.chain.offset = roundUp(sizeof header + header.bodyLength, kTableSector);
  TRY(followChain(slot, geometry.tableSlotSize.v));
  return slot.state->validate();
}

Status FileTable::followChain(Slot& slot, uint64_t slotSize) {
  const uint32_t seed = seedOf(slot.tableId);
  Chain& chain = slot.chain;
  while (chain.offset < slotSize) {
    const std::optional<DeltaHeader> delta = deltaAt(slot.bytes, chain.offset, seed);
    if (!delta || delta->sequence != chain.sequence || delta->index != chain.index ||
        delta->previous != chain.previous) {
      break;
    }
    TRY(slot.state->replay(chars(slot.bytes, chain.offset + sizeof *delta, delta->length)));
    chain.previous = delta->crc;
    ++chain.index;
    chain.offset += roundUp(sizeof *delta + delta->length, kTableSector);
  }
  return Status::ok();
}

// A delta newer than the end of the current chain was written only after what is missing in front
// of it was durable.
Status FileTable::findLostDelta(const Slot& damaged, const Slot& current) {
  const uint32_t seed = seedOf(current.tableId);
  for (uint64_t at = 0; at < damaged.bytes.size(); at += kTableSector) {
    const std::optional<DeltaHeader> delta = deltaAt(damaged.bytes, at, seed);
    if (!delta || delta->sequence < current.chain.sequence) continue;
    if (delta->sequence > current.chain.sequence || delta->index >= current.chain.index) {
      return bad("change " + std::to_string(delta->index) + " of slot sequence " +
                 std::to_string(delta->sequence) + " is there, but not what was written before it");
    }
  }
  return Status::ok();
}

Result<std::unique_ptr<FileTable>> FileTable::load(BlockDevice& device,
                                                   const IndexGeometry& geometry, bool readOnly) {
  TRY(checkTableGeometry(device, geometry));
  TRY_ASSIGN(Slot a, readSlot(device, geometry, 0));
  TRY_ASSIGN(Slot b, readSlot(device, geometry, 1));
  if (!a.state && !b.state) return bad("neither slot has an intact snapshot");
  if (a.state && b.state && a.tableId != b.tableId) return bad("its slots belong to two volumes");
  const bool second = b.state && (!a.state || b.chain.sequence > a.chain.sequence);
  Slot& current = second ? b : a;
  TRY(findLostDelta(a, current));
  TRY(findLostDelta(b, current));
  if (current.state->takenOverBy() != 0) return bad("the slot that took over is damaged");

  TableState& state = *current.state;
  const uint64_t id = current.tableId;
  std::unique_ptr<FileTable> table(new FileTable(device, geometry, id, std::move(state), readOnly));
  MutexLock l(table->mu_);
  table->chain_ = current.chain;
  // Numbers that a crashed mount gave to files it never recorded are not given again, so that the
  // blocks it wrote cannot be taken for those of another file.
  constexpr uint64_t kSkippedIds = 4096;
  table->nextId_ = table->state_.nextId() + kSkippedIds;
  (void)table->state_.takeDropped();
  return table;
}

Result<std::unique_ptr<FileTable>> FileTable::loadForSalvage(BlockDevice& device,
                                                             const IndexGeometry& geometry,
                                                             const Note& note) {
  IndexGeometry onDevice = geometry;  // which may have lost its end
  onDevice.volumeSize = std::min(geometry.volumeSize, device.size());
  TRY(checkTableGeometry(device, onDevice));
  std::optional<Slot> newest;
  for (const unsigned number : {0u, 1u}) {
    Slot slot;
    slot.bytes = AlignedBuffer(geometry.tableSlotSize.v);
    Status read = device.read(slotStart(geometry, number), slot.bytes.span(), IoClass::FileTable);
    if (read) read = parse(geometry, number, slot);
    // What was read before the damage is still the best there is.
    if (!read) note(read.message());
    if (slot.state && (!newest || slot.chain.sequence > newest->chain.sequence))
      newest = std::move(slot);
  }
  if (!newest) return bad("neither slot has an intact snapshot");
  if (newest->state->takenOverBy() != 0)
    note("index file table: the newest slot is lost, the one before it is used");
  const uint64_t id = newest->tableId;
  TableState& state = *newest->state;
  std::unique_ptr<FileTable> table(new FileTable(device, geometry, id, std::move(state), true));
  return table;
}

std::unique_ptr<FileTable> FileTable::ofFound(BlockDevice& device, const IndexGeometry& geometry,
                                              uint32_t seed, TableState state) {
  const uint64_t id = tableIdOf(seed);
  return std::unique_ptr<FileTable>(new FileTable(device, geometry, id, std::move(state), true));
}

Result<IndexGeometry> FileTable::findGeometry(BlockDevice& device, const IndexGeometry& guess) {
  TRY(checkTableGeometry(device, guess));
  for (const unsigned number : {0u, 1u}) {
    AlignedBuffer bytes(guess.tableSlotSize.v);
    if (!device.read(slotStart(guess, number), bytes.span(), IoClass::FileTable)) continue;
    SlotHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.magic != kSlotMagic || header.bodyLength > bytes.size() - sizeof header) continue;
    const auto covered = bytes.span().subspan(8, sizeof header - 8 + header.bodyLength);
    if (header.crc != crc32c(covered)) continue;
    IndexGeometry found = guess;
    found.blockSize = header.blockSize;
    found.volumeSize = ByteCount(header.volumeSize);
    if (checkTableGeometry(device, found)) return found;
  }
  return bad("neither slot has an intact snapshot");
}

Status checkTableGeometry(const BlockDevice& device, const IndexGeometry& g) {
  const uint64_t slot = g.tableSlotSize.v;
  const bool good = isPowerOfTwo(g.blockSize) && g.blockSize >= 512 && g.blockSize <= 64 * KiB &&
                    g.blockSize >= device.logicalSector() && isAligned(slot, kTableSector) &&
                    slot >= 4 * kTableSector && slot <= 1 * GiB &&
                    isAligned(g.tableStart.v, device.logicalSector()) &&
                    g.volumeSize <= device.size() && g.tableStart.v <= g.volumeSize.v &&
                    2 * slot <= g.volumeSize.v - g.tableStart.v;
  return good ? Status::ok() : Status::corrupt("index file table: its place cannot be right");
}

}  // namespace ourfs
