"""ourfs-fsx on each block size, with and without the kernel's writeback cache."""
import harness
from harness import FULL, case, check, run, seeded_random, writeback_cache_size

OPERATIONS = 1000000 if FULL else 50000


def program():
    return harness.COMMANDS.parent.parent / "tests" / "ourfs-fsx"


@case(seconds=10)
def fsx_finds_a_rule_that_is_missing(scratch):
    """And finds it again from its log."""
    volume = scratch.volume("256M", mount=("debug_points",))
    log, file = scratch.path / "fsxlog", volume.mount() / "file"
    for options in (("--seed", 7, "--operations", 20000, "--log", log), ("--replay", log)):
        volume.debug("mutant", "iomap.zero_skips_dirty_scan", "on")
        done = run(program(), *options, file, ok=(1,))
        check("wrong from" in done.stdout and "seed 7; again with --replay" in done.stdout, done.stdout)
        volume.debug("reset")
    volume.umount()
    volume.fsck()


def register(block, mode):
    @case(name=f"fsx_{block}_{mode}", seconds=OPERATIONS // 1500, full_only=block not in (1024, 4096, 65536))
    def fsx(scratch):
        size = writeback_cache_size() if mode == "writeback_cache" else "256M"
        volume = scratch.volume(size, mkfs=("-b", block), mount=(mode, "cache_size=16M"))
        log = scratch.path / "fsxlog"
        done = run(program(), "--seed", seeded_random().randrange(1 << 32), "--operations", OPERATIONS,
                   "--log", log, volume.mount() / "file", ok=(0, 1), timeout=7200)
        if done.returncode != 0:
            print("  the last operations:")
            for line in log.read_text().splitlines()[-20:]:
                print(f"    {line}")
        check(done.returncode == 0, done.stdout)
        volume.umount()
        volume.fsck()


for block_size in (1024, 2048, 4096, 8192, 16384, 32768, 65536):
    for cache_mode in ("no_writeback_cache", "writeback_cache"):
        register(block_size, cache_mode)
