// FaultWorkload: a fixed small workload on a live filesystem, told to the model. An operation that
// fails is written down, and the next one is tried: what it left out is left out.
#pragma once

#include <string>
#include <vector>

#include "faults/fault_model.h"

namespace ourfs::faults {

struct FailedOperation {
  std::string what;
  int errnum = 0;
  InodeNo ino;  // 0: of no file alone
};

class FaultWorkload {
 public:
  // `looks`: what is read on the way has to be right, too.
  FaultWorkload(Filesystem& filesystem, FaultModel& model, bool looks = true)
      : fs_(filesystem),
        model_(model),
        looks_(looks),
        version_(static_cast<uint32_t>(model.now())) {}

  void prepare();  // what is there before the faults
  void run();
  // Looks at what is left: who is told of errors, how often, and what still answers.
  void end();

  const std::vector<FailedOperation>& failures() const { return failures_; }
  // Promises that did not hold, one line each.
  const std::vector<std::string>& broken() const { return broken_; }

 private:
  // An open file. `told`: when it heard of an error last, and how often it did.
  struct Handle {
    OpenFilePtr file;
    InodeNo ino;
    FaultModel::Time told = 0;
    int errors = 0;
  };
  using HandlePtr = std::unique_ptr<Handle>;
  struct Place {
    std::string path, name;
    InodeNo parent;
    InodeNo ino;  // 0: there is nothing yet
  };
  // A file that stays open twice to the end.
  struct Kept {
    HandlePtr first, second;
  };

  void stepFiles();
  void stepNames();
  void stepSizes();
  void stepRest();

  Place at(const std::string& path) const;
  bool note(const std::string& what, const Status& status, InodeNo ino = InodeNo(0));
  bool heard(Handle& handle, const std::string& what, const Status& status);

  HandlePtr open(const std::string& path);
  HandlePtr create(const std::string& path);
  Kept keep(HandlePtr first);
  void close(HandlePtr handle);
  void write(const HandlePtr& handle, uint64_t pos, uint64_t length, bool direct = false);
  void truncate(const HandlePtr& handle, uint64_t size);
  void punch(const HandlePtr& handle, uint64_t pos, uint64_t length, bool zero = false);
  bool fsync(const HandlePtr& handle, bool dataOnly = false);
  void look(const HandlePtr& handle);
  void makeDirectory(const std::string& path);
  void rename(const std::string& from, const std::string& to);
  void link(const std::string& from, const std::string& to);
  void unlink(const std::string& path);
  void setAttribute(const std::string& path);
  void syncDirectory(const std::string& path);
  void syncAll();
  void checkpoint();
  void endOf(Kept& kept);
  void endStopped();

  Filesystem& fs_;
  FaultModel& model_;
  const Caller caller_;
  const bool looks_;
  uint32_t version_;                 // of the last write; none is used twice
  FaultModel::Time syncFailed_ = 0;  // when a sync of everything failed last
  std::vector<Kept> kept_;
  std::vector<FailedOperation> failures_;
  std::vector<std::string> broken_;
};

}  // namespace ourfs::faults
