// What goes wrong behind an open file: told once to each that was open then; and a copy whose
// source cannot be read to its end.
#include <thread>

#include "block/fault_device.h"
#include "filesystem_fixture.h"

namespace ourfs::test {
namespace {

class ErrorReportTest : public FilesystemTest {
 protected:
  void SetUp() override {
    FilesystemTest::SetUp();
    unmount();
    fault_ = FaultDevice::wrap(*device_);
    mount(*fault_);
  }
  void TearDown() override {
    FilesystemTest::TearDown();
    fs_.reset();
    volume_.reset();
  }
  void failData(IoOp op, uint64_t skip = 0) {
    FaultRule rule;
    rule.op = op;
    rule.cls = IoClass::Data;
    rule.skip = skip;
    fault_->addRule(rule);
  }
  // Writes through `to`; the data never reaches the disk, as `by` is the first to hear.
  int lose(OpenFile& to, OpenFile& by) {
    write(to, 0, std::string(4096, 'x'));
    failData(IoOp::Write);
    return sync(by);
  }
  int sync(OpenFile& handle) { return fs_->fsync(handle, true).errnum(); }
  std::vector<int> answers(const std::string& name);
  std::vector<int> copied(const std::string& name, uint64_t readable);

  std::unique_ptr<FaultDevice> fault_;
};

// What fsync answers to two open files, and to one that is opened after the first error.
std::vector<int> ErrorReportTest::answers(const std::string& name) {
  const InodeNo ino = file(kRoot, name);
  OpenFilePtr a = open(ino), b = open(ino);
  std::vector<int> all = {lose(*a, *a), sync(*a), sync(*b), sync(*b)};
  OpenFilePtr late = open(ino);
  all.push_back(sync(*late));
  all.push_back(lose(*b, *late));
  for (const auto* each : {&a, &b, &a, &b, &late}) all.push_back(sync(**each));
  for (auto* each : {&a, &b, &late}) fs_->release(std::move(*each));
  return all;
}

TEST_F(ErrorReportTest, EachOpenFileIsToldEachErrorOnceAndALaterOneNot) {
  const std::vector<int> right = {EIO, 0, EIO, 0, 0, EIO, EIO, EIO, 0, 0, 0};
  EXPECT_EQ(answers("f"), right);
  for (const char* mutant : {"iomap.error_told_to_one", "iomap.error_told_again",
                             "iomap.error_without_counter", "files.open_without_sample"}) {
    ScopedMutant rule(mutant);
    EXPECT_NE(answers(mutant), right) << mutant;
  }
}

// Written back with nobody waiting for it, and lost; then synced by somebody with no open file.
TEST_F(ErrorReportTest, ASyncOfEverythingIsToldOnceOfWhatWasLostBefore) {
  const InodeNo ino = file(kRoot, "f");
  OpenFilePtr handle = open(ino);
  const auto lost = [&] {
    write(*handle, 0, std::string(4096, 'x'));
    failData(IoOp::Write);
    EXPECT_EQ(fs_->data().writeback().flushAll().errnum(), EIO);
    return std::vector<int>{fs_->syncAll().errnum(), fs_->syncAll().errnum(), sync(*handle)};
  };
  EXPECT_EQ(lost(), (std::vector<int>{EIO, 0, EIO}));
  {
    ScopedMutant mutant("files.sync_hides_loss");
    EXPECT_NE(lost(), (std::vector<int>{EIO, 0, EIO}));
  }
  EXPECT_EQ(sync(*handle), 0);
  fs_->release(std::move(handle));
}

// An fsync is on its way when another thread closes a copy of the descriptor.
TEST_F(ErrorReportTest, TwoAtATimeOnOneOpenFileAreNotBothTold) {
  const InodeNo ino = file(kRoot, "f");
  OpenFilePtr mine = open(ino), other = open(ino);
  EXPECT_EQ(lose(*other, *other), EIO);
  write(*other, 0, std::string(4096, 'y'));
  SyncPoints& points = SyncPoints::instance();
  points.park("journal.before_flush");
  int synced = -1;
  std::thread syncer([&] { synced = fs_->fsync(*mine, false).errnum(); });
  ASSERT_TRUE(points.awaitParked("journal.before_flush"));
  EXPECT_EQ(fs_->flush(*mine).errnum(), EIO);
  points.release("journal.before_flush");
  syncer.join();
  EXPECT_EQ(synced, 0);
  EXPECT_EQ(sync(*mine), 0);
  fs_->release(std::move(mine));
  fs_->release(std::move(other));
}

// Copies 3 MiB of which the read behind `readable` MiB fails, then the rest: the answers in MiB or
// -errno; at the end 1 if the copy is whole.
std::vector<int> ErrorReportTest::copied(const std::string& name, uint64_t readable) {
  const InodeNo source = file(kRoot, name + "-source"), target = file(kRoot, name);
  std::string text(3 * MiB, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / 4096 % 26);
  fill(source, text);
  unmount();
  mount(*fault_);
  lookup(kRoot, name + "-source"), lookup(kRoot, name);
  OpenFilePtr from = open(source), to = open(target);
  failData(IoOp::Read, readable);
  std::vector<int> all;
  uint64_t done = 0;
  for (int round = 0; round < 2; ++round) {
    auto n = fs_->copyRange(*from, FileOffset(done), *to, FileOffset(done), ByteCount(3 * MiB));
    all.push_back(n ? static_cast<int>(n->v / MiB) : -n.errnum());
    done += n ? n->v : 0;
  }
  all.push_back(read(*to, 0, text.size() + 1) == text);
  fs_->release(std::move(from));
  fs_->release(std::move(to));
  return all;
}

TEST_F(ErrorReportTest, ACopyAnswersWhatItCopiedAndAnErrorOnlyIfThatIsNothing) {
  EXPECT_EQ(copied("nothing", 0), (std::vector<int>{-EIO, 3, 1}));
  EXPECT_EQ(copied("some", 1), (std::vector<int>{1, 2, 1}));
  ScopedMutant mutant("files.copy_error_hides_bytes");
  EXPECT_NE(copied("mutant", 1), (std::vector<int>{1, 2, 1}));
}

}  // namespace
}  // namespace ourfs::test
