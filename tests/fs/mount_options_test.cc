#include "fs/mount_options.h"

#include <gtest/gtest.h>

#include "fs/byte_text.h"

namespace ourfs {
namespace {

Result<MountOptions> parse(const std::string& list) {
  MountOptions o;
  TRY(o.add(list));
  TRY(o.check());
  return o;
}

TEST(MountOptionsTest, EachFlagSetsWhatItNames) {
  struct {
    const char* list;
    bool (*holds)(const MountOptions&);
  } table[] = {
      {"", [](const MountOptions& o) { return !o.readOnly && o.posixAcl && !o.writebackCache; }},
      {"defaults", [](const MountOptions& o) { return o.atime == AtimeMode::Relative; }},
      {"ro", [](const MountOptions& o) { return o.readOnly; }},
      {"ro,rw", [](const MountOptions& o) { return !o.readOnly; }},
      {"noatime", [](const MountOptions& o) { return o.atime == AtimeMode::None; }},
      {"noatime,strictatime", [](const MountOptions& o) { return o.atime == AtimeMode::Strict; }},
      {"strictatime,relatime",
       [](const MountOptions& o) { return o.atime == AtimeMode::Relative; }},
      {"sync,dirsync", [](const MountOptions& o) { return o.sync && o.dirsync; }},
      {"nodev,nosuid,noexec",
       [](const MountOptions& o) { return o.nodev && o.nosuid && o.noexec; }},
      {"nodev,dev,nosuid,suid,noexec,exec",
       [](const MountOptions& o) { return !o.nodev && !o.nosuid && !o.noexec; }},
      {"noacl", [](const MountOptions& o) { return !o.posixAcl; }},
      {"writeback_cache", [](const MountOptions& o) { return o.writebackCache; }},
      {"writeback_cache,no_writeback_cache",
       [](const MountOptions& o) { return !o.writebackCache; }},
      {"ro,norecovery", [](const MountOptions& o) { return o.noRecovery; }},
      {"foreground", [](const MountOptions& o) { return o.foreground; }},
      {"", [](const MountOptions& o) { return !o.discard; }},
      {"discard", [](const MountOptions& o) { return o.discard; }},
      {"discard,nodiscard", [](const MountOptions& o) { return !o.discard; }},
      {"remount", [](const MountOptions& o) { return o.remount; }},
      {"cache_size=64M,dirty_limit=16M,dirty_background=4M",
       [](const MountOptions& o) {
         return o.cacheSize.v == 64 * MiB && o.dirtyLimit.v == 16 * MiB &&
                o.dirtyBackground.v == 4 * MiB;
       }},
      {"commit=30", [](const MountOptions& o) { return o.commit.count() == 30; }},
      {"threads=4", [](const MountOptions& o) { return o.threads == 4; }},
      {"loglevel=debug,logfile=/var/log/x",
       [](const MountOptions& o) { return o.logLevel == "debug" && o.logFile == "/var/log/x"; }},
  };
  for (const auto& row : table) {
    auto o = parse(row.list);
    ASSERT_TRUE(o.isOk()) << row.list << ": " << o.status().message();
    EXPECT_TRUE(row.holds(*o)) << row.list;
  }
}

TEST(MountOptionsTest, WhatMountAndFstabAddIsIgnored) {
  for (const char* list : {"defaults,auto,nofail,_netdev", "noauto,user,users,owner,group",
                           "x-systemd.automount,X-mount.mkdir", "comment=backup", "uhelper=udisks2",
                           "async,default_permissions", ",,rw,"})
    EXPECT_TRUE(parse(list).isOk()) << list;
}

TEST(MountOptionsTest, BadOptionsAreNamedInOneLine) {
  struct {
    const char *list, *says;
  } table[] = {
      {"nonsense", "nonsense"},
      {"nonsense=1", "nonsense=1"},
      {"rw=1", "rw=1"},
      {"discard=async", "discard=async"},
      {"quota", "quota"},
      {"commit=0", "commit=0"},
      {"commit=x", "commit=x"},
      {"commit=-1", "commit=-1"},
      {"threads=", "threads"},
      {"threads=1000", "1 to 64"},
      {"cache_size=lots", "lots"},
      {"cache_size=1K", "too small"},
      {"cache_size=8M,dirty_limit=16M", "cache_size"},
      {"dirty_limit=8M,dirty_background=9M", "dirty_limit"},
      {"norecovery", "ro"},
      {"logfile=", "logfile"},
      {"loglevel=silly", "silly"},
      {"x_systemd", "x_systemd"},
  };
  for (const auto& row : table) {
    auto o = parse(row.list);
    ASSERT_FALSE(o.isOk()) << row.list;
    EXPECT_EQ(o.errnum(), EINVAL) << row.list;
    EXPECT_NE(o.status().message().find(row.says), std::string::npos) << o.status().message();
    EXPECT_EQ(o.status().message().find('\n'), std::string::npos) << row.list;
  }
}

TEST(MountOptionsTest, SloppyLeavesOutOnlyWhatIsUnknown) {
  MountOptions o;
  o.sloppy = true;
  EXPECT_TRUE(o.add("nonsense,ro,quota=1").isOk());
  EXPECT_TRUE(o.readOnly);
  EXPECT_FALSE(o.add("commit=x").isOk());
}

TEST(ByteTextTest, SizesAreReadWithTheirUnits) {
  struct {
    const char* text;
    uint64_t bytes;
  } table[] = {{"0", 0},          {"512", 512},       {"1K", KiB},
               {"64k", 64 * KiB}, {"3MiB", 3 * MiB},  {"2GB", 2 * GiB},
               {"4G", 4 * GiB},   {"1T", 1024 * GiB}, {"7B", 7}};
  for (const auto& row : table) {
    auto bytes = parseBytes(row.text);
    ASSERT_TRUE(bytes.isOk()) << row.text;
    EXPECT_EQ(bytes->v, row.bytes) << row.text;
  }
}

TEST(ByteTextTest, WhatIsNoSizeIsRefused) {
  for (const char* text :
       {"", "K", "-1", "1.5G", "1X", "1KiBs", "1 K", "99999999999999999999", "20000000000T", "1BB"})
    EXPECT_FALSE(parseBytes(text).isOk()) << text;
}

TEST(ByteTextTest, SizesAreWrittenShortAndExact) {
  EXPECT_EQ(bytesText(ByteCount(0)), "0 B");
  EXPECT_EQ(bytesText(ByteCount(4096)), "4 KiB");
  EXPECT_EQ(bytesText(ByteCount(1536 * MiB)), "1536 MiB");
  EXPECT_EQ(bytesText(ByteCount(4 * GiB)), "4 GiB");
  EXPECT_EQ(bytesText(ByteCount(100)), "100 B");
}

}  // namespace
}  // namespace ourfs
