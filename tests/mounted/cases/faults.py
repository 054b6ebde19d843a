"""A device that errs under a live mount: who is told, what goes on, what is there afterwards.

The daemon's device is wrapped in one that breaks the n-th request (fs/commands/fault_rule.h). Each case ends
with an unmount and fsck.
"""
import errno
import os
import threading
import time

from harness import Failure, SANITIZED, case, check, ourfs, run, wait_gone


def answer(function, *arguments):
    """0, or the errno of the error."""
    try:
        function(*arguments)
        return 0
    except OSError as error:
        return error.errno


def answers(what, expected, function, *arguments):
    got = answer(function, *arguments)
    check(got == expected, f"{what} answers {errno.errorcode.get(got, got)}, not {errno.errorcode.get(expected, expected)}")


def write_whole(path, data):
    with open(path, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def syncfs(volume):
    return run("sync", "-f", volume.dir, ok=None).returncode


def fault(volume, *words):
    return volume.debug("fault", *words)


def hits(volume, rule):
    return int(volume.debug("fault-hits", rule))


def umount_and_wait(volume, limit=60):
    """An unmount is no error of the user, whatever the device does; and the daemon goes."""
    pid, begin = volume.pid, time.monotonic()
    volume.umount(timeout=limit)
    wait_gone(pid, limit)
    check(time.monotonic() - begin < limit, "the unmount took too long")


class Kept:
    """Files that were fsynced while all was well: they have to be there at the end."""

    def __init__(self, volume, count=8):
        self.volume, self.files = volume, {}
        (volume.dir / "kept").mkdir()
        for i in range(count):
            self.add(volume.dir / "kept" / f"file{i}", os.urandom(3000 + 7000 * i))

    def add(self, path, data):
        write_whole(path, data)
        self.files[path] = data

    def compare(self):
        for path, data in self.files.items():
            check(path.read_bytes() == data, f"{path} was fsynced and is not what it was")

    def end(self):
        """Unmounts, judges, mounts again on the healthy device and compares."""
        umount_and_wait(self.volume)
        self.volume.fsck()
        self.volume.mount()
        self.compare()
        (self.volume.dir / "afterwards").write_bytes(b"works" * 1000)
        self.volume.umount()
        self.volume.fsck()


def start(scratch, size="256M", options=(), name="volume"):
    volume = scratch.volume(size, name=name, mount=("debug_points",) + options)
    volume.mount()
    return volume, Kept(volume)


@case(smoke=True)
def failed_data_write_is_told_once_to_each_open_file(scratch):
    volume, kept = start(scratch)
    path = volume.dir / "victim"
    kept.add(path, b"a" * 20000)
    first, second = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    other = os.open(volume.dir / "other", os.O_CREAT | os.O_RDWR)
    os.pwrite(first, b"b" * 8192, 4096)
    rule = fault(volume, "error", "class=data", "op=write")
    answers("fsync", errno.EIO, os.fsync, first)
    check(hits(volume, rule) == 1, "the fault was not met")
    answers("the same open file's next fsync", 0, os.fsync, first)
    answers("the other open file's fsync", errno.EIO, os.fsync, second)
    answers("its next fsync", 0, os.fsync, second)
    os.pwrite(other, b"c" * 30000, 0)
    answers("fsync of another file", 0, os.fsync, other)
    check(os.pread(first, 20000, 0)[4096:4097] in (b"a", b"b"), "the file shows foreign bytes")
    stats = volume.stats()
    check(stats["data"]["writeback_errors"] == 1, f"writeback_errors is {stats['data']['writeback_errors']}")
    check(stats["volume"]["failure"] == "" and not stats["volume"]["read_only"], "lost data has stopped the volume")
    os.pwrite(second, b"d" * 8192, 4096)
    answers("fsync after a new write", 0, os.fsync, second)
    kept.files[path] = b"a" * 4096 + b"d" * 8192 + b"a" * (20000 - 12288)
    kept.files[volume.dir / "other"] = b"c" * 30000
    for fd in (first, second, other):
        os.close(fd)
    kept.end()


@case(seconds=9)
def data_lost_in_the_background_is_told_by_sync_and_fsync(scratch):
    """Nobody asked for the data to be written: the next who does is told."""
    volume, kept = start(scratch)
    fd = os.open(volume.dir / "victim", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 100000)
    rule = fault(volume, "error", "class=data", "op=write", "times=all")
    end = time.monotonic() + 30
    while hits(volume, rule) == 0:
        check(time.monotonic() < end, "dirty data was not written in the background")
        time.sleep(0.05)
    while volume.stats()["data"]["writeback_errors"] == 0:
        check(time.monotonic() < end, "the error did not come back")
        time.sleep(0.05)
    volume.debug("fault-off", rule)
    check(syncfs(volume) != 0, "sync -f says that lost data is durable")
    check(syncfs(volume) == 0, "sync -f tells the same error twice")
    answers("fsync", errno.EIO, os.fsync, fd)
    answers("the next fsync", 0, os.fsync, fd)
    os.close(fd)
    kept.end()


def expect_stopped(volume, kept, handles):
    """Read-only for everyone, no fsync succeeds, and it says why."""
    for fd in handles:
        answers("a later fsync", errno.EIO, os.fsync, fd)
    directory = os.open(volume.dir / "kept", os.O_RDONLY | os.O_DIRECTORY)
    answers("fsync of a directory", errno.EIO, os.fsync, directory)
    os.close(directory)
    check(syncfs(volume) != 0, "sync -f succeeds after the volume has failed")
    answers("creat", errno.EROFS, os.open, volume.dir / "late", os.O_CREAT | os.O_WRONLY)
    answers("mkdir", errno.EROFS, os.mkdir, volume.dir / "late-dir")
    answers("unlink", errno.EROFS, os.unlink, volume.dir / "kept" / "file0")
    answers("rename", errno.EROFS, os.rename, volume.dir / "kept" / "file0", volume.dir / "file0")
    answers("open for writing", errno.EROFS, os.open, volume.dir / "kept" / "file0", os.O_RDWR)
    kept.compare()
    stats = volume.stats()["volume"]
    check(stats["read_only"] and "journal" in stats["failure"],
          f"ourfs stats does not say why: {stats['failure']!r}")
    log = (volume.scratch.path / "daemon.log").read_text(errors="replace")
    check("nothing more is written" in log, "the log does not say that nothing more is written")


@case(smoke=True, seconds=8)
def failed_journal_write_stops_the_volume(scratch):
    for number, words in enumerate((("error", "class=journal", "op=write"), ("short", "class=journal"),
                                    ("error", "class=journal", "op=flush"),
                                    ("error", "class=journal", "op=write", "errno=28"))):
        volume, kept = start(scratch, name=f"volume{number}")
        handles = [os.open(volume.dir / f"open{i}", os.O_CREAT | os.O_RDWR) for i in range(3)]
        for fd in handles:
            os.write(fd, b"z" * 50000)
        rule = fault(volume, *words)
        got = answer(os.fsync, handles[0])
        check(got in (errno.EIO, errno.ENOSPC), f"{words}: fsync answers {got}")
        check(hits(volume, rule) == 1, f"{words}: the fault was not met")
        expect_stopped(volume, kept, handles)
        for fd in handles:
            answer(os.close, fd)
        kept.end()


@case(seconds=8)
def failed_metadata_write_at_the_unmount_is_recovered(scratch):
    """Index, file table and superblock are written when the volume is closed."""
    for number, words in enumerate((("error", "class=index", "op=write"), ("error", "class=table", "op=write"),
                                    ("error", "class=superblock", "op=write"), ("short", "class=index"),
                                    ("error", "class=superblock", "op=flush"),
                                    ("error", "class=table", "op=write", "errno=28"))):
        volume, kept = start(scratch, size="64M", name=f"volume{number}")
        for i in range(50):
            kept.add(volume.dir / f"f{i}", b"%d" % i * 300)
        fault(volume, *words)
        kept.end()
        log = (scratch.path / "daemon.log").read_text(errors="replace")
        check("not closed cleanly" in log, f"{words}: the log does not say that the volume was not closed")
        (scratch.path / "daemon.log").write_text("")


@case(smoke=True, seconds=8)
def dead_device_does_not_take_the_daemon_along(scratch):
    """From one moment on every request fails."""
    volume, kept = start(scratch)
    handles = [os.open(volume.dir / f"open{i}", os.O_CREAT | os.O_RDWR) for i in range(4)]
    for fd in handles:
        os.write(fd, os.urandom(200000))
    fault(volume, "error", "times=all")
    failures = []

    def work(fd):
        for i in range(200):
            if answer(os.pwrite, fd, b"w" * 4096, i * 4096) or answer(os.fsync, fd):
                failures.append(fd)
            answer(os.stat, volume.dir / "kept" / f"missing{i}")

    threads = [threading.Thread(target=work, args=(fd,)) for fd in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        check(not thread.is_alive(), "an operation hangs on a dead device")
    check(len(failures) == 4 * 200, f"only {len(failures)} of 800 writes with fsync failed")
    for fd in handles:
        answers("fsync", errno.EIO, os.fsync, fd)
        answer(os.close, fd)
    check(volume.resident() < (1 << 30 if SANITIZED else 300 << 20), f"the daemon grew to {volume.resident() >> 20} MiB")
    kept.end()


@case(seconds=12)
def slow_journal_holds_nobody_up_for_ever(scratch):
    """Each journal write takes 50 ms: many fsyncs share one, and an unmount ends."""
    volume, kept = start(scratch)
    fault(volume, "delay", "class=journal", "times=all", "delay=50000")
    begin, slowest, failed = time.monotonic(), [], []

    def work(writer):
        try:
            for i in range(10):
                at = time.monotonic()
                kept.add(volume.dir / f"slow{writer}-{i}", bytes([writer]) * 9000)
                slowest.append(time.monotonic() - at)
        except (OSError, Failure) as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(w,)) for w in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        check(not thread.is_alive(), "an fsync hangs on a slow journal")
    check(not failed, f"a slow journal makes an fsync fail: {failed[:1]}")
    spent = time.monotonic() - begin
    print(f"  80 fsyncs in {spent:.1f} s, the slowest {max(slowest):.2f} s")
    check(spent < 80 * 0.1, f"fsyncs do not share journal writes: {spent:.1f} s")
    kept.end()


def tiny_host(scratch, size):
    host = scratch.path / "host"
    host.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", host)
    return host


@case(seconds=10)
def full_host_is_an_error_and_no_damage(scratch):
    """An image that is larger than what its host filesystem can hold."""
    host = tiny_host(scratch, "96M")
    try:
        from harness import Volume
        image = host / "volume.img"
        ourfs("mkfs.ourfs", image, "256M")
        volume = Volume(scratch, image, ())
        volume.mount()
        kept = Kept(volume)
        written, got = 0, 0
        fd = os.open(volume.dir / "large", os.O_CREAT | os.O_WRONLY)
        while not got and written < 200 << 20:
            got = answer(os.write, fd, os.urandom(1 << 20)) or answer(os.fsync, fd)
            written += 1 << 20
        check(got == errno.ENOSPC, f"a full host answers {errno.errorcode.get(got, got)} after {written >> 20} MiB")
        answer(os.close, fd)
        kept.compare()
        stats = volume.stats()["volume"]
        print(f"  the host was full after {written >> 20} MiB; {stats['failure'] or 'the volume goes on'}")
        if not stats["failure"]:
            # Names and what is mapped already need no new room on the host.
            for i in range(100):
                kept.add(volume.dir / "kept" / f"empty{i}", b"")
            os.unlink(volume.dir / "large")
            check(syncfs(volume) != 0, "sync does not tell that data was lost")
            check(syncfs(volume) == 0, "sync fails on a full host although nothing is left to write")
        umount_and_wait(volume)
        volume.fsck()
        # The host gets room: everything goes on.
        run("mount", "-o", "remount,size=400M", host)
        volume.mount()
        kept.compare()
        write_whole(volume.dir / "again", os.urandom(50 << 20))
        volume.umount()
        volume.fsck()
    finally:
        run("umount", host, ok=None)


@case()
def faults_need_the_option_and_right_words(scratch):
    volume = scratch.volume("64M")
    volume.mount()

    def refused(line, *words):
        done = ourfs("ourfs", "debug", volume.dir, *words, ok=(1,))
        check(line in done.stderr and len(done.stderr.splitlines()) == 1, f"{words}: {done.stderr}")

    refused("mount with -o debug_points", "fault", "error")
    volume.umount()
    volume.options = ("debug_points",)
    volume.mount()
    refused("not 'explode' but delay drop error flip misdirect short", "fault", "explode")
    refused("not 'paper' but", "fault", "error", "class=paper")
    refused("'x' is not a whole number", "fault", "error", "skip=x")
    refused("there is no 'colour'", "fault", "error", "colour=1")
    rule = fault(volume, "error", "class=data", "op=read", "skip=1")
    check(hits(volume, rule) == 0, "a rule that nobody has met has hits")
    volume.debug("fault-off", rule)
    volume.umount()
    volume.fsck()
