"""The races of the stale map through a real mount, with the daemon's threads parked at sync points.

Each has three legs: the bytes after a remount, a counter that shows that the race was met, and the same with
one rule switched off, which must go wrong.
"""
import ctypes
import mmap
import os
import threading

from harness import Failure, case, check, ourfs, run

LIBC = ctypes.CDLL(None, use_errno=True)
SYNC_FILE_RANGE_ALL = 7  # wait before, write, wait after


def write_back_pages(fd):
    """The kernel's dirty pages go to the daemon. Takes no inode lock, as fsync would."""
    result = LIBC.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(SYNC_FILE_RANGE_ALL))
    check(result == 0, f"sync_file_range: {os.strerror(ctypes.get_errno())}")


class Race:
    """A file on a volume with debug_points, and what it must hold at the end."""

    def __init__(self, scratch, mutant, block="4096"):
        self.volume = scratch.volume("256M", name=f"volume-{mutant or 'rules'}", mkfs=("-b", block), mount=("debug_points",))
        self.path = self.volume.mount() / "file"
        self.fd = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o644)
        self.mutant, self.failure = mutant, None
        if mutant:
            self.volume.debug("mutant", mutant, "on")

    def write_parked_at(self, point, data, pos):
        """A writer that has come to `point`; the thread to join."""
        def write():
            try:
                check(os.pwrite(self.fd, data, pos) == len(data), "a short write")
            except (OSError, Failure) as error:
                self.failure = error
        self.volume.debug("park", point)
        thread = threading.Thread(target=write)
        thread.start()
        self.volume.await_parked(point)
        return thread

    def go_on(self, thread, point):
        self.volume.debug("release", point)
        thread.join()
        if self.failure:
            raise self.failure

    def clean_out(self):
        """Everything dirty in the daemon reaches the disk and leaves its cache."""
        run("sync", "-f", self.volume.dir)
        self.volume.debug("evict")

    def end(self, expected, *counters):
        """Compares what is on the volume; with a mutant it has to be wrong."""
        data = self.volume.stats()["data"]
        self.volume.debug("reset")
        os.close(self.fd)
        self.volume.umount()
        sound = self.volume.fsck(ok=None).returncode == 0
        self.volume.mount()
        found = self.path.read_bytes()
        self.volume.umount()
        wrong = [i for i, (a, b) in enumerate(zip(found, expected)) if a != b] if len(found) == len(expected) else [0]
        if self.mutant:
            check(wrong or not sound, f"without the rule of {self.mutant} nothing went wrong")
            print(f"  {self.mutant}: {len(wrong)} bytes are wrong, the first at {wrong[0] if wrong else '-'}")
            return
        check(not wrong, f"{len(wrong)} bytes are wrong, the first at {wrong[:1]}, {len(found)} bytes in all")
        check(sound, "fsck found problems")
        for counter in counters:
            check(data[counter] > 0, f"the race was not met: {counter} is 0")


@case(seconds=6)
def stale_map_of_a_slow_write(scratch):
    """xfs/559: a write of several folios; one that it has yet to fill is written back and evicted meanwhile."""
    for mutant in (None, "iomap.no_validation"):
        race = Race(scratch, mutant)
        os.posix_fallocate(race.fd, 0, 1 << 20)
        small, large = os.urandom(2048), os.urandom(5 * 4096 + 2048)
        check(os.pwrite(race.fd, small, len(large)) == len(small), "a short write")
        thread = race.write_parked_at("write.before_folio_lock", large, 0)
        race.clean_out()
        race.go_on(thread, "write.before_folio_lock")
        race.end(large + small + bytes((1 << 20) - len(large) - len(small)), "stale_write", "filled_by_read")


@case(seconds=5)
def stale_map_of_new_space_that_a_mapping_fills(scratch):
    """A write has reserved a block; a shared mapping stores into it, and it is Mapped before the write goes on."""
    for mutant in (None, "iomap.carry_new_blindly", "iomap.no_validation"):
        race = Race(scratch, mutant, block="65536")
        os.ftruncate(race.fd, 65536)
        written, stored = os.urandom(1000), os.urandom(4096)
        view = mmap.mmap(race.fd, 65536)
        thread = race.write_parked_at("write.before_folio_lock", written, 0)
        view[8 * 4096:9 * 4096] = stored
        write_back_pages(race.fd)
        race.clean_out()
        race.go_on(thread, "write.before_folio_lock")
        view.close()
        race.end(written + bytes(8 * 4096 - 1000) + stored + bytes(7 * 4096), "stale_write", "remap_masked_new",
                 "filled_by_read")


@case(seconds=5)
def stale_map_of_writeback(scratch):
    """xfs/558: a flush has mapped the file; it is cut and written anew before the flush goes on."""
    for mutant in (None, "writeback.skip_map_check"):
        race = Race(scratch, mutant)
        os.posix_fallocate(race.fd, 0, 8 * 4096)
        first, second = os.urandom(8 * 4096), os.urandom(7 * 4096)
        check(os.pwrite(race.fd, first, 0) == len(first), "a short write")
        race.volume.debug("park", "writeback.after_map")
        flusher = scratch.start("sync", "-f", race.volume.dir)
        race.volume.await_parked("writeback.after_map")
        os.ftruncate(race.fd, 4096)
        check(os.pwrite(race.fd, second, 4096) == len(second), "a short write")
        race.volume.debug("release", "writeback.after_map")
        check(flusher.wait(60) == 0, "sync -f failed")
        race.end(first[:4096] + second, "stale_writeback")


@case()
def stale_map_at_every_validation(scratch):
    """Whatever the map does, a write ends: after two rounds for nothing the folio is locked first."""
    race = Race(scratch, None)
    data = os.urandom(16 * 4096 + 300)
    check(os.pwrite(race.fd, b"x", 0) == 1, "a short write")
    race.volume.debug("stale", "write.after_folio_lock", os.fstat(race.fd).st_ino)
    check(os.pwrite(race.fd, data, 5000) == len(data), "a short write")
    race.end(b"x" + bytes(4999) + data, "stale_write", "lock_first")


def refused(volume, line, *words):
    done = ourfs("ourfs", "debug", volume.dir, *words, ok=(1,))
    check(line in done.stderr and len(done.stderr.splitlines()) == 1, f"{words}: {done.stderr}")


@case()
def sync_points_need_the_option(scratch):
    volume = scratch.volume("64M")
    volume.mount()
    refused(volume, "mount with -o debug_points to use this", "park", "write.after_begin")
    volume.umount()
    volume.options = ("debug_points",)
    volume.mount()
    refused(volume, "no debug command 'jump'", "jump")
    refused(volume, "wrong number of arguments", "park")
    refused(volume, "'x' is not a whole number", "error", "write.before_copy", "x")
    volume.debug("error", "write.before_copy", 5)  # EIO
    try:
        (volume.dir / "file").write_bytes(b"x" * 100)
        raise Failure("a forced error was not told")
    except OSError as error:
        check(error.errno == 5, f"a forced EIO was told as {error}")
    volume.debug("count", "write.before_copy")
    (volume.dir / "file").write_bytes(b"x" * 100)
    check(volume.debug("hits", "write.before_copy") == "2", "hits are not counted")
    volume.umount()
    volume.fsck()
