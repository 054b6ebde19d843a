// Filesystem's inside: what its source files share. One source per group of operations.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "acl.h"
#include "clock.h"
#include "directory.h"
#include "fs/filesystem.h"
#include "inode_change.h"
#include "inode_count.h"
#include "reclaimer.h"
#include "volume_settings.h"
#include "xattr.h"

namespace ourfs {

inline constexpr uint32_t kMaxLinks = 65000;                // names of one file
inline constexpr uint32_t kMaxDirectoryLinks = 0x7fffffff;  // 2 + subdirectories
inline constexpr size_t kMaxSymlinkLength = 4095;
inline constexpr uint64_t kMaxFileSize = (uint64_t{1} << 63) - 1;

class OpenFile {
 public:
  OpenFile(InodePtr i, int f, ErrSeq::Cursor c) : inode(std::move(i)), flags(f), cursor(c) {}
  const InodePtr inode;
  const int flags;  // O_*
  Mutex mutex;
  ErrSeq::Cursor cursor GUARDED_BY(mutex);  // which background error it has been told
};

class FilesystemImpl final : public Filesystem {
 public:
  FilesystemImpl(Volume& volume, const FilesystemOptions& options);
  ~FilesystemImpl() override;
  Status begin();
  Status stop() override;

  Result<Attributes> lookup(InodeNo parent, std::string_view name) override;
  void forget(InodeNo ino, uint64_t count) override;
  Result<Attributes> mknod(const Caller& caller, InodeNo parent, std::string_view name,
                           uint32_t mode, uint32_t rdev) override;
  Result<Attributes> mkdir(const Caller& caller, InodeNo parent, std::string_view name,
                           uint32_t mode) override;
  Result<Attributes> symlink(const Caller& caller, InodeNo parent, std::string_view name,
                             std::string_view target) override;
  Result<Attributes> link(const Caller& caller, InodeNo ino, InodeNo newParent,
                          std::string_view newName) override;
  Status unlink(const Caller& caller, InodeNo parent, std::string_view name) override;
  Status rmdir(const Caller& caller, InodeNo parent, std::string_view name) override;
  Status rename(const Caller& caller, InodeNo parent, std::string_view name, InodeNo newParent,
                std::string_view newName, uint32_t flags) override;
  Result<std::string> readlink(InodeNo ino) override;

  Result<Attributes> getattr(InodeNo ino) override;
  Result<Attributes> setattr(const Caller& caller, InodeNo ino,
                             const AttributeChange& change) override;
  StatfsReply statfs() override;
  Status setxattr(const Caller& caller, InodeNo ino, std::string_view name, std::string_view value,
                  int flags) override;
  Result<std::string> getxattr(InodeNo ino, std::string_view name) override;
  Result<std::string> listxattr(InodeNo ino) override;
  Status removexattr(const Caller& caller, InodeNo ino, std::string_view name) override;

  Result<OpenFilePtr> open(InodeNo ino, int flags) override;
  Result<std::pair<Attributes, OpenFilePtr>> create(const Caller& caller, InodeNo parent,
                                                    std::string_view name, uint32_t mode,
                                                    int flags) override;
  Result<std::pair<Attributes, OpenFilePtr>> tmpfile(const Caller& caller, InodeNo parent,
                                                     uint32_t mode, int flags) override;
  void release(OpenFilePtr file) override;
  Status flush(OpenFile& file) override;
  Status fsync(OpenFile& file, bool dataOnly) override;
  Result<ByteCount> read(OpenFile& file, FileOffset pos, std::span<std::byte> into) override;
  Result<ByteCount> write(OpenFile& file, FileOffset pos, std::span<const std::byte> from,
                          FileData::WriteFlags flags) override;
  Status fallocate(OpenFile& file, int mode, FileOffset pos, ByteCount length) override;
  Result<FileOffset> lseek(OpenFile& file, FileOffset pos, int whence) override;
  Result<ByteCount> copyRange(OpenFile& from, FileOffset fromPos, OpenFile& to, FileOffset toPos,
                              ByteCount length) override;

  Result<OpenFilePtr> openDirectory(InodeNo ino) override;
  Status readDirectory(OpenFile& directory, uint64_t cookie, bool plus,
                       const std::function<bool(const DirectoryEntry&)>& take) override;
  Status fsyncDirectory(OpenFile& directory) override;

  Status syncAll() override;
  std::string stats(bool json) override;
  Status makeMapsStale(InodeNo ino) override;
  Volume& volume() override { return volume_; }
  FileData& data() override { return *data_; }

 private:
  struct NewInode {
    uint32_t mode = 0;  // with its type
    uint32_t rdev = 0;
    std::string_view target;  // symbolic links
    bool linkable = false;    // O_TMPFILE
  };
  // What a name leads to, with the parent locked.
  struct Found {
    Dirent entry;
    InodePtr inode;
  };
  struct RenameStep;  // filesystem_rename.cc

  // ---- common ----
  Directory namesOf(const Inode& directory) {
    return Directory(volume_.index(), volume_.superblock().nameKey, directory.ino);
  }
  Status checkWritable() const;
  Status checkName(std::string_view name) const;
  Result<InodePtr> directoryOf(InodeNo ino);  // ENOTDIR
  // It still has a name. The caller holds its inode lock, so that it keeps it.
  Status checkAlive(const Inode& directory);
  InodeRecord recordOf(const Inode& inode);  // a copy
  Attributes attributesOf(const Inode& inode);
  Result<InodePtr> findAndLock(Directory& names, std::string_view name, InodeLocks& locks,
                               bool* lookAgain);
  // Makes a change durable if the mount asks for it.
  Status finish(Lsn lsn);
  // The change of an operation has been committed: whoever lost its last name will be reclaimed.
  void unlinked(const InodePtr& inode);
  void touchAtime(Inode& inode);
  // Runs an operation again while it answers ENOSPC and unlinked files give space back.
  template <class Operation>
  auto withSpace(Operation operation) -> decltype(operation()) {
    for (int round = 0;; ++round) {
      const uint64_t before = reclaimer_.freed();
      auto result = operation();
      if (result.errnum() != ENOSPC || !moreSpace(round, before)) return result;
    }
  }
  bool moreSpace(int round, uint64_t before);

  // ---- names ----
  Result<Attributes> lookupSelf(InodeNo ino);
  // Makes an inode, with a name unless `name` is empty (O_TMPFILE). It counts as one lookup.
  Result<InodePtr> makeInode(const Caller& caller, InodeNo parent, std::string_view name,
                             const NewInode& spec);
  Result<InodePtr> makeInodeOnce(const Caller& caller, InodeNo parent, std::string_view name,
                                 const NewInode& spec, Lsn* lsn);
  InodeRecord newRecord(const Caller& caller, const InodeRecord& parent, const NewInode& spec);
  Result<Attributes> linkOnce(InodeNo ino, InodeNo newParent, std::string_view newName);
  Status removeName(InodeNo parent, std::string_view name, bool directory);
  Result<Lsn> renameOnce(const Caller& caller, RenameStep& step);
  Result<Lsn> commitRename(const Caller& caller, RenameStep& step);
  Result<Lsn> commitExchange(RenameStep& step);
  Result<bool> isInside(InodeNo directory, const InodePtr& ancestor);
  static void lowerHint(Inode& directory, uint64_t cookie);

  // ---- attributes ----
  Status changeSize(const InodePtr& inode, uint64_t size);
  Result<Lsn> changeRecord(const InodePtr& inode, const AttributeChange& change);
  Result<Lsn> storeXattr(const InodePtr& inode, std::string_view name, std::string_view value,
                         int flags);
  Result<Lsn> storeAcl(const InodePtr& inode, std::string_view name, std::string_view value);
  Result<Lsn> dropXattr(const InodePtr& inode, std::string_view name, bool mustExist);
  Result<Lsn> commitXattr(const InodePtr& inode, std::string_view name,
                          const std::optional<std::string>& value,
                          std::optional<uint32_t> permissions);

  // ---- files ----
  Result<OpenFilePtr> openInode(const InodePtr& inode, int flags);
  Status syncFile(OpenFile& file, bool dataOnly);
  Status syncWrite(OpenFile& file);

  // ---- background (filesystem_background.cc) ----
  void runBackground();
  void commitRound();
  void shrinkTable();
  bool isBusy(Inode& inode);
  Status eraseReclaimed(std::span<const InodePtr> inodes);
  void queueOrphans();
  void stopBackground();
  bool stoppingBackground();

  Volume& volume_;
  const FilesystemOptions options_;
  InodeTable table_;
  std::unique_ptr<FileData> data_;  // before the table goes, and after the threads
  Reclaimer reclaimer_;
  InodeCount inodeCount_;
  Mutex renameMutex_;  // outermost: renames across directories, so that the tree stands still for
                       // them

  Mutex syncMutex_;  // a leaf
  ErrSeq::Cursor syncCursor_ GUARDED_BY(syncMutex_) = 0;

  Mutex backgroundMutex_;
  CondVar wakeBackground_;
  bool stopBackground_ GUARDED_BY(backgroundMutex_) = false;
  bool shrinkWanted_ GUARDED_BY(backgroundMutex_) = false;
  std::thread background_;
  std::atomic<uint64_t> spaceWaits_{0};
};

uint8_t direntType(uint32_t mode);  // DT_*

}  // namespace ourfs
