// Requests about open directories.
#include <cstring>

#include "fuse/connection.h"

namespace ourfs {

namespace {

// A listing in the reply area: fuse_dirent or fuse_direntplus, each padded to 8 bytes.
class DirectoryListing {
 public:
  DirectoryListing(const Connection& c, std::span<std::byte> area, bool plus)
      : connection_(c), area_(area), plus_(plus) {}

  // False when it does not fit.
  bool add(const DirectoryEntry& e) {
    size_t head = plus_ ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
    size_t size = FUSE_REC_ALIGN(head + e.name.size());
    if (used_ + size > area_.size()) return false;
    std::byte* at = area_.data() + used_;
    if (plus_) {
      // Node 0: the name without attributes; "." and ".." are always so.
      fuse_entry_out entry = e.attributes ? connection_.entry(*e.attributes) : fuse_entry_out{};
      std::memcpy(at, &entry, sizeof(entry));
    }
    fuse_dirent entry{e.ino.v, e.nextCookie, static_cast<uint32_t>(e.name.size()), e.type};
    std::memcpy(at + head - FUSE_NAME_OFFSET, &entry, FUSE_NAME_OFFSET);
    std::memcpy(at + head, e.name.data(), e.name.size());
    std::memset(at + head + e.name.size(), 0, size - head - e.name.size());
    used_ += size;
    return true;
  }
  size_t size() const { return used_; }

 private:
  const Connection& connection_;
  std::span<std::byte> area_;
  bool plus_;
  size_t used_ = 0;
};

bool isDot(std::string_view name) { return name == "." || name == ".."; }

void readDirectory(Connection& c, Request& r, bool plus) {
  auto in = r.take<fuse_read_in>();
  if (!r.ok()) {
    r.fail(EINVAL);
    return;
  }
  DirectoryListing listing(c, r.replyArea(in.size), plus);
  Status done =
      c.fs.readDirectory(*openFile(in.fh), in.offset, plus, [&](const DirectoryEntry& entry) {
        DirectoryEntry e = entry;
        if (isDot(e.name)) e.attributes = nullptr;
        return listing.add(e);
      });
  // Entries that were taken hold lookups already: they are delivered, and the error comes again.
  if (!done && listing.size() == 0) {
    r.fail(done);
  } else {
    r.replyFromArea(listing.size());
  }
}

}  // namespace

void handleOpendir(Connection& c, Request& r) {
  auto directory = c.fs.openDirectory(r.node());
  if (!directory) {
    r.fail(staleIfMissing(directory.errnum()));
    return;
  }
  fuse_open_out out{c.keep(std::move(*directory)), FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR, 0};
  if (!r.reply(out)) c.fs.release(c.take(out.fh));
}

void handleReaddir(Connection& c, Request& r) { readDirectory(c, r, false); }
void handleReaddirplus(Connection& c, Request& r) { readDirectory(c, r, true); }

void handleFsyncdir(Connection& c, Request& r) {
  auto in = r.take<fuse_fsync_in>();
  r.fail(r.ok() ? c.fs.fsyncDirectory(*openFile(in.fh)) : Status::error(EINVAL));
}

}  // namespace ourfs
