"""Full volumes, small volumes, many files, memory limits."""
import os
import time

from harness import Failure, case, check, ourfs, run, seeded_random, SANITIZED


def fio(root, name, *options):
    # fio leaves a state file where it runs.
    run("fio", "--verify_state_save=0", f"--name={name}", f"--directory={root}", "--rw=randwrite", "--verify=crc32c", "--do_verify=1",
        "--verify_fatal=1", "--randrepeat=1", "--fallocate=none", *options, timeout=1800)


FIO_ENGINES = {"buffered": ("--ioengine=psync",),
               "direct": ("--ioengine=libaio", "--direct=1", "--iodepth=16"),
               "mmap": ("--ioengine=mmap",)}


def register_fio(how, block, **kwargs):
    @case(name=f"fio_verify_{how}_{block}", **kwargs)
    def fio_verify(scratch):
        """2 GiB in random order, read back: no error, and memory within its limit."""
        volume = scratch.volume("4G", mount=("cache_size=64M",))
        root = volume.mount()
        fio(root, how, "--size=2G", f"--bs={block}", *FIO_ENGINES[how])
        held = volume.resident()
        check(held < (64 + 256) << 20, f"the daemon holds {held >> 20} MiB, the limit is 64 + 256")
        print(f"  resident memory of the daemon: {held >> 20} MiB")
        volume.umount()
        volume.fsck()


for engine, seconds in (("buffered", 45), ("direct", 35), ("mmap", 150)):
    register_fio(engine, "32k", seconds=seconds)
    register_fio(engine, "4k", seconds=4 * seconds, full_only=True)


def fill(path, piece):
    """Writes until ENOSPC; the number of bytes that were accepted."""
    total = 0
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        while True:
            total += os.write(fd, piece)
    except OSError as error:
        check(error.errno == 28, f"a full volume answered {error}")
    finally:
        try:
            os.fsync(fd)
        except OSError as error:
            check(error.errno == 28, f"fsync on a full volume answered {error}")
        os.close(fd)
    return total


@case(seconds=60)
def full_volume(scratch):
    """Filled to the last block, fragmented to single blocks, 20 cycles, and a remount."""
    volume = scratch.volume("96M")
    root = volume.mount()
    kept = os.urandom(1 << 20)
    (root / "kept").write_bytes(kept)
    fd = os.open(root / "kept", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    cycles = 3 if SANITIZED else 20
    first = None
    for cycle in range(cycles):
        # Fragment: small files, every second one removed, then one large file into the holes.
        small = root / "small"
        small.mkdir()
        count = 0
        try:
            while count < 4000:
                with open(small / str(count), "wb") as f:
                    f.write(b"s" * 4096)
                count += 1
        except OSError as error:
            check(error.errno == 28, f"creating small files answered {error}")
        for i in range(0, count, 2):
            os.unlink(small / str(i))
        filled = fill(root / "large", os.urandom(65536)) + fill(root / "rest", b"r" * 4096)
        check((root / "kept").read_bytes() == kept, f"cycle {cycle}: a fsynced file changed")
        try:
            (root / "one-more").write_bytes(b"x" * (1 << 20))
            raise Failure(f"cycle {cycle}: a full volume took another MiB")
        except OSError as error:
            check(error.errno == 28, f"a full volume answered {error}")
        run("rm", "-rf", small, root / "large", root / "rest", root / "one-more")
        if first is None:
            first = filled
        check(filled > first * 0.8, f"cycle {cycle}: only {filled} bytes fit, {first} did at first")
    volume.umount()
    volume.fsck()
    root = volume.mount()
    check((root / "kept").read_bytes() == kept, "a fsynced file changed over the remount")
    check(fill(root / "again", os.urandom(65536)) > first * 0.8, "space did not come back after the remount")
    volume.umount()
    volume.fsck()


@case(seconds=55)
def full_of_inodes(scratch):
    """Long names that no compression shortens, until nothing more fits beside 14 MiB; twice."""
    volume = scratch.volume("32M")
    root = volume.mount()
    run("fallocate", "-l", "14M", root / "space")
    first = None
    for cycle in range(2):
        made = 0
        top = root / f"c{cycle}"
        try:
            top.mkdir()
            while made < 400000:
                if made % 100 == 0:
                    directory = top / f"d{made}"
                    directory.mkdir()
                os.close(os.open(directory / os.urandom(120).hex(), os.O_CREAT | os.O_WRONLY))
                made += 1
            raise Failure("400000 files with names of 240 bytes fit into 32 MiB")
        except OSError as error:
            check(error.errno == 28, f"a volume full of inodes answered {error}")
        first = first or made
        check(made > 5000 and made > first * 0.7, f"only {made} empty files fit into 32 MiB, {first} did at first")
        run("rm", "-rf", top)
    print(f"  {made} empty files filled 32 MiB")
    (root / "after").write_bytes(os.urandom(4 << 20))
    volume.umount()
    volume.fsck()


@case()
def smallest_volume_works(scratch):
    for block in ("1024", "4096", "65536"):
        volume = scratch.volume("32M", name=f"small{block}", mkfs=("-b", block))
        root = volume.mount()
        data = os.urandom(3 << 20)
        (root / "file").write_bytes(data)
        volume.umount()
        volume.fsck()
        root = volume.mount()
        check((root / "file").read_bytes() == data, f"block size {block}: contents differ")
        volume.umount()
        volume.fsck()


MANY = r"""
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static double worst, begin, last;
static void mark(void) { double t = now(); if (t - last > worst) worst = t - last; last = t; }
static void start(void) { worst = 0; begin = last = now(); }
static void say(const char* what) { printf("%s %.1f s, slowest %.3f s\n", what, now() - begin, worst);
  if (worst > 1.0) { fprintf(stderr, "%s: an operation took %.3f s\n", what, worst); exit(3); } fflush(stdout); }
static char name[64];
static const char* nth(long i) { snprintf(name, sizeof name, "file-%ld", i); return name; }
static int fail(const char* what) { perror(what); return 1; }
static int make(long n) {
  start();
  for (long i = 0; i < n; ++i) { int fd = open(nth(i), O_CREAT | O_WRONLY, 0644);
    if (fd < 0 || write(fd, "contents", 8) != 8 || close(fd)) return fail(name); mark(); }
  say("create");
  start(); DIR* d = opendir("."); long seen = 0; struct dirent* e;
  while ((errno = 0, e = readdir(d))) { if (e->d_name[0] != '.') ++seen; mark(); }
  closedir(d); say("list");
  if (seen != n) { fprintf(stderr, "listed %ld of %ld\n", seen, n); return 1; }
  return 0; }
static int destroy(long n) {
  struct stat st;
  start();
  for (long i = 0; i < n; ++i) { if (stat(nth(i), &st)) return fail(name); mark(); }
  say("stat");
  start();
  for (long i = 0; i < n; ++i) { if (unlink(nth(i))) return fail(name); mark(); }
  say("remove");
  start(); DIR* d = opendir("."); long seen = 0; struct dirent* e;
  while ((e = readdir(d))) { ++seen; mark(); } closedir(d); say("list-empty");
  if (seen != 2) { fprintf(stderr, "%ld names left\n", seen); return 1; }
  if (chdir("..")) return fail("..");
  start(); d = opendir("."); while ((e = readdir(d))) mark(); closedir(d); say("list-parent");
  return 0; }
int main(int argc, char** argv) {
  long n = atol(argv[2]);
  if (chdir(argv[1])) return fail(argv[1]);
  return argc > 3 && !strcmp(argv[3], "destroy") ? destroy(n) : make(n); }
"""


class ManyFiles:
    """A directory of many files; the daemon's memory is watched."""

    def __init__(self, scratch, size, count):
        self.scratch, self.count = scratch, count
        (scratch.path / "many.c").write_text(MANY)
        run("gcc", "-O2", "-o", scratch.path / "many", scratch.path / "many.c")
        self.volume = scratch.volume(size)
        self.peak = 0
        self.directory = self.volume.mount() / "dir"
        self.directory.mkdir()

    def run(self, *phase):
        child = self.scratch.start(self.scratch.path / "many", self.directory, self.count, *phase)
        while child.poll() is None:
            self.peak = max(self.peak, self.volume.resident())
            time.sleep(0.2)
        check(child.returncode == 0, f"exit code {child.returncode}")

    def finish(self):
        self.directory.rmdir()
        print(f"  resident memory of the daemon: at most {self.peak >> 20} MiB")
        check(self.peak < 1 << 30, f"the daemon grew to {self.peak >> 20} MiB")
        self.volume.umount()
        self.volume.fsck()


@case(full_only=True, seconds=700)
def million_files_in_one_directory(scratch):
    """Create, list, stat, remove: memory bounded, no operation over 1 s. In process: ManyNamesTest."""
    files = ManyFiles(scratch, "8G", 1000000)  # of one block each
    files.run()
    files.run("destroy")
    files.finish()


@case(seconds=75)
def hundred_thousand_files_on_100_gib(scratch):
    """The same with fewer; and a clean mount is fast whatever the size."""
    files = ManyFiles(scratch, "100G", 100000)
    files.run()
    volume = files.volume
    volume.umount()
    times = []
    for _ in range(3):
        run("sync")
        begin = time.monotonic()
        volume.mount()
        times.append(time.monotonic() - begin)
        volume.umount()
    print(f"  clean mounts: {', '.join(f'{t:.2f} s' for t in times)}")
    check(sorted(times)[1] < 1.0, f"a clean mount took {sorted(times)[1]:.2f} s")
    volume.mount()
    (files.directory / "dirty").write_text("x")
    run("sync", "-f", files.directory)
    volume.kill()
    begin = time.monotonic()
    volume.mount()
    print(f"  mount after a crash: {time.monotonic() - begin:.2f} s")
    (files.directory / "dirty").unlink()
    files.run("destroy")
    files.finish()
