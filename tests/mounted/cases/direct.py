"""Direct writes beside what the kernel keeps in its writeback cache."""
import ctypes
import mmap
import multiprocessing
import os
import threading
import time

from harness import case, check, writeback_cache_size

WRITE_ONLY = 2  # SYNC_FILE_RANGE_WRITE


def direct_write_over_the_daemons_end(path, ready, go):
    """In a process of its own: a process that is forked for a command must not close these files.

    Leaves a file whose end the daemon knows at 5000 and the kernel at 24576, then writes directly over the
    former; when told a second time it lets the kernel hand its dirty page over meanwhile.
    """
    with open(path, "w+b", buffering=0) as file:
        file.write(b"a" * 5000)
        os.fsync(file.fileno())
        os.pwrite(file.fileno(), b"b" * 4096, 20480)
        direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        page = mmap.mmap(-1, 4096)
        page.write(b"d" * 4096)
        ready.set()
        go.acquire()
        writer = threading.Thread(target=os.pwritev, args=(direct, [page], 4096))
        writer.start()
        go.acquire()
        ctypes.CDLL(None).sync_file_range(file.fileno(), ctypes.c_int64(20480), ctypes.c_int64(4096), WRITE_ONLY)
        go.acquire()
        writer.join()
        os.fsync(file.fileno())
        os.close(direct)


@case(seconds=3)
def direct_write_beside_a_longer_file_in_the_kernel(scratch):
    """A page of the kernel's writeback cache further out arrives while a direct write goes over the end.

    The store must not zero from the old end on what the direct write has written.
    """
    volume = scratch.volume(writeback_cache_size(), mount=("writeback_cache", "debug_points"))
    path = volume.mount() / "file"
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Semaphore(0)
    child = context.Process(target=direct_write_over_the_daemons_end, args=(path, ready, go))
    child.start()
    check(ready.wait(60), "no file was made")
    volume.debug("park", "direct.after_end_io")
    volume.debug("count", "write.after_begin")
    go.release()
    volume.await_parked("direct.after_end_io")
    go.release()
    end = time.monotonic() + 1  # the store may have to wait, as it should
    while volume.debug("hits", "write.after_begin") == "0" and time.monotonic() < end:
        time.sleep(0.01)
    go.release()
    volume.debug("release", "direct.after_end_io")
    child.join(60)
    check(child.exitcode == 0, "fsync failed after the direct write")
    volume.umount()
    volume.fsck()
    volume.mount()
    expected = b"a" * 4096 + b"d" * 4096 + bytes(12288) + b"b" * 4096
    found = path.read_bytes()
    wrong = [i for i, (a, b) in enumerate(zip(found, expected)) if a != b]
    check(len(found) == len(expected) and not wrong, f"{len(found)} bytes, wrong from {wrong[:1]} to {wrong[-1:]}")
    volume.umount()
    volume.fsck()
