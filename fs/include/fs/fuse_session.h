// FuseSession: serves one FUSE connection: reads the kernel's requests, translates each into a call
// of Filesystem, and replies. docs/adr/0002-fuse-session.md says why it speaks the protocol itself.
//
// Threads: the session's own. There are always some that read; another one is started when the last
// of them got a request. It stays for the next one: a client that closes one file while it opens
// another would else start a thread for each (measured: 80 us a file). Above keptThreads idle ones
// end. No lock is held across a request or a
// reply. DESTROY (the end of a fuseblk mount) is carried out alone, after every other request, and
// answered after `onDestroy` returned: so umount(8) returns when the volume is closed.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "fs/filesystem.h"

namespace ourfs {

struct FuseSessionOptions {
  unsigned idleThreads = 2;     // threads to start with; at least 1
  unsigned keptThreads = 10;    // more of them stay once they were needed, up to this number
  unsigned maxThreads = 32;     // requests at once
  bool writebackCache = false;  // the kernel's
  bool posixAcl = true;
  bool cacheSymlinks = true;  // off with strictatime: a cached target is read without us
};

class FuseSession {
 public:
  // Serves `fd`: /dev/fuse with a mount behind it, or a socket on which a test plays the kernel.
  // `fd` and `filesystem` outlive the session; `filesystem` may go in onDestroy, after which it is
  // not used any more.
  static std::unique_ptr<FuseSession> start(int fd, Filesystem& filesystem,
                                            const FuseSessionOptions& options,
                                            std::function<void()> onDestroy);
  virtual ~FuseSession() = default;  // stops

  // Whether INIT was answered within `limit`; false at once if the connection ended before.
  virtual bool awaitInit(std::chrono::milliseconds limit) = 0;
  // Returns when the connection has ended: DESTROY was answered, or the kernel or stop() ended it.
  virtual void awaitEnd() = 0;
  virtual bool awaitEndFor(std::chrono::milliseconds limit) = 0;  // false: it goes on
  // Ends serving: no request is in work any more when it returns, and none is taken.
  virtual void stop() = 0;
};

}  // namespace ourfs
