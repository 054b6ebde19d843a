#include "fs/extents.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include "filesystem_impl.h"

namespace ourfs {

namespace {

Status checkRegular(const InodeRecord& record) {
  return S_ISREG(record.mode) ? Status::ok() : Status::error(EINVAL, "not a regular file");
}

const char* stateName(ExtentState state) {
  switch (state) {
    case ExtentState::Hole:
      return "hole";
    case ExtentState::Delalloc:
      return "delalloc";
    case ExtentState::Mapped:
      return "mapped";
    case ExtentState::Unwritten:
      return "unwritten";
  }
  return "";
}

}  // namespace

Result<std::vector<Extent>> extentsOf(Filesystem& filesystem, InodeNo ino) {
  TRY_ASSIGN(Attributes found, filesystem.getattr(ino));
  TRY(checkRegular(found.record));
  TRY_ASSIGN(OpenFilePtr file, filesystem.open(ino, O_RDONLY));
  auto extents = filesystem.data().extents(*file->inode);
  filesystem.release(std::move(file));
  return extents;
}

Result<std::vector<Extent>> extentsOf(Volume& volume, InodeNo ino) {
  TRY_ASSIGN(auto stored, volume.index().get(inodeKey(ino)));
  if (!stored) return Status::error(ENOENT, "there is no inode " + std::to_string(ino.v));
  TRY_ASSIGN(InodeRecord record, decodeInode(ino, *stored));
  TRY(checkRegular(record));
  std::vector<Extent> extents;
  Status bad;
  std::string prefix = extentPrefix(ino);
  TRY(volume.index().scan(
      prefix, prefixEnd(prefix), [&](std::string_view key, std::string_view value) {
        auto parsed = parseKey(key);
        bad = parsed.status();
        if (!parsed) return false;
        auto extent = decodeExtent(ino, FileOffset(parsed->number), value);
        bad = extent.status();
        if (!extent) return false;
        uint64_t block = volume.blockSize();
        extents.push_back({FileOffset(parsed->number), ByteCount(extent->blocks * block),
                           DeviceOffset(extent->block * block),
                           extent->state == StoredExtentState::Mapped ? ExtentState::Mapped
                                                                      : ExtentState::Unwritten,
                           true});
        return true;
      }));
  TRY(bad);
  return extents;
}

std::string extentsText(const std::vector<Extent>& extents, uint32_t blockSize) {
  std::string text =
      fmt::format("{:>16} {:>16} {:>16}  {}\n", "offset", "length", "block", "state");
  for (const Extent& e : extents) {
    std::string block =
        e.state == ExtentState::Delalloc ? "-" : std::to_string(e.address.v / blockSize);
    text += fmt::format("{:>16} {:>16} {:>16}  {}{}\n", e.offset.v, e.length.v, block,
                        stateName(e.state),
                        e.stored || e.state == ExtentState::Delalloc ? "" : " (in core)");
  }
  return text;
}

}  // namespace ourfs
