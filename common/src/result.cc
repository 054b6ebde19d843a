#include "common/result.h"

#include <system_error>

namespace ourfs {

std::string Status::message() const {
  if (line_) return *line_;
  // Not strerror: it is not safe with threads.
  return std::generic_category().message(errnum_);
}

Status Status::withContext(const std::string& context) const {
  if (isOk()) return *this;
  return error(errnum_, context + ": " + message());
}

}  // namespace ourfs
