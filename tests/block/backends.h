// Every kind of BlockDevice, made ready for the conformance suite.
#pragma once

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "block/block_device.h"

namespace ourfs {

// A device and everything under it.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual BlockDevice& device() = 0;
};

struct BackendKind {
  std::string name;
  // An error means that this machine cannot have it, and says why.
  Result<std::unique_ptr<Backend>> (*make)(ByteCount size);
};
inline std::ostream& operator<<(std::ostream& out, const BackendKind& kind) {
  return out << kind.name;
}

std::vector<BackendKind> allBackends();

}  // namespace ourfs
