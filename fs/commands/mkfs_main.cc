// mkfs.ourfs: makes a volume on a block device or in an image file.
#include <blkid/blkid.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "command.h"
#include "common/log.h"
#include "fs/byte_text.h"
#include "fs/volume.h"
#include "volume_text.h"

namespace ourfs {
namespace {

const std::string kName = "mkfs.ourfs";
constexpr uint32_t kImageSector = 512,
                   kImagePhysicalSector = 4096;  // of an image that is not there yet

struct Arguments {
  std::string target, size, label, uuid, blockSize, journalSize;
  bool force = false, quiet = false, dryRun = false;
};

struct Target {
  std::string path;
  bool exists = false, block = false;
  ByteCount wanted;   // the size asked for; 0: as it is
  ByteCount present;  // of an image file that exists
  bool created = false;
};

std::optional<int> readArguments(int argc, char** argv, Arguments& a) {
  CLI::App app("Makes an ourfs volume.", kName);
  app.set_version_flag("-V,--version", "mkfs.ourfs " OURFS_VERSION);
  app.add_option("DEVICE-OR-IMAGE", a.target, "block device, or image file")->required();
  app.add_option("SIZE", a.size, "make or extend the image file to this size (K, M, G, T)");
  app.add_option("-L,--label", a.label, "label, up to 63 bytes");
  app.add_option("-U,--uuid", a.uuid, "UUID; random without it");
  app.add_option("-b,--block-size", a.blockSize, "block size: 1K to 64K, 4K without it");
  app.add_option("-J,--journal-size", a.journalSize, "journal size; by volume size without it");
  app.add_flag("-f,--force", a.force, "overwrite what is there");
  app.add_flag("-q,--quiet", a.quiet, "print nothing");
  app.add_flag("-n,--dry-run", a.dryRun, "say what would be made, write nothing");
  return parseArguments(app, argc, argv, 1);
}

int hexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

Result<std::array<uint8_t, 16>> parseUuid(const std::string& text) {
  std::array<uint8_t, 16> uuid{};
  size_t digits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    int digit = hexDigit(text[i]);
    if (dash ? text[i] != '-' : digit < 0 || digits == 32)
      return Status::error(EINVAL, "'" + text + "' is not a UUID");
    if (dash) continue;
    uuid[digits / 2] = static_cast<uint8_t>(uuid[digits / 2] * 16 + digit);
    ++digits;
  }
  if (digits != 32) return Status::error(EINVAL, "'" + text + "' is not a UUID");
  return uuid;
}

Result<FormatOptions> formatOptions(const Arguments& a) {
  FormatOptions o;
  o.label = a.label;
  if (!a.uuid.empty()) {
    TRY_ASSIGN(o.uuid, parseUuid(a.uuid));
  }
  if (!a.blockSize.empty()) {
    TRY_ASSIGN(ByteCount block, parseBytes(a.blockSize));
    if (block.v > kMaxBlockSize)
      return Status::error(
          EINVAL, "block size " + bytesText(block) + " is too large; 1 KiB to 64 KiB is possible");
    o.blockSize = static_cast<uint32_t>(block.v);
  }
  if (!a.journalSize.empty()) {
    TRY_ASSIGN(o.journalSize, parseBytes(a.journalSize));
  }
  return o;
}

Result<Target> findTarget(const Arguments& a) {
  Target t;
  t.path = a.target;
  if (!a.size.empty()) {
    TRY_ASSIGN(t.wanted, parseBytes(a.size));
  }
  struct stat st {};
  t.exists = stat(a.target.c_str(), &st) == 0;
  if (!t.exists && (errno != ENOENT || a.size.empty()))
    return Status::error(errno, a.target + ": " + Status::error(errno).message() +
                                    (errno == ENOENT ? "; give a size to make an image file" : ""));
  if (!t.exists) return t;
  t.block = S_ISBLK(st.st_mode);
  if (!t.block && !S_ISREG(st.st_mode))
    return Status::error(EINVAL, a.target + " is neither a regular file nor a block device");
  if (t.block && t.wanted.v)
    return Status::error(EINVAL, "a size is for image files; " + a.target + " is a block device");
  t.present = ByteCount(static_cast<uint64_t>(st.st_size));
  if (!t.block && t.wanted.v && t.wanted < t.present)
    return Status::error(EINVAL, a.target + " is larger already (" + bytesText(t.present) +
                                     "); remove it first, or leave the size out");
  return t;
}

// ---- what is there already ----

Status foundSignature(const std::string& path, const std::string& what) {
  return Status::error(EEXIST, path + " holds " + what + "; use --force to overwrite it");
}

// Any filesystem, partition table or container that libblkid knows.
Status checkForeignSignature(const std::string& path) {
  blkid_probe probe = blkid_new_probe_from_filename(path.c_str());
  if (!probe) return Status::ok();  // empty
  blkid_probe_enable_superblocks(probe, 1);
  blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE);
  blkid_probe_enable_partitions(probe, 1);
  int found = blkid_do_safeprobe(probe);
  std::string what = "several signatures";
  const char* value = nullptr;
  if (found == 0 && blkid_probe_lookup_value(probe, "TYPE", &value, nullptr) == 0)
    what = std::string("a filesystem or volume of type ") + value;
  else if (found == 0 && blkid_probe_lookup_value(probe, "PTTYPE", &value, nullptr) == 0)
    what = std::string("a partition table of type ") + value;
  else if (found == 0)
    what = "an unknown signature";
  blkid_free_probe(probe);
  return found == 0 || found == -2 ? foundSignature(path, what) : Status::ok();
}

Status checkSignatures(const std::string& path, UringDevice& device) {
  auto ours = SuperblockStore(device).load();
  if (ours) return foundSignature(path, "an ourfs volume");
  if (ours.errnum() != EINVAL) return foundSignature(path, "an ourfs volume (damaged)");
  return checkForeignSignature(path);
}

// So that nobody takes the new volume for what was there before.
Status wipeSignatures(const std::string& path) {
  int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return Status::error(errno).withContext(path);
  blkid_probe probe = blkid_new_probe();
  bool wiped = probe && blkid_probe_set_device(probe, fd, 0, 0) == 0;
  if (wiped) {
    blkid_probe_enable_superblocks(probe, 1);
    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_MAGIC);
    blkid_probe_enable_partitions(probe, 1);
    blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC);
    while (wiped && blkid_do_probe(probe) == 0) wiped = blkid_do_wipe(probe, 0) == 0;
  }
  if (probe) blkid_free_probe(probe);
  wiped = fsync(fd) == 0 && wiped;
  close(fd);
  return wiped ? Status::ok()
               : Status::error(EIO, path + ": the old signatures could not be removed");
}

// ---- making ----

Status growImage(Target& t) {
  int fd = open(t.path.c_str(), O_RDWR | O_CLOEXEC | (t.exists ? 0 : O_CREAT | O_EXCL), 0600);
  if (fd < 0) return Status::error(errno).withContext(t.path);
  t.created = !t.exists;
  Status grown;
  if (ftruncate(fd, static_cast<off_t>(t.wanted.v)) != 0)
    grown = Status::error(errno).withContext(t.path);
  close(fd);
  return grown;
}

// A block device that anybody has mounted, or uses as swap or in a device-mapper table, refuses
// O_EXCL.
Result<int> claimBlockDevice(const Target& t) {
  if (!t.block) return -1;
  int fd = open(t.path.c_str(), O_RDWR | O_EXCL | O_CLOEXEC);
  if (fd >= 0) return fd;
  if (errno == EBUSY) return Status::error(EBUSY, t.path + " is in use; unmount it first");
  return Status::error(errno).withContext(t.path);
}

Status makeVolume(const Arguments& a, Target& t, const FormatOptions& options, Superblock& made) {
  TRY_ASSIGN(auto device, openDevice(t.path, false));
  if (!a.force && t.exists) TRY(checkSignatures(t.path, *device));
  TRY_ASSIGN(
      made, planVolume(device->size(), device->logicalSector(), device->physicalSector(), options));
  if (a.force && t.exists) TRY(wipeSignatures(t.path));
  DeviceRange metadata = metadataRange(made);
  TRY(device->preallocate(metadata.start, metadata.length));
  return formatVolume(*device, options, &made);
}

// Everything that can be refused is refused before the file is made or grown.
Status plan(const Arguments& a, const Target& t, const FormatOptions& options,
            Superblock& planned) {
  uint32_t logical = kImageSector, physical = kImagePhysicalSector;
  ByteCount size = t.wanted;
  if (t.exists) {
    TRY(checkNotMounted(t.path));
    if (t.block || t.present.v) {
      TRY_ASSIGN(auto device, openDevice(t.path, true));
      if (!a.force) TRY(checkSignatures(t.path, *device));
      logical = device->logicalSector(), physical = device->physicalSector();
      if (!size.v) size = device->size();
    }
  }
  TRY_ASSIGN(planned, planVolume(size, logical, physical, options));
  return Status::ok();
}

Status make(const Arguments& a, const FormatOptions& options, Target& t, Superblock& made) {
  TRY(plan(a, t, options, made));
  if (a.dryRun) return Status::ok();
  TRY_ASSIGN(int claim, claimBlockDevice(t));
  Status done;
  if (t.wanted.v && (!t.exists || t.wanted != t.present)) done = growImage(t);
  if (done) done = makeVolume(a, t, options, made);
  if (claim >= 0) close(claim);
  if (!done && t.created) unlink(t.path.c_str());
  return done;
}

int run(int argc, char** argv) {
  Arguments a;
  if (auto code = readArguments(argc, argv, a)) return *code;
  Status logging = initLogging(LogSink::Stderr, "off");
  auto options = formatOptions(a);
  if (!options) return complain(kName, a.target, options.status(), 1);
  auto target = findTarget(a);
  if (!target) return complain(kName, a.target, target.status(), 1);
  Superblock made;
  Status done = logging ? make(a, *options, *target, made) : logging;
  if (!done) return complain(kName, a.target, done, 1);
  if (!a.quiet)
    std::printf("%s %s\n%s", a.dryRun ? "Would make an ourfs volume on" : "Made an ourfs volume on",
                a.target.c_str(), volumeText(made, false).c_str());
  return 0;
}

}  // namespace
}  // namespace ourfs

int main(int argc, char** argv) { return ourfs::run(argc, argv); }
