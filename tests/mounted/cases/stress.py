"""ourfs-stress: writers of all kinds at once on the same files, on each block size and in both cache modes.

What it finds depends on how the threads interleave, so the seed that a failure prints repeats what was tried, not
always the failure.
"""
import filecmp
import os

import harness
from harness import FULL, case, check, run, seeded_random, writeback_cache_size

SECONDS = 450 if FULL else 15  # each; an hour in all, or two minutes
# So little that folios must be written back and reclaimed all the time.
SMALL_CACHE = ("cache_size=4M", "dirty_limit=2M", "dirty_background=512K", "commit=1")


def program():
    return harness.COMMANDS.parent.parent / "tests" / "ourfs-stress"


def register(block, mode):
    @case(name=f"stress_{block}_{mode}", seconds=SECONDS + 5)
    def stress(scratch):
        size = writeback_cache_size() if mode == "writeback_cache" else "512M"
        volume = scratch.volume(size, mkfs=("-b", block), mount=(mode, *SMALL_CACHE))
        expected = scratch.path / "expected"
        expected.mkdir()
        files = volume.mount() / "files"
        files.mkdir()
        done = run(program(), "--seed", seeded_random().randrange(1 << 32), "--seconds", SECONDS,
                   "--expect", expected, files, ok=(0, 1), timeout=SECONDS + 300)
        check(done.returncode == 0, done.stdout)
        print(f"  {done.stdout.splitlines()[-1]}")
        data = volume.stats()["data"]
        counters = ("folios_reclaimed", "stale_write", "stale_writeback", "stale_read", "direct_writes")
        print("  " + ", ".join(f"{name} {data[name]}" for name in counters))
        for name in ("folios_reclaimed", "stale_writeback", "stale_read"):
            check(data[name] > 0, f"{name} is 0: that was no stress")
        volume.umount()
        volume.fsck()
        volume.mount()
        names = sorted(os.listdir(expected))
        check(names and sorted(os.listdir(files)) == names, f"there are {sorted(os.listdir(files))}")
        for name in names:
            check(filecmp.cmp(expected / name, files / name, shallow=False), f"{name} is another after the mount")
        volume.umount()
        volume.fsck()


for block_size in (1024, 4096, 16384, 65536):
    for cache_mode in ("no_writeback_cache", "writeback_cache"):
        register(block_size, cache_mode)


@case(seconds=2)
def stress_finds_a_rule_that_is_missing(scratch):
    """And tells the seed and the range."""
    volume = scratch.volume("512M", mount=("debug_points", *SMALL_CACHE))
    files = volume.mount()
    volume.debug("mutant", "iomap.zero_skips_dirty_scan", "on")
    done = run(program(), "--seed", 7, "--seconds", 60, files, ok=(1,), timeout=120)
    wrong = [line for line in done.stdout.splitlines() if "wrong from" in line]
    check(wrong and wrong[0].startswith(str(files)) and wrong[0].endswith("seed 7"), done.stdout)
    print(f"  {wrong[0]}\n  after{done.stdout.splitlines()[-1].split(':')[1]}")
    volume.debug("reset")
    volume.umount()
    volume.fsck()
