// Sequences: every one and every two of the operations that a filesystem has, three of them
// sampled, with every way to make them durable.
//
// Each happens in a directory of its own with two files and a directory of one file, all of it
// durable before:
//   DIR/a        20,000 bytes
//   DIR/b         6,000 bytes
//   DIR/s/x       5,000 bytes
// Some follow each other in one mount, so a state of the last one has those before it around it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "crash/crash_actor.h"
#include "crash/crash_explorer.h"

namespace ourfs::crash {

enum class Persistence : uint8_t {
  None,
  Fsync,
  Fdatasync,
  SyncAll,           // what sync and syncfs ask a filesystem for
  DirectorySync,     // of DIR
  SubdirectorySync,  // of DIR/s
  Synchronous,       // the operation itself, with O_SYNC; writes only
  DataSynchronous,   // with O_DSYNC; writes only
};
inline constexpr size_t kPersistences = 8;

// One step: an operation, and what makes it durable.
struct SequenceStep {
  size_t operation = 0;  // below operationCount()
  Persistence after = Persistence::None;
};
using Sequence = std::vector<SequenceStep>;

size_t operationCount();
std::string textOf(const Sequence& sequence);

// All of one operation, and all of two with one way at the end.
std::vector<Sequence> shortSequences();
// All of two, each with every way of its own.
std::vector<Sequence> longSequences();
// `count` of three, at random, each with a way of its own.
std::vector<Sequence> sampledSequences(uint64_t count, uint64_t seed);

// Makes DIR and what is in it durable.
Status prepareSequence(CrashActor& actor, const std::string& dir);
// Does the sequence there.
Status runSequence(CrashActor& actor, const std::string& dir, const Sequence& sequence);

// Explores them, in batches, in an order of their own that depends on nothing but their number;
// options.statesPerWorkload is for each sequence, and the seed counts for the choice of states
// only.
ExplorerResult exploreSequences(const ExplorerOptions& options, std::vector<Sequence> sequences);

}  // namespace ourfs::crash
