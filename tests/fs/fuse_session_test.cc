#include "fs/fuse_session.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <array>
#include <atomic>
#include <map>
#include <thread>

#include "block/fault_device.h"
#include "block/memory_device.h"
#include "common/sync_point.h"
#include "fake_kernel.h"

namespace ourfs {
namespace {

constexpr uint64_t kRoot = FUSE_ROOT_ID;
constexpr uint32_t kAllFlags = 0xffffffff;

class FuseSessionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    memory_ = MemoryDevice::create(ByteCount(64 * MiB));
    device_ = FaultDevice::wrap(*memory_);
    ASSERT_TRUE(formatVolume(*device_, {}).isOk());
    auto volume = Volume::open(*device_, {});
    ASSERT_TRUE(volume.isOk()) << volume.status().message();
    volume_ = std::move(*volume);
    auto filesystem = Filesystem::start(*volume_, {});
    ASSERT_TRUE(filesystem.isOk()) << filesystem.status().message();
    filesystem_ = std::move(*filesystem);
  }
  void TearDown() override {
    device_->clear();
    kernel_.hangUp();
    session_.reset();
    if (filesystem_) {
      EXPECT_TRUE(filesystem_->stop().isOk());
    }
    filesystem_.reset();
    EXPECT_TRUE(volume_->close().isOk());
  }

  void serve(FuseSessionOptions options = {}) {
    session_ = FuseSession::start(kernel_.sessionEnd(), *filesystem_, options, [this] {
      destroyed_ = true;
      EXPECT_TRUE(filesystem_->stop().isOk());
      filesystem_.reset();
    });
  }
  fuse_init_out init(uint32_t minor = 45) {
    fuse_init_in in{};
    in.major = FUSE_KERNEL_VERSION;
    in.minor = minor;
    in.max_readahead = 128 * KiB;
    in.flags = in.flags2 = kAllFlags;
    return kernel_.call(FUSE_INIT, 0, in).as<fuse_init_out>();
  }
  void serveAndInit(FuseSessionOptions options = {}) {
    serve(options);
    ASSERT_EQ(init().major, 7u);
    ASSERT_TRUE(session_->awaitInit(std::chrono::seconds(10)));
  }

  struct Opened {
    fuse_entry_out entry;
    fuse_open_out open;
  };
  Opened create(const std::string& name, uint32_t mode = 0644, uint32_t flags = O_RDWR) {
    Reply r = kernel_.call(FUSE_CREATE, kRoot, fuse_create_in{flags, S_IFREG | mode, 022, 0}, name);
    EXPECT_EQ(r.error, 0);
    return r.as<Opened>();
  }
  Reply write(const Opened& file, uint64_t offset, const std::string& text,
              uint32_t writeFlags = 0) {
    fuse_write_in in{};
    in.fh = file.open.fh;
    in.offset = offset;
    in.size = static_cast<uint32_t>(text.size());
    in.write_flags = writeFlags;
    return kernel_.call(FUSE_WRITE, file.entry.nodeid, in,
                        std::vector<char>(text.begin(), text.end()));
  }
  std::string read(const Opened& file, uint64_t offset, uint32_t size) {
    fuse_read_in in{};
    in.fh = file.open.fh;
    in.offset = offset;
    in.size = size;
    Reply r = kernel_.call(FUSE_READ, file.entry.nodeid, in);
    EXPECT_EQ(r.error, 0);
    return r.body;
  }
  fuse_attr attributes(uint64_t node) {
    Reply r = kernel_.call(FUSE_GETATTR, node, fuse_getattr_in{});
    EXPECT_EQ(r.error, 0);
    return r.as<fuse_attr_out>().attr;
  }
  int release(const Opened& file) {
    fuse_release_in in{};
    in.fh = file.open.fh;
    return kernel_.call(FUSE_RELEASE, file.entry.nodeid, in).error;
  }

  std::unique_ptr<MemoryDevice> memory_;
  std::unique_ptr<FaultDevice> device_;
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<Filesystem> filesystem_;
  FakeKernel kernel_;
  std::unique_ptr<FuseSession> session_;
  std::atomic<bool> destroyed_{false};
};

TEST_F(FuseSessionTest, InitAsksForWhatSpeedAndSafetyNeed) {
  serve();
  fuse_init_out out = init();
  EXPECT_EQ(out.max_write, 1 * MiB);
  EXPECT_EQ(out.max_pages, 256);
  EXPECT_EQ(out.time_gran, 1u);
  for (uint32_t flag :
       {FUSE_HANDLE_KILLPRIV_V2, FUSE_PARALLEL_DIROPS, FUSE_POSIX_ACL, FUSE_DONT_MASK,
        FUSE_ATOMIC_O_TRUNC, FUSE_EXPORT_SUPPORT, FUSE_READDIRPLUS_AUTO, FUSE_ASYNC_DIO})
    EXPECT_TRUE(out.flags & flag) << flag;
  for (uint32_t flag :
       {FUSE_WRITEBACK_CACHE, FUSE_POSIX_LOCKS, FUSE_FLOCK_LOCKS, FUSE_AUTO_INVAL_DATA})
    EXPECT_FALSE(out.flags & flag) << flag;
}

TEST_F(FuseSessionTest, InitAsksForTheWritebackCacheAndAclsOnlyIfWanted) {
  FuseSessionOptions options;
  options.writebackCache = true;
  options.posixAcl = false;
  serve(options);
  fuse_init_out out = init();
  EXPECT_TRUE(out.flags & FUSE_WRITEBACK_CACHE);
  EXPECT_FALSE(out.flags & (FUSE_POSIX_ACL | FUSE_DONT_MASK));
}

TEST_F(FuseSessionTest, AnOldKernelIsRefusedAndANewMajorIsAskedAgain) {
  serve();
  fuse_init_in old{};
  old.major = 7;
  old.minor = 19;
  EXPECT_EQ(kernel_.call(FUSE_INIT, 0, old).error, EPROTO);
  fuse_init_in future{};
  future.major = 8;
  EXPECT_EQ(kernel_.call(FUSE_INIT, 0, future).as<fuse_init_out>().major, 7u);
}

TEST_F(FuseSessionTest, AMissingNameIsANegativeEntryThatLasts) {
  serveAndInit();
  Reply r = kernel_.call(FUSE_LOOKUP, kRoot, std::string("nobody"));
  EXPECT_EQ(r.error, 0);
  EXPECT_EQ(r.as<fuse_entry_out>().nodeid, 0u);
  EXPECT_GT(r.as<fuse_entry_out>().entry_valid, 1u << 20);
}

TEST_F(FuseSessionTest, DotAndDotDotCanBeLookedUpForExport) {
  serveAndInit();
  fuse_entry_out dir =
      kernel_.call(FUSE_MKDIR, kRoot, fuse_mkdir_in{S_IFDIR | 0755, 0}, std::string("d"))
          .as<fuse_entry_out>();
  EXPECT_EQ(kernel_.call(FUSE_LOOKUP, dir.nodeid, std::string(".")).as<fuse_entry_out>().nodeid,
            dir.nodeid);
  EXPECT_EQ(kernel_.call(FUSE_LOOKUP, dir.nodeid, std::string("..")).as<fuse_entry_out>().nodeid,
            kRoot);
  Opened opened = create("file");
  uint64_t file = opened.entry.nodeid;  // file handles of files come back so, too
  EXPECT_EQ(kernel_.call(FUSE_LOOKUP, file, std::string(".")).as<fuse_entry_out>().nodeid, file);
  EXPECT_EQ(kernel_.call(FUSE_UNLINK, kRoot, std::string("file")).error, 0);
  EXPECT_EQ(kernel_.call(FUSE_LOOKUP, file, std::string(".")).error, ENOENT);
  EXPECT_EQ(release(opened), 0);
  kernel_.send(FUSE_FORGET, file, fuse_forget_in{2});
}

TEST_F(FuseSessionTest, WhatIsWrittenIsReadBack) {
  serveAndInit();
  Opened file = create("file");
  EXPECT_TRUE(file.open.open_flags & FOPEN_KEEP_CACHE);
  EXPECT_TRUE(file.open.open_flags & FOPEN_NOFLUSH);
  std::string text(70000, 'x');
  text[69999] = 'y';
  EXPECT_EQ(write(file, 5000, text).as<fuse_write_out>().size, 70000u);
  EXPECT_EQ(attributes(file.entry.nodeid).size, 75000u);
  EXPECT_EQ(read(file, 5000, 70000), text);
  EXPECT_EQ(read(file, 0, 4096), std::string(4096, '\0'));
  EXPECT_EQ(read(file, 75000, 100), "");
  EXPECT_EQ(release(file), 0);
}

TEST_F(FuseSessionTest, TheUmaskIsAppliedHereWithAclsAndByTheKernelWithout) {
  serveAndInit();
  EXPECT_EQ(create("file", 0666).entry.attr.mode & 07777, 0644u);
}

TEST_F(FuseSessionTest, AWriteByAUserClearsSetuidAndTellsTheKernel) {
  serveAndInit();
  Opened file = create("tool", 04755);
  EXPECT_EQ(write(file, 0, "root").error, 0);
  EXPECT_EQ(attributes(file.entry.nodeid).mode & 07777, 04755u);
  EXPECT_TRUE(kernel_.notifications.empty());
  EXPECT_EQ(write(file, 0, "user", FUSE_WRITE_KILL_SUIDGID).error, 0);
  EXPECT_EQ(attributes(file.entry.nodeid).mode & 07777, 0755u);
  ASSERT_EQ(kernel_.notifications.size(), 1u);
  EXPECT_EQ(kernel_.notifications[0].error, FUSE_NOTIFY_INVAL_INODE);
  auto what = kernel_.notifications[0].as<fuse_notify_inval_inode_out>();
  EXPECT_EQ(what.ino, file.entry.nodeid);
  EXPECT_LT(what.off, 0);
}

TEST_F(FuseSessionTest, ChownAndTruncateByAUserClearSetuid) {
  serveAndInit();
  for (uint32_t valid : {FATTR_UID, FATTR_SIZE}) {
    Opened file = create("tool" + std::to_string(valid), 04755);
    fuse_setattr_in in{};
    in.valid = valid | FATTR_KILL_SUIDGID;
    in.uid = 1000;
    Reply r = kernel_.call(FUSE_SETATTR, file.entry.nodeid, in);
    EXPECT_EQ(r.as<fuse_attr_out>().attr.mode & 07777, 0755u) << valid;
  }
}

TEST_F(FuseSessionTest, OpenWithTruncateEmptiesTheFile) {
  serveAndInit();
  Opened file = create("file", 04755);
  write(file, 0, "something");
  Reply r = kernel_.call(FUSE_OPEN, file.entry.nodeid,
                         fuse_open_in{O_WRONLY | O_TRUNC, FUSE_OPEN_KILL_SUIDGID});
  EXPECT_EQ(r.error, 0);
  EXPECT_EQ(attributes(file.entry.nodeid).size, 0u);
  EXPECT_EQ(attributes(file.entry.nodeid).mode & 07777, 0755u);
  EXPECT_EQ(kernel_.notifications.size(), 1u);
  Opened second{file.entry, r.as<fuse_open_out>()};
  EXPECT_EQ(release(second), 0);
}

TEST_F(FuseSessionTest, OnlyDirectOpensBypassTheKernelsCache) {
  serveAndInit();
  Opened file = create("file");
  EXPECT_FALSE(file.open.open_flags & FOPEN_DIRECT_IO);
  Reply r = kernel_.call(FUSE_OPEN, file.entry.nodeid, fuse_open_in{O_RDWR | O_DIRECT, 0});
  EXPECT_TRUE(r.as<fuse_open_out>().open_flags & FOPEN_DIRECT_IO);
  EXPECT_TRUE(r.as<fuse_open_out>().open_flags & FOPEN_PARALLEL_DIRECT_WRITES);
}

TEST_F(FuseSessionTest, WithTheWritebackCacheAWriteOnlyFileMayBeRead) {
  FuseSessionOptions options;
  options.writebackCache = true;
  serveAndInit(options);
  Opened file = create("file", 0644, O_WRONLY | O_APPEND);
  EXPECT_FALSE(file.open.open_flags & FOPEN_NOFLUSH);
  EXPECT_EQ(write(file, 100, "page", FUSE_WRITE_CACHE).as<fuse_write_out>().size, 4u);
  EXPECT_EQ(read(file, 100, 4), "page");  // it may extend, and lies where the kernel put it
}

// The kernel may hold a longer file than the daemon knows of; only the kernel can read that.
TEST_F(FuseSessionTest, WithTheWritebackCacheDirectOpensAreTheKernels) {
  FuseSessionOptions options;
  options.writebackCache = true;
  serveAndInit(options);
  Opened file = create("file");
  Reply r = kernel_.call(FUSE_OPEN, file.entry.nodeid, fuse_open_in{O_RDONLY | O_DIRECT, 0});
  EXPECT_EQ(r.error, 0);
  EXPECT_FALSE(r.as<fuse_open_out>().open_flags & FOPEN_DIRECT_IO);
}

TEST_F(FuseSessionTest, SyncfsMakesEverythingDurable) {
  serveAndInit();
  Opened file = create("file");
  write(file, 0, "data");
  FaultRule rule;
  rule.op = IoOp::Flush;
  rule.kind = FaultKind::Delay;
  rule.times = UINT64_MAX;
  int counted = device_->addRule(rule);
  EXPECT_EQ(kernel_.call(FUSE_SYNCFS, kRoot, uint64_t{0}).error, 0);
  EXPECT_GE(device_->hits(counted), 1u);
}

TEST_F(FuseSessionTest, TmpfileHasNoNameAndIsUsable) {
  serveAndInit();
  Reply r = kernel_.call(FUSE_TMPFILE, kRoot, fuse_create_in{O_RDWR, S_IFREG | 0600, 0, 0},
                         std::string("/"));
  ASSERT_EQ(r.error, 0);
  Opened file = r.as<Opened>();
  EXPECT_EQ(file.entry.attr.nlink, 0u);
  EXPECT_EQ(write(file, 0, "hidden").error, 0);
  EXPECT_EQ(read(file, 0, 10), "hidden");
  EXPECT_EQ(
      kernel_.call(FUSE_LINK, kRoot, fuse_link_in{file.entry.nodeid}, std::string("seen")).error,
      0);
  EXPECT_EQ(attributes(file.entry.nodeid).nlink, 1u);
}

TEST_F(FuseSessionTest, StatxTellsTheBirthTime) {
  serveAndInit();
  Opened file = create("file");
  Reply r = kernel_.call(52, file.entry.nodeid, std::array<uint32_t, 6>{});
  ASSERT_EQ(r.error, 0);
  ASSERT_EQ(r.body.size(), 32u + 256u);
  EXPECT_EQ(r.as<uint32_t>(32), STATX_BASIC_STATS | STATX_BTIME);
  EXPECT_GT(r.as<int64_t>(32 + 80), 1'700'000'000);  // stx_btime
}

struct Listed {
  uint64_t node = 0, ino = 0, cookie = 0;
};
std::map<std::string, Listed> parsePlus(const std::string& body) {
  std::map<std::string, Listed> found;
  for (size_t at = 0; at + FUSE_NAME_OFFSET_DIRENTPLUS < body.size();) {
    fuse_direntplus e;
    std::memcpy(&e, body.data() + at, FUSE_NAME_OFFSET_DIRENTPLUS);
    found[body.substr(at + FUSE_NAME_OFFSET_DIRENTPLUS, e.dirent.namelen)] = {
        e.entry_out.nodeid, e.dirent.ino, e.dirent.off};
    at += FUSE_REC_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + e.dirent.namelen);
  }
  return found;
}

TEST_F(FuseSessionTest, ReaddirplusListsNamesWithNodesInSteps) {
  serveAndInit();
  for (int n = 0; n < 50; ++n) create("name" + std::to_string(n));
  uint64_t handle = kernel_.call(FUSE_OPENDIR, kRoot, fuse_open_in{}).as<fuse_open_out>().fh;
  std::map<std::string, Listed> all;
  fuse_read_in in{};
  in.fh = handle;
  in.size = 1024;
  for (int step = 0; step < 100; ++step) {
    Reply r = kernel_.call(FUSE_READDIRPLUS, kRoot, in);
    ASSERT_EQ(r.error, 0);
    if (r.body.empty()) break;
    for (auto& [name, entry] : parsePlus(r.body)) {
      EXPECT_TRUE(all.emplace(name, entry).second) << name << " came twice";
      in.offset = std::max(in.offset, entry.cookie);
    }
  }
  EXPECT_EQ(all.size(), 52u);
  EXPECT_EQ(all["."].node, 0u);
  EXPECT_EQ(all["name7"].node, all["name7"].ino);
}

TEST_F(FuseSessionTest, ExtendedAttributesFollowTheSizeConvention) {
  serveAndInit();
  uint64_t node = create("file").entry.nodeid;
  EXPECT_EQ(kernel_
                .call(FUSE_SETXATTR, node, fuse_setxattr_in{5, 0, 0, 0}, std::string("user.color"),
                      std::vector<char>{'g', 'r', 'e', 'e', 'n'})
                .error,
            0);
  auto get = [&](uint32_t room) {
    return kernel_.call(FUSE_GETXATTR, node, fuse_getxattr_in{room, 0}, std::string("user.color"));
  };
  EXPECT_EQ(get(0).as<fuse_getxattr_out>().size, 5u);
  EXPECT_EQ(get(4).error, ERANGE);
  EXPECT_EQ(get(100).body, "green");
  EXPECT_EQ(kernel_.call(FUSE_LISTXATTR, node, fuse_getxattr_in{100, 0}).body,
            std::string("user.color\0", 11));
  EXPECT_EQ(kernel_.call(FUSE_REMOVEXATTR, node, std::string("user.color")).error, 0);
  EXPECT_EQ(get(100).error, ENODATA);
}

TEST_F(FuseSessionTest, AnAclByAUserOutsideTheGroupClearsSetgid) {
  serveAndInit();
  uint64_t node = create("file", 02755).entry.nodeid;
  // Version 2, then owner rwx, group r-x, others r-x: each tag, permissions and id.
  std::vector<char> acl{2, 0, 0,  0,  1,  0,  7,    0, -1, -1, -1, -1, 4,  0,
                        5, 0, -1, -1, -1, -1, 0x20, 0, 5,  0,  -1, -1, -1, -1};
  Reply r = kernel_.call(
      FUSE_SETXATTR, node,
      fuse_setxattr_in{static_cast<uint32_t>(acl.size()), 0, FUSE_SETXATTR_ACL_KILL_SGID, 0},
      std::string("system.posix_acl_access"), acl);
  EXPECT_EQ(r.error, 0);
  EXPECT_EQ(attributes(node).mode & 07777, 0755u);
}

TEST_F(FuseSessionTest, WhatIsUnknownOrTooShortIsRefused) {
  serveAndInit();
  EXPECT_EQ(kernel_.call(4000, kRoot).error, ENOSYS);
  EXPECT_EQ(kernel_.call(FUSE_POLL, kRoot, fuse_poll_in{}).error, ENOSYS);
  EXPECT_EQ(kernel_.call(FUSE_IOCTL, kRoot, fuse_ioctl_in{}).error, ENOTTY);
  EXPECT_EQ(kernel_.call(FUSE_SETATTR, kRoot, uint32_t{1}).error, EINVAL);
  EXPECT_EQ(kernel_.call(FUSE_LOOKUP, kRoot, std::vector<char>{'n', 'o', 'n', 'u', 'l'}).error,
            EINVAL);
  fuse_write_in lies{};
  lies.size = 4096;
  EXPECT_EQ(kernel_.call(FUSE_WRITE, kRoot, lies).error, EINVAL);
}

TEST_F(FuseSessionTest, ForgetGetsNoReply) {
  serveAndInit();
  uint64_t node = create("file").entry.nodeid;
  kernel_.send(FUSE_FORGET, node, fuse_forget_in{1});
  kernel_.send(FUSE_BATCH_FORGET, 0, fuse_batch_forget_in{1, 0}, fuse_forget_one{node, 1});
  kernel_.send(FUSE_INTERRUPT, 0, fuse_interrupt_in{1});
  EXPECT_EQ(attributes(kRoot).ino, kRoot);  // the only reply
}

TEST_F(FuseSessionTest, DestroyWaitsForRequestsInWorkAndIsAnsweredWhenClosed) {
  serveAndInit();
  Opened file = create("file");
  write(file, 0, "data");
  FaultRule rule;
  rule.op = IoOp::Flush;
  rule.kind = FaultKind::Hold;
  rule.times = UINT64_MAX;
  int held = device_->addRule(rule);
  uint64_t sync = kernel_.send(FUSE_SYNCFS, kRoot, uint64_t{0});
  while (device_->held() == 0) std::this_thread::yield();
  uint64_t destroy = kernel_.send(FUSE_DESTROY, kRoot);
  EXPECT_TRUE(kernel_.silent());
  EXPECT_FALSE(destroyed_.load());
  device_->removeRule(held);
  EXPECT_EQ(kernel_.await(sync).error, 0);
  EXPECT_EQ(kernel_.await(destroy).error, 0);
  EXPECT_TRUE(destroyed_.load());
  session_->stop();
  EXPECT_TRUE(session_->awaitEndFor(std::chrono::milliseconds(0)));
}

TEST_F(FuseSessionTest, ManyRequestsAtOnceAreServedWhileSomeWait) {
  FuseSessionOptions options;
  options.idleThreads = options.keptThreads = 1;
  options.maxThreads = 8;
  serveAndInit(options);
  Opened file = create("file");
  write(file, 0, "data");
  FaultRule rule;
  rule.op = IoOp::Flush;
  rule.kind = FaultKind::Hold;
  rule.times = UINT64_MAX;
  int held = device_->addRule(rule);
  std::vector<uint64_t> waiting;
  for (int n = 0; n < 4; ++n) waiting.push_back(kernel_.send(FUSE_SYNCFS, kRoot, uint64_t{0}));
  while (device_->held() == 0) std::this_thread::yield();
  EXPECT_EQ(attributes(kRoot).ino, kRoot);
  device_->removeRule(held);
  for (uint64_t unique : waiting) EXPECT_EQ(kernel_.await(unique).error, 0);
}

TEST_F(FuseSessionTest, ThreadsThatEndAreNotTakenForReaders) {
  FuseSessionOptions options;
  options.idleThreads = options.keptThreads = 1;
  serveAndInit(options);
  auto& points = SyncPoints::instance();
  constexpr int kBusy = 4;
  points.park("session.request", kBusy);
  std::vector<uint64_t> asked;
  for (int i = 0; i < kBusy; ++i) {
    asked.push_back(kernel_.send(FUSE_GETATTR, kRoot, fuse_getattr_in{}));
    ASSERT_TRUE(points.awaitParked("session.request", i + 1));
  }
  points.park("session.thread_ends", kBusy);
  points.release("session.request");
  for (uint64_t request : asked) EXPECT_EQ(kernel_.await(request).error, 0);
  ASSERT_TRUE(points.awaitParked("session.thread_ends", kBusy));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(attributes(kRoot).ino, kRoot);
  points.reset();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(attributes(kRoot).ino, kRoot);
}

TEST_F(FuseSessionTest, StopEndsThreadsThatRead) {
  serveAndInit();
  EXPECT_FALSE(session_->awaitEndFor(std::chrono::milliseconds(0)));
  session_->stop();
  EXPECT_TRUE(session_->awaitEndFor(std::chrono::milliseconds(0)));
  EXPECT_FALSE(destroyed_.load());
}

TEST_F(FuseSessionTest, TheEndOfTheConnectionEndsTheSession) {
  serveAndInit();
  kernel_.hangUp();
  session_->awaitEnd();
  EXPECT_TRUE(session_->awaitEndFor(std::chrono::milliseconds(0)));
}

}  // namespace
}  // namespace ourfs
