// The list behind -o, in one or two parts.
#include "fs/mount_options.h"
#include "fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ourfs::fuzz::Input in(data, size);
  ourfs::MountOptions options;
  const bool twice = in.u8() % 2 == 1;
  const std::string first = twice ? in.piece() : std::string();
  for (const std::string& list : {first, in.rest()}) {
    const ourfs::Status added = options.add(list);
    if (!added.isOk()) {
      // One line for people, whatever the bytes were.
      ourfs::fuzz::require(added.errnum() == EINVAL && !added.message().empty());
      return 0;
    }
  }
  const ourfs::Status whole = options.check();
  if (!whole.isOk()) {
    ourfs::fuzz::require(whole.errnum() == EINVAL && !whole.message().empty());
    return 0;
  }
  // What a mount relies on.
  ourfs::fuzz::require(options.threads > 0 && options.commit.count() > 0);
  ourfs::fuzz::require(options.cacheSize.v > 0 && options.dirtyLimit <= options.cacheSize);
  ourfs::fuzz::require(options.dirtyBackground <= options.cacheSize);
  return 0;
}
