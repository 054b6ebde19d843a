// One run of the workload with one fault, from mount to unmount, and the judgement of what is left.
//
//     FaultWorkload -> Filesystem -> FaultDevice -> RecordDevice -> MemoryDevice
//
// What is left is judged twice: as the unmount leaves it, and as a loss of power just before that
// would (where the device lied: the end of the program there).
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "block/fault_device.h"
#include "block/record_device.h"
#include "faults/fault_workload.h"

namespace ourfs::faults {

struct Fault {
  FaultRule rule;
  std::chrono::seconds patience{20};  // for a failure that another thread meets
  std::string name() const;           // "error 5 of write of journal, number 12"
  bool lies() const;                  // the device answers success, and it is not so
};

// The volume before the faults, and what is known of it: unmounted, or with records to replay.
struct FaultBase {
  std::unique_ptr<MemoryDevice> device;
  FaultModel model;
  std::string broken;
};
FaultBase makeBase(bool clean);
uint64_t recordsToReplay(const FaultBase& base);

struct FaultOutcome {
  std::vector<std::string> broken;  // promises that did not hold, one line each
  bool hit = false;                 // the workload came to the n-th request
  bool mounted = false, failStop = false, told = false, reported = false;
};
// Once with a fault.
FaultOutcome runWith(const FaultBase& base, const Fault& fault);

// How many requests of each kind the workload makes, from mount to unmount.
using RequestKind = std::pair<IoOp, IoClass>;
std::map<RequestKind, uint64_t> countRequests(const FaultBase& base);

OpenOptions faultOpenOptions();
const char* classNameOf(IoClass cls);

}  // namespace ourfs::faults
