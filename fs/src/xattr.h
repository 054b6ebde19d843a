// Extended attributes of one inode, as the index keeps them: one key per name.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/result.h"
#include "index/index.h"
#include "index/schema.h"

namespace ourfs {

inline constexpr size_t kMaxXattrName = 255, kMaxXattrValue = 65536, kMaxXattrList = 65536;
inline constexpr std::string_view kCapabilityName = "security.capability";

// All flags of an inode that speak of its attributes.
inline constexpr uint32_t kXattrFlags = kInodeHasXattr | kInodeHasAcl | kInodeHasCapability;

// ERANGE for a name that is too long or empty; EOPNOTSUPP for a namespace that is not kept here.
Status checkXattrName(std::string_view name, bool posixAcl);
bool isAclName(std::string_view name);

// `flags`: of the inode's record; they answer most questions without the index.
Result<std::optional<std::string>> readXattr(Index& index, InodeNo ino, uint32_t flags,
                                             std::string_view name);
// All names, each with its NUL.
Result<std::string> listXattrs(Index& index, InodeNo ino, uint32_t flags);

// The kInode* flags of an inode whose attribute names are `list`.
uint32_t xattrFlags(std::string_view list);

}  // namespace ourfs
