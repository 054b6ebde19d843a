#include "faults/fault_workload.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include <algorithm>

#include "common/aligned_buffer.h"

namespace ourfs::faults {

void FaultWorkload::prepare() {
  makeDirectory("d1");
  for (const char* path : {"f1", "f2", "old", "gone", "d1/keep"}) {
    HandlePtr file = create(path);
    write(file, 0, path == std::string("f1") ? 32 * KiB : 20 * KiB);
    close(std::move(file));
  }
  syncAll();
  checkpoint();
  // What replay has to do.
  HandlePtr file = create("d1/replayed");
  write(file, 512, 9 * KiB);
  fsync(file);
  close(std::move(file));
  rename("gone", "d1/gone");
  syncAll();
  // Damage to the last journal write cannot be told from tearing: it has nothing that is judged.
  setAttribute("old");
  syncAll();
}

void FaultWorkload::run() {
  stepFiles();
  stepNames();
  stepSizes();
  stepRest();
}

void FaultWorkload::stepFiles() {
  kept_.push_back(keep(open("f1")));
  kept_.push_back(keep(open("f2")));
  kept_.push_back(keep(create("new")));
  Handle* handles[] = {kept_[0].first.get(), kept_[1].first.get(), kept_[2].first.get()};
  if (std::count(std::begin(handles), std::end(handles), nullptr) != 0) return;
  const auto& [f1, f1b] = kept_[0];
  const auto& [f2, f2b] = kept_[1];
  const auto& [fresh, freshb] = kept_[2];
  write(fresh, 0, 20 * KiB);
  fsync(fresh);
  write(f1, 4096 + 512, 3 * KiB);  // within a block: it is read first
  fsync(f1, true);
  write(f2, 20 * KiB, 12 * KiB);
  write(f2, 512, 512);
  write(f1, 16 * KiB, 8 * KiB, true);
  write(f1, 32 * KiB, 8 * KiB, true);
  fsync(f1b);
  checkpoint();
  look(f2);
  (void)note("write back", fs_.data().writeback().flushAll());
  fsync(f2b);
}

void FaultWorkload::stepNames() {
  makeDirectory("d2");
  rename("old", "d2/moved");
  syncDirectory("d2");
  link("new", "d1/link");
  HandlePtr temporary = create("temporary");
  write(temporary, 0, 8 * KiB);
  fsync(temporary);
  unlink("temporary");
  write(temporary, 8 * KiB, 4 * KiB);
  close(std::move(temporary));  // frees what it had
  HandlePtr next = create("d1/keep.new");
  write(next, 0, 6 * KiB);
  if (fsync(next)) rename("d1/keep.new", "d1/keep");
  close(std::move(next));
  syncDirectory("d1");
  setAttribute("new");
  checkpoint();
}

void FaultWorkload::stepSizes() {
  if (kept_.size() < 3) return;
  const HandlePtr &f1 = kept_[0].first, &f2 = kept_[1].first, &fresh = kept_[2].second;
  punch(f2, 4 * KiB, 8 * KiB);
  truncate(f1, 18 * 512);
  write(f1, 20 * KiB, 4 * KiB);
  fsync(f1);
  punch(fresh, 512, 10 * KiB, true);
  truncate(fresh, 40 * KiB);
  write(fresh, 2 * KiB, 1 * KiB);
  fsync(fresh, true);
  unlink("d1/gone");
  look(f1);
}

void FaultWorkload::stepRest() {
  for (int i = 0; i < 3; ++i) {
    HandlePtr file = create("many" + std::to_string(i));
    write(file, 0, 5 * KiB);
    if (i == 1) fsync(file);
    close(std::move(file));
    checkpoint();
  }
  syncAll();
  for (const Kept& kept : kept_) look(kept.first);
}

void FaultWorkload::end() {
  for (Kept& kept : kept_) endOf(kept);
  if (!fs_.volume().failure().isOk()) return endStopped();
  syncAll();
  // What the first one was told it is not told again, unless it is news.
  const FaultModel::Time failed = syncFailed_;
  syncAll();
  const bool again = syncFailed_ != failed && fs_.volume().failure().isOk();
  if (again) broken_.push_back("sync fails again although nothing new failed");
}

// Each open file hears of each error once, and both hear of the same.
void FaultWorkload::endOf(Kept& kept) {
  for (int round = 0; round < 2; ++round) {
    const bool stopped = !fs_.volume().failure().isOk();  // it may yet stop from another thread
    const int before = kept.first ? kept.first->errors + kept.second->errors : 0;
    const bool first = fsync(kept.first), second = fsync(kept.second);
    if (!kept.first) return;
    if (stopped) {
      if (first || second) broken_.push_back("an fsync succeeds after the volume has failed");
    } else if (fs_.volume().failure().isOk() && round == 1 &&
               kept.first->errors + kept.second->errors != before) {
      broken_.push_back("an open file is told an error twice");
    }
  }
  if (fs_.volume().failure().isOk() && kept.first->errors != kept.second->errors) {
    broken_.push_back("inode " + std::to_string(kept.first->ino.v) + ": one open file was told " +
                      std::to_string(kept.first->errors) + " errors, the other one " +
                      std::to_string(kept.second->errors));
  }
}

// The volume has failed: nothing changes any more, nobody is told that something is durable, and it
// says so.
void FaultWorkload::endStopped() {
  const auto expect = [&](const char* what, int errnum, int expected) {
    if (errnum == expected) return;
    broken_.push_back(std::string(what) + " answers " +
                      Status::error(std::max(errnum, 1)).message() +
                      " on a volume that has failed");
  };
  expect("sync", fs_.syncAll().errnum(), EIO);
  expect("create", fs_.create(caller_, InodeNo(1), "late", 0600, O_RDWR).errnum(), EROFS);
  expect("unlink", fs_.unlink(caller_, InodeNo(1), "f1").errnum(), EROFS);
  auto root = fs_.openDirectory(InodeNo(1));
  if (root) {
    expect("fsync of a directory", fs_.fsyncDirectory(**root).errnum(), EIO);
    fs_.release(std::move(*root));
  }
  const std::string stats = fs_.stats(false);
  if (stats.find("volume.failure \n") != std::string::npos)
    broken_.push_back("stats do not say why");
  if (stats.find("volume.read_only true") == std::string::npos)
    broken_.push_back("stats do not say that it is read-only");
}

}  // namespace ourfs::faults
