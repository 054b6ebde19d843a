// Extended attributes, and what the records of their inodes say of them.
#include <sys/stat.h>

#include "acl.h"
#include "check/checker.h"
#include "xattr.h"

namespace ourfs {

namespace {
constexpr uint32_t kModeBits = 0777;
}  // namespace

// One attribute by itself; `listed`: bytes of the names of its inode so far.
std::string Checker::whyWrong(const ParsedKey& key, std::string_view value, const Node& node,
                              size_t listed) {
  if (key.name.find('\0') != std::string::npos || !checkXattrName(key.name, true))
    return "no attribute has such a name";
  if (value.size() > kMaxXattrValue) return "its value is larger than 64 KiB";
  if (listed > kMaxXattrList) return "the names of its inode take more than 64 KiB";
  if (!isAclName(key.name)) return "";
  if (S_ISLNK(node.mode)) return "a symbolic link has no access list";
  if (key.name == kDefaultAclName && !node.isDirectory()) return "it is for directories";
  const auto acl = Acl::decode(value);
  return acl.isOk() && *acl ? "" : "it is no access list";
}

void Checker::checkAttribute(const ParsedKey& key, std::string_view value, Node& node,
                             size_t listed) {
  const std::string what = inodeText(key.ino.v) + ": extended attribute " + quoted(key.name) + ": ";
  if (const std::string why = whyWrong(key, value, node, listed); !why.empty())
    return problem(what + why, [ino = key.ino, name = key.name](Transaction& t) {
      t.erase(xattrKey(ino, name));
    });
  node.foundFlags |= xattrFlags(key.name + '\0');
  if (key.name != kAccessAclName || node.rebuilt) return;
  // The kernel goes by the list.
  const uint32_t bits = (*Acl::decode(value))->modeBits();
  if ((node.mode & kModeBits) == bits) return;
  problem(what + "it does not agree with the mode", [this, ino = key.ino, bits](Transaction& t) {
    rewrite(
        ino.v, [bits](InodeRecord& r) { r.mode = (r.mode & ~kModeBits) | bits; }, t);
  });
}

Status Checker::checkAttributes() {
  uint64_t last = 0;
  size_t listed = 0;
  TRY(scanPrefix('X', [&](const ParsedKey& key, std::string_view value) {
    ++report_.attributes;
    if (last != key.ino.v) listed = 0;
    last = key.ino.v;
    listed += key.name.size() + 1;
    auto node = nodes_.find(key.ino.v);
    if (node != nodes_.end()) return checkAttribute(key, value, node->second, listed);
    problem("extended attribute " + quoted(key.name) + " of " + inodeText(key.ino.v) +
                ", which does not exist",
            [ino = key.ino, name = key.name](Transaction& t) { t.erase(xattrKey(ino, name)); });
  }));
  for (const auto& [ino, node] : nodes_) {
    const uint32_t said = node.flags & kXattrFlags;
    if (node.rebuilt || said == node.foundFlags) continue;
    // A removal that was interrupted: what is left of them.
    if (node.orphan && !(node.foundFlags & ~said)) continue;
    // Losing the capability with an owner change leaves it set: it says that there may be some.
    if (said == (node.foundFlags | kInodeHasXattr)) continue;
    problem(inodeText(ino) + (node.foundFlags & ~said
                                  ? ": has attributes that its flags deny"
                                  : ": its flags tell of attributes that it does not have"),
            [this, i = ino, found = node.foundFlags](Transaction& t) {
              rewrite(
                  i, [found](InodeRecord& r) { r.flags = (r.flags & ~kXattrFlags) | found; }, t);
            });
  }
  return Status::ok();
}

}  // namespace ourfs
