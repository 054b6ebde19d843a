#include "images/look.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include "common/codec.h"
#include "fs/check.h"
#include "images/child.h"
#include "images/sparse_image.h"
#include "images/tree_text.h"

namespace ourfs::images {

namespace {

OpenOptions readOnlyOptions() {
  OpenOptions open;
  open.readOnly = true;
  open.blockCache = ByteCount(1 * MiB);
  return open;
}

// What the parent cannot find out itself.
Result<std::string> describe(const SampleOptions& options) {
  TRY_ASSIGN(Sample sample, makeSample(options));
  std::string out;
  Encoder e(out);
  e.bytes32(sparseImage(*sample.device));
  e.bytes32(sparseImage(*sample.earlier));
  LogRange log;
  uint64_t last = 0;
  {
    TRY_ASSIGN(auto volume, Volume::open(*sample.device, readOnlyOptions()));
    log.end = volume->summary().replay.end.end.v;
    last = volume->summary().replay.records;
    e.u32(volume->summary().replay.end.crc);
    std::string records;
    TRY(volume->index().scan("", "", [&](auto key, auto value) {
      Encoder(records).bytes32(key);
      Encoder(records).bytes32(value);
      return true;
    }));
    e.bytes32(records);
    OpenOptions raw = readOnlyOptions();
    raw.noRecovery = true;
    volume.reset();
    TRY_ASSIGN(volume, Volume::open(*sample.device, raw));
    log.tail = volume->summary().replay.end.end.v;
    e.u64(log.tail);
    e.u64(log.end);
    e.u8(volume->summary().wasClean ? 1 : 0);
  }
  const Look whole = lookAt(*sample.device);
  if (!whole.complaint().empty()) {
    return Status::error(EIO, "the sample is not in order: " + whole.complaint());
  }
  e.bytes32(whole.text);
  if (last == 0) return out;
  const auto map = MetadataMap::of(*sample.device, log);
  if (!map) return Status::error(EIO, "the sample's metadata cannot be read");
  // Without its magic a record is none.
  for (const Piece& piece : map->live()) {
    if (piece.part == Part::LogEnd) poke(*sample.device, piece.start, std::string(4, '\0'));
  }
  e.bytes32(lookAt(*sample.device).text);
  return out;
}

}  // namespace

Look lookAt(BlockDevice& device) {
  Look look;
  CheckOptions check;
  check.report = check.note = [&](const std::string& line) {
    if (look.fsck.empty()) look.fsck = line;
  };
  const auto report = checkVolume(device, check);
  if (!report) look.fsck = report.status().message();
  const auto volume = Volume::open(device, readOnlyOptions());
  if (!volume) {
    look.mount = volume.status().message();
    return look;
  }
  // The command says these two, and goes on.
  if ((*volume)->summary().oneSuperblock) look.mount = "one superblock";
  if (!(*volume)->summary().replay.lost.empty()) look.mount = (*volume)->summary().replay.lost;
  const auto filesystem = Filesystem::start(**volume, quietOptions());
  if (!filesystem) {
    look.mount = filesystem.status().message();
    return look;
  }
  TreeText tree = readTree(**filesystem);
  if (tree.errors.empty()) {
    look.text = std::move(tree.text);
  } else {
    look.read = tree.errors.front();
  }
  return look;
}

Subject makeSubject(const SampleOptions& options) {
  spdlog::set_level(spdlog::level::off);
  const std::string answer = inChild([&] {
    const auto described = describe(options);
    if (!described) std::fprintf(stderr, "%s\n", described.status().message().c_str());
    return described.isOk() ? *described : std::string();
  });
  Subject subject;
  Decoder d(answer);
  subject.device = deviceFrom(d.bytes32());
  subject.earlier = deviceFrom(d.bytes32());
  subject.logCrc = d.u32();
  for (Decoder r(d.bytes32()); !r.atEnd();) {
    const std::string key(r.bytes32());
    subject.records.emplace_back(key, r.bytes32());
  }
  subject.log.tail = d.u64();
  subject.log.end = d.u64();
  subject.wasClean = d.u8() != 0;
  subject.text = d.bytes32();
  if (!d.atEnd()) subject.textBeforeLast = d.bytes32();
  EXPECT_TRUE(d.ok() && subject.device && !subject.text.empty()) << "there is no sample volume";
  return subject;
}

}  // namespace ourfs::images
