// The work of fsck in a child process: RocksDB aborts on some damaged files, and that must not be
// the end of fsck itself.
//
// The child talks to its parent through a pipe, in lines: a letter, a blank, a text.
//   P problem          one line, as it is found
//   N note             likewise
//   G phase phases done total name
//   E exit-code text   the work could not be done; the last line
//   R JSON             the result; the last line
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "common/result.h"

namespace ourfs {

// How the child ended.
struct ChildEnd {
  int exitCode = 0;        // if it ended by itself
  int signal = 0;          // if it did not
  std::string complaints;  // what it wrote to stderr
};

// Sends one line. In `text` every newline becomes a blank.
using SendLine = std::function<void(char kind, std::string text)>;
using ReceiveLine = std::function<void(char kind, std::string_view text)>;

// Runs `work` in a child, whose exit code it answers, and hands each of its lines to `receive` in
// this process. Returns when the child has ended. The child ends with this process.
// REQUIRES: no thread was started before. An error if there can be no child.
Result<ChildEnd> runInChild(const std::function<int(const SendLine&)>& work,
                            const ReceiveLine& receive);

}  // namespace ourfs
