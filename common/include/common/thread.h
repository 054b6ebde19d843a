// Thread: what iomap and writeback start their threads with. A name of its own, so that
// tests/schedule can put fibers under a scheduler in its place, as with the locks of mutex.h.
#pragma once

#include <thread>

namespace ourfs {

using Thread = std::thread;

}  // namespace ourfs
