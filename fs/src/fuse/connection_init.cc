// INIT: what the kernel offers and what we ask for.
#include <algorithm>

#include "fuse/connection.h"

namespace ourfs {

namespace {

constexpr uint32_t kOldestMinor = 31;  // Linux 5.4; older kernels lack what the mount relies on
constexpr uint32_t kMaxReadahead = 16 * MiB;
constexpr uint16_t kMaxBackground = 256, kCongestionThreshold = 192;

// Not asked for: locks (POSIX_LOCKS, FLOCK_LOCKS; the kernel's own suffice on one machine), splice,
// AUTO_INVAL_DATA (nobody else changes data), NO_OPEN (handles carry the error cursor), security
// contexts.
constexpr uint64_t kWanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT |
                             FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |
                             FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_ABORT_ERROR |
                             FUSE_MAX_PAGES | FUSE_EXPLICIT_INVAL_DATA | FUSE_HANDLE_KILLPRIV_V2 |
                             kInitSetxattrExt | kInitExt | kInitDirectIoAllowMmap | kInitAllowIdmap;

}  // namespace

void handleInit(Connection& c, Request& r) {
  // Old kernels send less than the whole structure.
  fuse_init_in in{};
  std::span<const std::byte> bytes = r.takeBytes(std::min(sizeof(in), r.rest().size()));
  std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<std::byte*>(&in));
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = FUSE_KERNEL_MINOR_VERSION;
  if (in.major > FUSE_KERNEL_VERSION) {  // it asks again with our version
    r.reply(out);
    return;
  }
  if (in.major < FUSE_KERNEL_VERSION || in.minor < kOldestMinor) {
    r.fail(EPROTO);
    return;
  }
  uint64_t offered = in.flags;
  if (offered & kInitExt) offered |= uint64_t{in.flags2} << 32;
  uint64_t wanted = kWanted;
  if (c.options.posixAcl) wanted |= FUSE_POSIX_ACL | FUSE_DONT_MASK;
  if (c.options.writebackCache) wanted |= FUSE_WRITEBACK_CACHE;
  if (c.options.cacheSymlinks) wanted |= FUSE_CACHE_SYMLINKS;
  uint64_t agreed = offered & wanted;
  c.posixAcl = (agreed & FUSE_POSIX_ACL) != 0;
  c.longSetxattr = (agreed & kInitSetxattrExt) != 0;
  c.writebackCache = (agreed & FUSE_WRITEBACK_CACHE) != 0;

  out.max_readahead = kMaxReadahead;
  out.flags = static_cast<uint32_t>(agreed);
  out.flags2 = static_cast<uint32_t>(agreed >> 32);
  out.max_background = kMaxBackground;
  out.congestion_threshold = kCongestionThreshold;
  out.max_write = RequestBuffer::kMaxPayload;
  out.time_gran = 1;
  out.max_pages = RequestBuffer::kMaxPayload / RequestBuffer::kPage;
  r.reply(out);
}

}  // namespace ourfs
