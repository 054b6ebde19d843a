#include "acl.h"

#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "common/codec.h"

namespace ourfs {

namespace {

constexpr uint32_t kAclVersion = 2;
constexpr size_t kAclEntrySize = 8;
constexpr uint32_t kNoId = UINT32_MAX;
constexpr uint32_t kPermissionBits = 0777;

bool isNamed(AclTag tag) { return tag == AclTag::User || tag == AclTag::Group; }

bool isTag(uint16_t tag) {
  switch (static_cast<AclTag>(tag)) {
    case AclTag::UserObj:
    case AclTag::User:
    case AclTag::GroupObj:
    case AclTag::Group:
    case AclTag::Mask:
    case AclTag::Other:
      return true;
  }
  return false;
}

bool valid(const std::vector<AclEntry>& entries) {
  size_t owners = 0, groups = 0, others = 0, masks = 0;
  std::set<std::pair<AclTag, uint32_t>> named;
  for (size_t i = 0; i < entries.size(); ++i) {
    const AclEntry& e = entries[i];
    if (e.permissions > 7) return false;
    if (i > 0 && e.tag < entries[i - 1].tag) return false;
    owners += e.tag == AclTag::UserObj;
    groups += e.tag == AclTag::GroupObj;
    others += e.tag == AclTag::Other;
    masks += e.tag == AclTag::Mask;
    if (isNamed(e.tag) && (e.id == kNoId || !named.emplace(e.tag, e.id).second)) return false;
  }
  return owners == 1 && groups == 1 && others == 1 && masks <= 1 && (named.empty() || masks == 1);
}

}  // namespace

Result<std::optional<Acl>> Acl::decode(std::string_view bytes) {
  if (bytes.empty()) return std::optional<Acl>();
  Decoder d(bytes);
  if (d.u32() != kAclVersion || !d.ok() || d.remaining() % kAclEntrySize != 0) {
    return Status::error(EINVAL);
  }
  if (d.atEnd()) return std::optional<Acl>();
  Acl acl;
  while (!d.atEnd()) {
    const uint16_t tag = d.u16();
    const uint16_t permissions = d.u16();
    const uint32_t id = d.u32();
    if (!isTag(tag)) return Status::error(EINVAL);
    acl.entries_.push_back({static_cast<AclTag>(tag), permissions, id});
  }
  if (!valid(acl.entries_)) return Status::error(EINVAL);
  return std::optional<Acl>(std::move(acl));
}

std::string Acl::encode() const {
  std::string out;
  Encoder e(out);
  e.u32(kAclVersion);
  for (const AclEntry& entry : entries_) {
    e.u16(static_cast<uint16_t>(entry.tag));
    e.u16(entry.permissions);
    e.u32(isNamed(entry.tag) ? entry.id : kNoId);
  }
  return out;
}

uint16_t* Acl::permissionsOf(AclTag tag) {
  auto it = std::find_if(entries_.begin(), entries_.end(),
                         [&](const AclEntry& e) { return e.tag == tag; });
  return it == entries_.end() ? nullptr : &it->permissions;
}

uint16_t* Acl::groupClass() {
  uint16_t* mask = permissionsOf(AclTag::Mask);
  return mask ? mask : permissionsOf(AclTag::GroupObj);
}

uint32_t Acl::modeBits() const {
  Acl copy = *this;
  return uint32_t{*copy.permissionsOf(AclTag::UserObj)} << 6 | uint32_t{*copy.groupClass()} << 3 |
         *copy.permissionsOf(AclTag::Other);
}

bool Acl::isMode() const { return entries_.size() == 3; }

void Acl::setMode(uint32_t mode) {
  *permissionsOf(AclTag::UserObj) = mode >> 6 & 7;
  *groupClass() = mode >> 3 & 7;
  *permissionsOf(AclTag::Other) = mode & 7;
}

uint32_t Acl::limitTo(uint32_t mode) {
  setMode(modeBits() & mode);
  return modeBits();
}

Result<InheritedAcl> inheritAcl(const std::optional<std::string>& parentDefault, uint32_t mode,
                                uint32_t umask) {
  InheritedAcl result;
  std::optional<Acl> defaults;
  if (parentDefault) {
    TRY_ASSIGN(defaults, Acl::decode(*parentDefault));
  }
  if (!defaults) {
    result.mode = mode & ~(umask & kPermissionBits);
    return result;
  }
  Acl access = *defaults;
  result.mode = (mode & ~kPermissionBits) | access.limitTo(mode);
  if (!access.isMode()) result.access = access.encode();
  if (S_ISDIR(mode)) result.defaults = *parentDefault;
  return result;
}

}  // namespace ourfs
