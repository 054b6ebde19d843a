// Filesystem: the counters of the live daemon.
#include <nlohmann/json.hpp>

#include "filesystem_impl.h"

namespace ourfs {

namespace {

using Json = nlohmann::ordered_json;

Json volumeStats(Volume& volume, const StatfsReply& statfs) {
  const SpaceCounts space = volume.space().counts();
  const DiscardCounters discards = volume.discards();
  return {{"uuid", volume.superblock().uuidText()},
          {"label", volume.superblock().label},
          {"block_size", volume.blockSize()},
          {"blocks", space.total.v},
          {"blocks_free", space.free.v},
          {"blocks_busy", space.busy.v},
          {"blocks_reserved", space.reserved.v},
          {"blocks_metadata_reserve", space.metadataReserve.v},
          {"blocks_available", space.available().v},
          {"discards", discards.discards},
          {"discarded_bytes", discards.bytes},
          {"discard_errors", discards.errors},
          {"inodes", statfs.files - statfs.filesFree},
          {"read_only", volume.readOnly()},
          {"failure", volume.failure().isOk() ? "" : volume.failure().message()}};
}

Json journalStats(Journal& journal) {
  const JournalCounters c = journal.counters();
  return {{"appends", c.appends},
          {"payload_bytes", c.payloadBytes},
          {"writes", c.writes},
          {"written_bytes", c.writtenBytes},
          {"data_flushes", c.dataFlushes},
          {"reserve_waits", c.reserveWaits},
          {"used_bytes", journal.used().v},
          {"head", journal.head().end.v},
          {"durable", journal.durable().v},
          {"tail", journal.tail().v}};
}

Json indexStats(Index& index) {
  const IndexCounters c = index.counters();
  return {{"gets", c.gets},
          {"scans", c.scans},
          {"batches", c.batches},
          {"changes", c.changes},
          {"flushes", c.flushes},
          {"compactions", c.compactions},
          {"table_writes", c.tableWrites},
          {"manifest_syncs", c.manifestSyncs},
          {"pool_blocks", c.poolBlocks},
          {"pool_free", c.poolFree},
          {"files", c.fileCount}};
}

Json dataStats(const MappingCounters& c) {
  return {{"stale_write", c.staleWrite.load()},
          {"stale_writeback", c.staleWriteback.load()},
          {"stale_read", c.staleRead.load()},
          {"remap_kept_new", c.remapKeptNew.load()},
          {"remap_masked_new", c.remapMaskedNew.load()},
          {"punch_skipped_dirty", c.punchSkippedDirty.load()},
          {"filled_by_zero", c.filledByZero.load()},
          {"filled_by_read", c.filledByRead.load()},
          {"lock_first", c.lockFirst.load()},
          {"bypass_reads", c.bypassReads.load()},
          {"cached_reads", c.cachedReads.load()},
          {"direct_writes", c.directWrites.load()},
          {"folios_reclaimed", c.foliosReclaimed.load()},
          {"ioends", c.ioends.load()},
          {"throttled", c.throttled.load()},
          {"writeback_errors", c.writebackErrors.load()},
          {"written_bytes", c.writtenBytes.load()}};
}

Json cacheStats(FileData& data) {
  return {{"limit_bytes", data.pool().limit().v},
          {"used_bytes", data.pool().used().v},
          {"dirty_bytes", data.pool().dirty.load()},
          {"writeback_bytes", data.pool().writeback.load()},
          {"dirty_files", data.writeback().dirtyFiles()}};
}

}  // namespace

std::string FilesystemImpl::stats(bool json) {
  const Json all = {{"volume", volumeStats(volume_, statfs())},
                    {"inodes",
                     {{"in_core", table_.size()},
                      {"unused", table_.unused()},
                      {"unlinked", reclaimer_.waiting()},
                      {"reclaimed", reclaimer_.reclaimed()},
                      {"waits_for_space", spaceWaits_.load()}}},
                    {"journal", journalStats(volume_.log().journal())},
                    {"index", indexStats(volume_.index())},
                    {"data", dataStats(data_->counters())},
                    {"cache", cacheStats(*data_)}};
  if (json) return all.dump(2) + "\n";
  std::string text;
  for (const auto& [group, counters] : all.items()) {
    for (const auto& [name, value] : counters.items()) {
      text +=
          group + "." + name + " " + (value.is_string() ? value.get<std::string>() : value.dump());
      text += "\n";
    }
  }
  return text;
}

}  // namespace ourfs
