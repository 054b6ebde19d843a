// A copy that stops: what was copied counts, and an error is told only if that is nothing. A store
// of the kernel's page cache is the exception.
#include <gtest/gtest.h>

#include "iomap/test_file.h"

namespace ourfs {
namespace {

using test::callOnce;
using test::TestFile;

class ShortWriteTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  ~ShortWriteTest() override { SyncPoints::instance().reset(); }
  static uint64_t page() { return std::max<uint64_t>(4096, GetParam()); }

  static void stopCopy(int nth) {
    callOnce(
        "write.before_copy", [] { SyncPoints::instance().forceError("write.before_copy", EIO); },
        nth);
  }
  // A write of six folios whose `nth` copy stops, and one of the rest, as its caller goes on.
  static bool goesOnWithWhatWasCopied(int nth) {
    TestFile file(GetParam());
    file.write(0, 8 * page(), 1);
    file.flush();
    file.evictAll();
    const uint64_t from = page() / 2, length = 6 * page();
    stopCopy(nth);
    const int64_t done = file.write(from, length, 2);
    if (nth == 1) return done == -EIO && file.verify().empty();
    if (done < 0) return false;
    const auto copied = static_cast<uint64_t>(done);
    const auto rest = static_cast<int64_t>(length - copied);
    return file.write(from + copied, length - copied, 3) == rest && file.verify().empty();
  }
  // A store of four pages where there is room for two.
  static int64_t storeWithoutRoom() {
    TestFile file(GetParam(), 64 * 65536);
    file.truncate(80 * 65536);
    const uint64_t room = 64 * 65536 - GetParam();  // block 0 is nobody's
    file.write(0, room - 2 * page(), 1);
    const int64_t done = file.mmapStore(70 * 65536, 4 * page(), 2);
    EXPECT_EQ(file.accounts(), "");
    file.flush();
    return done;
  }
};
INSTANTIATE_TEST_SUITE_P(Blocks, ShortWriteTest, ::testing::Values(1024, 4096, 16384, 65536),
                         [](const auto& p) { return std::to_string(p.param / 1024) + "K"; });

TEST_P(ShortWriteTest, WhatWasCopiedCountsAndAnErrorIsToldOnlyIfThatIsNothing) {
  EXPECT_TRUE(goesOnWithWhatWasCopied(1));
  for (const int nth : {2, 3, 7}) {
    EXPECT_TRUE(goesOnWithWhatWasCopied(nth)) << nth;
    for (const char* mutant : {"iomap.error_hides_bytes", "iomap.short_counts_whole"}) {
      ScopedMutant rule(mutant);
      EXPECT_FALSE(goesOnWithWhatWasCopied(nth)) << mutant << ", copy " << nth;
    }
  }
}

// The kernel takes all pages of a store for clean, whatever count it is answered.
TEST_P(ShortWriteTest, AStoreThatStopsIsAnErrorThoughSomeOfItWasStored) {
  EXPECT_EQ(storeWithoutRoom(), -ENOSPC);
  ScopedMutant mutant("iomap.short_store");
  EXPECT_GT(storeWithoutRoom(), 0);
}

}  // namespace
}  // namespace ourfs
