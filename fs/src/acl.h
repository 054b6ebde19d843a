// POSIX access control lists, in the form that the kernel hands over in system.posix_acl_*:
// version (2) and entries of tag, permissions and id, little-endian. Rules: acl(5).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace ourfs {

inline constexpr std::string_view kAccessAclName = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAclName = "system.posix_acl_default";

enum class AclTag : uint16_t {
  UserObj = 0x01,
  User = 0x02,
  GroupObj = 0x04,
  Group = 0x08,
  Mask = 0x10,
  Other = 0x20,
};

struct AclEntry {
  AclTag tag = AclTag::Other;
  uint16_t permissions = 0;  // r w x, as 4 2 1
  uint32_t id = 0;           // User and Group
};

class Acl {
 public:
  // EINVAL if it is not a valid list: unknown version or tag, entries out of order, one that must
  // be there missing or there twice, names without a mask. Bytes without an entry are no list:
  // nullopt.
  static Result<std::optional<Acl>> decode(std::string_view bytes);
  std::string encode() const;

  // The permission bits of a mode that stand for the list: owner, mask (or group), others.
  uint32_t modeBits() const;
  // True if those bits say all of it.
  bool isMode() const;
  // chmod: owner, mask (or group) and others become those of `mode`.
  void setMode(uint32_t mode);
  // The access list of a new file in a directory with this default list: what `mode` does not ask
  // for is taken away. The result is the permission bits of the new file.
  uint32_t limitTo(uint32_t mode);

 private:
  uint16_t* permissionsOf(AclTag tag);
  uint16_t* groupClass();
  std::vector<AclEntry> entries_;
};

// What a new file gets: its mode, and the lists that are stored with it.
struct InheritedAcl {
  uint32_t mode = 0;
  std::optional<std::string> access, defaults;
};
// `parentDefault`: the parent's default list, if it has one. `mode` as asked for, with its type;
// `umask` applies only without a default list.
Result<InheritedAcl> inheritAcl(const std::optional<std::string>& parentDefault, uint32_t mode,
                                uint32_t umask);

}  // namespace ourfs
