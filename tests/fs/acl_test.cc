// POSIX ACLs: the format, and inheritance as acl(5) tells it.
#include "../../fs/src/acl.h"

#include <sys/stat.h>

#include "filesystem_fixture.h"

namespace ourfs::test {
namespace {

TEST(AclTest, AValidListSurvivesDecodingAndEncoding) {
  for (const char* text :
       {"u::rwx,g::r-x,o::r--", "u::rwx,u:100:r--,u:7:rw-,g::r-x,g:5:---,m::rwx,o::---",
        "u::---,g::---,m::---,o::---"}) {
    auto acl = Acl::decode(aclOf(text));
    ASSERT_TRUE(acl.isOk() && *acl) << text;
    EXPECT_EQ((*acl)->encode(), aclOf(text)) << text;
  }
}

TEST(AclTest, AnEmptyListIsNoList) {
  EXPECT_FALSE(*Acl::decode(""));
  EXPECT_FALSE(*Acl::decode(aclOf("")));
}

TEST(AclTest, WhatIsNotAListIsInvalid) {
  std::string good = aclOf("u::rwx,g::r-x,o::r--");
  std::string version = good, tag = good, permission = good;
  version[0] = 1;
  tag[4] = 3;
  permission[6] = 8;
  const std::vector<std::string> bad = {
      good.substr(0, 3),
      good.substr(0, good.size() - 1),
      version,
      tag,
      permission,
      aclOf("u::rwx,g::r-x"),                   // nobody for others
      aclOf("u::rwx,u::rwx,g::r-x,o::r--"),     // two owners
      aclOf("g::r-x,u::rwx,o::r--"),            // out of order
      aclOf("u::rwx,u:100:r--,g::r-x,o::r--"),  // a name without a mask
      aclOf("u::rwx,u:100:r--,u:100:rw-,g::r-x,m::rwx,o::r--"),
      aclOf("u::rwx,g::r-x,m::rwx,m::rwx,o::r--"),
  };
  for (const std::string& bytes : bad) EXPECT_EQ(Acl::decode(bytes).errnum(), EINVAL);
}

TEST(AclTest, TheModeStandsForOwnerMaskAndOthers) {
  struct {
    const char* acl;
    uint32_t bits;
    bool isMode;
  } table[] = {
      {"u::rwx,g::r-x,o::r--", 0754, true},
      {"u::rwx,u:1:r--,g::rwx,m::r--,o::--x", 0741, false},
      {"u::rw-,g::rwx,m::---,o::---", 0600, false},
  };
  for (const auto& row : table) {
    auto acl = Acl::decode(aclOf(row.acl));
    ASSERT_TRUE(acl.isOk() && *acl);
    EXPECT_EQ((*acl)->modeBits(), row.bits) << row.acl;
    EXPECT_EQ((*acl)->isMode(), row.isMode) << row.acl;
  }
}

TEST(AclTest, ChmodChangesTheMaskAndNotTheOwningGroup) {
  auto acl = Acl::decode(aclOf("u::rwx,u:1:rwx,g::r-x,m::rwx,o::r-x"));
  ASSERT_TRUE(acl.isOk() && *acl);
  (*acl)->setMode(0640);
  EXPECT_EQ((*acl)->encode(), aclOf("u::rw-,u:1:rwx,g::r-x,m::r--,o::---"));
}

TEST(AclTest, InheritanceFollowsTheManual) {
  struct {
    const char* parent;  // default list of the parent
    uint32_t mode, umask;
    uint32_t newMode;
    const char* access;  // stored access list
    bool defaults;
  } table[] = {
      {nullptr, S_IFREG | 0666, 022, S_IFREG | 0644, nullptr, false},
      {nullptr, S_IFDIR | 02777, 077, S_IFDIR | 02700, nullptr, false},
      // A default list replaces the umask.
      {"u::rwx,g::r-x,o::r-x", S_IFREG | 0666, 077, S_IFREG | 0644, nullptr, false},
      {"u::rwx,g::r-x,o::r-x", S_IFDIR | 0777, 077, S_IFDIR | 0755, nullptr, true},
      {"u::rwx,u:100:rwx,g::r-x,m::rwx,o::---", S_IFREG | 0666, 022, S_IFREG | 0660,
       "u::rw-,u:100:rwx,g::r-x,m::rw-,o::---", false},
      {"u::rwx,u:100:rwx,g::r-x,m::rwx,o::---", S_IFDIR | 0777, 0, S_IFDIR | 0770,
       "u::rwx,u:100:rwx,g::r-x,m::rwx,o::---", true},
      {"u::r--,g::rwx,m::r-x,o::rwx", S_IFREG | 0750, 0, S_IFREG | 0450,
       "u::r--,g::rwx,m::r-x,o::---", false},
  };
  for (const auto& row : table) {
    std::optional<std::string> parent;
    if (row.parent) parent = aclOf(row.parent);
    auto got = inheritAcl(parent, row.mode, row.umask);
    ASSERT_TRUE(got.isOk());
    EXPECT_EQ(got->mode, row.newMode);
    EXPECT_EQ(got->access.has_value(), row.access != nullptr);
    if (got->access && row.access) {
      EXPECT_EQ(*got->access, aclOf(row.access));
    }
    EXPECT_EQ(got->defaults.has_value(), row.defaults);
    if (got->defaults) {
      EXPECT_EQ(*got->defaults, aclOf(row.parent));
    }
  }
}

class AclOnDiskTest : public FilesystemTest {
 protected:
  int setAcl(InodeNo ino, std::string_view name, std::string_view text) {
    return fs_->setxattr(caller_, ino, name, aclOf(text), 0).errnum();
  }
  std::string acl(InodeNo ino, std::string_view name) {
    auto value = fs_->getxattr(ino, name);
    return value.isOk() ? *value : std::to_string(value.errnum());
  }
};

TEST_F(AclOnDiskTest, NewFilesAndDirectoriesInheritTheDefaultList) {
  const char* defaults = "u::rwx,u:100:rwx,g::r-x,m::rwx,o::---";
  ASSERT_EQ(setAcl(kRoot, kDefaultAclName, defaults), 0);
  caller_.umask = 077;
  InodeNo f = file(kRoot, "f", 0666), d = dir(kRoot, "d", 0777);
  InodeNo l = must(fs_->symlink(caller_, kRoot, "l", "f")).ino;
  EXPECT_EQ(stat(f).mode, S_IFREG | 0660u);
  EXPECT_EQ(acl(f, kAccessAclName), aclOf("u::rw-,u:100:rwx,g::r-x,m::rw-,o::---"));
  EXPECT_EQ(acl(f, kDefaultAclName), std::to_string(ENODATA));
  EXPECT_EQ(stat(d).mode, S_IFDIR | 0770u);
  EXPECT_EQ(acl(d, kDefaultAclName), aclOf(defaults));
  EXPECT_EQ(stat(l).mode, S_IFLNK | 0777u);
  InodeNo deep = dir(d, "deep", 0700);
  EXPECT_EQ(acl(deep, kDefaultAclName), aclOf(defaults));
  EXPECT_EQ(stat(deep).mode, S_IFDIR | 0700u);
}

TEST_F(AclOnDiskTest, AnAccessListSetsTheModeAndVanishesIfItSaysNoMore) {
  InodeNo f = file(kRoot, "f", 0640);
  ASSERT_EQ(setAcl(f, kAccessAclName, "u::rwx,u:5:rw-,g::r--,m::rw-,o::r--"), 0);
  EXPECT_EQ(stat(f).mode, S_IFREG | 0764u);
  ASSERT_TRUE(fs_->setattr(caller_, f,
                           {.mode = 0600,
                            .uid = {},
                            .gid = {},
                            .size = {},
                            .atime = {},
                            .mtime = {},
                            .ctime = {}})
                  .isOk());
  EXPECT_EQ(acl(f, kAccessAclName), aclOf("u::rw-,u:5:rw-,g::r--,m::---,o::---"));
  ASSERT_EQ(setAcl(f, kAccessAclName, "u::rw-,g::r--,o::r--"), 0);
  EXPECT_EQ(stat(f).mode, S_IFREG | 0644u);
  EXPECT_EQ(acl(f, kAccessAclName), std::to_string(ENODATA));
  EXPECT_EQ(*fs_->listxattr(f), "");
}

TEST_F(AclOnDiskTest, ListsWhereTheyMakeNoSenseAreRefused) {
  InodeNo f = file(kRoot, "f");
  InodeNo l = must(fs_->symlink(caller_, kRoot, "l", "f")).ino;
  EXPECT_EQ(setAcl(f, kDefaultAclName, "u::rwx,g::r-x,o::r-x"), EACCES);
  EXPECT_EQ(setAcl(f, kDefaultAclName, ""), 0);
  EXPECT_EQ(setAcl(l, kAccessAclName, "u::rwx,g::r-x,o::r-x"), EOPNOTSUPP);
  EXPECT_EQ(setAcl(f, kAccessAclName, "u::rwx,g::r-x"), EINVAL);
  EXPECT_EQ(fs_->removexattr(caller_, f, kAccessAclName).errnum(), 0);
}

}  // namespace
}  // namespace ourfs::test
