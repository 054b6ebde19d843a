// Sync points, mutants and device faults of a live mount, for tests: `ourfs debug MOUNTPOINT
// COMMAND…`. Only with the mount option debug_points; hidden, because it can lose data on purpose.
//
//   park POINT [TIMES]          the next threads that come to POINT stop there
//   parked POINT                how many stand there now
//   release POINT               lets them go on
//   error POINT ERRNO [TIMES]   forces an error there, by number
//   delay POINT MICROSECONDS
//   stale POINT INODE           whoever comes to POINT first makes the maps of this file stale
//   count POINT                 counts from now on
//   hits POINT                  how often it was reached since it was armed
//   mutant NAME on|off          switches one rule off: data will be lost
//   evict                       drops every clean folio
//   fault KIND [NAME=VALUE…]    the device errs from now on; answers the rule's number. See
//                               fault_rule.h for the words.
//   fault-hits NUMBER           how many requests that rule has hit
//   fault-off NUMBER            the rule goes
//   reset                       disarms everything, lets everybody go on
#pragma once

#include <string>

#include "block/fault_device.h"
#include "common/result.h"
#include "fs/filesystem.h"

namespace ourfs {

// `line`: a command as above. The text to answer. Runs in the control server's thread and does not
// wait.
Result<std::string> debugCommand(Filesystem& filesystem, FaultDevice& faults,
                                 const std::string& line);

}  // namespace ourfs
