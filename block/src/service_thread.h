// Starts a thread that no signal is delivered to: those of the process are its main thread's
// business.
#pragma once

#include <functional>
#include <thread>

namespace ourfs {

std::thread startServiceThread(std::function<void()> body);

}  // namespace ourfs
