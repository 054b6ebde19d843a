// CrashActor: single operations on a live filesystem over a recording device, each told to the
// model. Paths are relative to the root. An operation that is refused for want of space has changed
// nothing; any other error is a failure of the filesystem.
//
// One thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "block/record_device.h"
#include "crash/crash_model.h"
#include "fs/filesystem.h"

namespace ourfs::crash {

enum class Writing {
  Buffered,
  Direct,
  Stored,             // through a mapping: whole pages, as the kernel's page cache hands them over
  Synchronous,        // O_SYNC
  DataSynchronous,    // O_DSYNC
  DirectSynchronous,  // O_DIRECT and O_SYNC
  DirectDataSynchronous,  // O_DIRECT and O_DSYNC
};

class CrashActor {
 public:
  CrashActor(Filesystem& filesystem, RecordDevice& device, CrashModel& model);

  // ---- names; the last part of a path that is made must be new unless said otherwise ----
  Status createFile(const std::string& path, uint32_t permissions = 0644);
  Status makeDirectory(const std::string& path);
  Status makeSymlink(const std::string& path, const std::string& text);
  Status linkFile(const std::string& from, const std::string& to);
  // `forget`: the kernel knows the file no longer, so it is reclaimed with its last name. Else it
  // stays, as one that is open.
  Status unlinkFile(const std::string& path, bool forget);
  Status removeDirectory(const std::string& path);  // ENOTEMPTY is no failure, and does nothing
  Status renameNode(const std::string& from, const std::string& to);  // also over a file
  Status setAttribute(const std::string& path, const std::string& name, const std::string& value);

  // ---- data ----
  // Bytes that nobody else has.
  Status writeFile(const std::string& path, uint64_t at, uint64_t length, Writing how);
  // These bytes. In each of its sectors they must differ from what any other file ever held. Not
  // for Stored.
  Status writeBytes(const std::string& path, uint64_t at, std::string_view bytes, Writing how);
  Status truncateFile(const std::string& path, uint64_t size);
  Status allocate(const std::string& path, int mode, uint64_t at, uint64_t length);

  // ---- what makes durable, or only writes ----
  Status syncFile(const std::string& path, bool dataOnly);
  Status syncDirectory(const std::string& path);
  Status syncAll();
  Status flushData() { return filesystem_.data().writeback().flushAll(); }
  Status checkpoint() { return filesystem_.volume().checkpoint(); }

  bool exists(const std::string& path) const { return model_.tree().nodes.count(path) != 0; }
  uint64_t idOf(const std::string& path) const;
  uint64_t sizeOf(const std::string& path) const { return model_.sizeOf(idOf(path)); }
  uint64_t mark() { return device_.mark(); }

 private:
  struct Place {  // where a name is
    uint64_t parent = 0;
    std::string name;
  };
  struct Known {
    InodeNo ino;
    uint64_t lookups = 0;
  };
  struct Begun {
    Span span;
    Timestamp at;
  };
  Place placeOf(const std::string& path) const;
  InodeNo inodeOf(uint64_t id) const { return inodes_.at(id).ino; }
  Begun begin();
  // The operation has ended; these have changed. Directories among them get new times in the tree.
  Status finishNames(Begun begun, const Status& done, const std::vector<uint64_t>& touched);
  // `written`: the operation has changed what the file holds, so it must have new times.
  Status sampleTimes(const Begun& begun, uint64_t id, bool written);
  uint64_t adopt(const std::string& path, char kind, const std::string& target,
                 const Attributes& made);
  void movePaths(const std::string& from, const std::string& to);
  Status put(uint64_t id, uint64_t at, std::span<std::byte> bytes, Writing how);
  Status readBack(OpenFile& file, uint64_t id, uint64_t at, std::span<const std::byte> tried,
                  uint64_t begin);

  Filesystem& filesystem_;
  RecordDevice& device_;
  CrashModel& model_;
  std::map<uint64_t, Known> inodes_;  // by the model's id
  uint64_t nextId_ = kRootId + 1, nextVersion_ = 1;
};

}  // namespace ourfs::crash
