#include "xattr.h"

#include "acl.h"

namespace ourfs {

bool isAclName(std::string_view name) { return name == kAccessAclName || name == kDefaultAclName; }

Status checkXattrName(std::string_view name, bool posixAcl) {
  if (name.empty() || name.size() > kMaxXattrName) return Status::error(ERANGE);
  if (isAclName(name)) return posixAcl ? Status::ok() : Status::error(EOPNOTSUPP);
  for (std::string_view space : {"user.", "trusted.", "security."}) {
    if (name.starts_with(space)) {
      return name.size() > space.size() ? Status::ok() : Status::error(EINVAL);
    }
  }
  return Status::error(EOPNOTSUPP);
}

Result<std::optional<std::string>> readXattr(Index& index, InodeNo ino, uint32_t flags,
                                             std::string_view name) {
  const bool possible = (flags & kInodeHasXattr) && (!isAclName(name) || (flags & kInodeHasAcl)) &&
                        (name != kCapabilityName || (flags & kInodeHasCapability));
  if (!possible) return std::optional<std::string>();
  return index.get(xattrKey(ino, name));
}

Result<std::string> listXattrs(Index& index, InodeNo ino, uint32_t flags) {
  std::string list;
  if (!(flags & kInodeHasXattr)) return list;
  const std::string prefix = xattrPrefix(ino);
  TRY(index.scan(prefix, prefixEnd(prefix), [&](std::string_view key, std::string_view) {
    list.append(key.substr(prefix.size()));
    list.push_back('\0');
    return true;
  }));
  return list;
}

uint32_t xattrFlags(std::string_view list) {
  uint32_t flags = list.empty() ? 0 : kInodeHasXattr;
  while (!list.empty()) {
    const std::string_view name = list.substr(0, list.find('\0'));
    if (isAclName(name)) flags |= kInodeHasAcl;
    if (name == kCapabilityName) flags |= kInodeHasCapability;
    list.remove_prefix(name.size() + 1);
  }
  return flags;
}

}  // namespace ourfs
