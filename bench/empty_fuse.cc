// An empty FUSE server: names and sizes in memory, data thrown away. What it costs is what FUSE
// costs.
//   empty_fuse [libfuse options] MOUNTPOINT     (stays in the foreground with -f)
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

constexpr double kForever = 1e9;

struct Node {
  struct stat attributes {};
  std::map<std::string, fuse_ino_t> names;
};

std::mutex mutex;
std::unordered_map<fuse_ino_t, Node> nodes;
fuse_ino_t nextNode = 2;

fuse_entry_param entryOf(fuse_ino_t ino) {
  fuse_entry_param e{};
  e.ino = ino;
  e.attr = nodes[ino].attributes;
  e.attr_timeout = e.entry_timeout = kForever;
  return e;
}

fuse_ino_t make(fuse_ino_t parent, const char* name, mode_t mode) {
  fuse_ino_t ino = nextNode++;
  Node& node = nodes[ino];
  node.attributes.st_ino = ino;
  node.attributes.st_mode = mode;
  node.attributes.st_nlink = S_ISDIR(mode) ? 2 : 1;
  nodes[parent].names[name] = ino;
  return ino;
}

void init(void*, fuse_conn_info* conn) {
  conn->max_write = 1 << 20;
  conn->want &= ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE);
}

void lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  std::lock_guard lock(mutex);
  auto found = nodes[parent].names.find(name);
  fuse_entry_param e{};
  e.entry_timeout = kForever;
  if (found != nodes[parent].names.end()) e = entryOf(found->second);
  fuse_reply_entry(req, &e);
}

void forget(fuse_req_t req, fuse_ino_t, uint64_t) { fuse_reply_none(req); }

void getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  std::lock_guard lock(mutex);
  fuse_reply_attr(req, &nodes[ino].attributes, kForever);
}

void setattr(fuse_req_t req, fuse_ino_t ino, struct stat* attr, int set, fuse_file_info*) {
  std::lock_guard lock(mutex);
  if (set & FUSE_SET_ATTR_SIZE) nodes[ino].attributes.st_size = attr->st_size;
  fuse_reply_attr(req, &nodes[ino].attributes, kForever);
}

void create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* fi) {
  std::lock_guard lock(mutex);
  fuse_entry_param e = entryOf(make(parent, name, mode));
  fi->noflush = 1;
  fuse_reply_create(req, &e, fi);
}

void mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  std::lock_guard lock(mutex);
  fuse_entry_param e = entryOf(make(parent, name, mode | S_IFDIR));
  fuse_reply_entry(req, &e);
}

void removeName(fuse_req_t req, fuse_ino_t parent, const char* name) {
  std::lock_guard lock(mutex);
  fuse_reply_err(req, nodes[parent].names.erase(name) == 1 ? 0 : ENOENT);
}

void open(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  fi->noflush = 1;
  fi->keep_cache = 1;
  fuse_reply_open(req, fi);
}

void release(fuse_req_t req, fuse_ino_t, fuse_file_info*) { fuse_reply_err(req, 0); }
void fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) { fuse_reply_err(req, 0); }

void read(fuse_req_t req, fuse_ino_t, size_t size, off_t, fuse_file_info*) {
  static const std::vector<char> zeros(1 << 20);
  fuse_reply_buf(req, zeros.data(), size);
}

void write(fuse_req_t req, fuse_ino_t ino, const char*, size_t size, off_t pos, fuse_file_info*) {
  std::lock_guard lock(mutex);
  off_t& end = nodes[ino].attributes.st_size;
  end = std::max<off_t>(end, pos + static_cast<off_t>(size));
  fuse_reply_write(req, size);
}

}  // namespace

int main(int argc, char** argv) {
  fuse_args args = FUSE_ARGS_INIT(argc, argv);
  fuse_cmdline_opts options{};
  if (fuse_parse_cmdline(&args, &options) != 0 || !options.mountpoint) return 2;
  Node& root = nodes[FUSE_ROOT_ID];
  root.attributes.st_ino = FUSE_ROOT_ID;
  root.attributes.st_mode = S_IFDIR | 0755;
  root.attributes.st_nlink = 2;

  fuse_lowlevel_ops ops{};
  ops.init = init;
  ops.lookup = lookup;
  ops.forget = forget;
  ops.getattr = getattr;
  ops.setattr = setattr;
  ops.create = create;
  ops.mkdir = mkdir;
  ops.unlink = removeName;
  ops.rmdir = removeName;
  ops.open = open;
  ops.release = release;
  ops.fsync = fsync;
  ops.read = read;
  ops.write = write;
  fuse_session* session = fuse_session_new(&args, &ops, sizeof ops, nullptr);
  if (!session || fuse_set_signal_handlers(session) != 0 ||
      fuse_session_mount(session, options.mountpoint) != 0)
    return 1;
  fuse_daemonize(options.foreground);
  fuse_session_loop(session);
  fuse_session_unmount(session);
  fuse_session_destroy(session);
  return 0;
}
