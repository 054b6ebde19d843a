"""Recovery after the daemon died: how long it takes, and what mount says of it."""
import re
import time

from harness import case, check, SANITIZED

# Empty files in a directory until the daemon is gone, and their number on another filesystem: the kernel lets
# nobody list a directory while a create waits there.
CREATE = """
import os, sys
count = os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY)
for i in range(10 ** 9):
    try:
        os.close(os.open(f"{sys.argv[1]}/{i}", os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        sys.exit(0 if error.errno in (103, 107) else str(error))
    os.pwrite(count, b"%9d" % (i + 1), 0)
"""


def journal_of(volume):
    journal = volume.stats()["journal"]
    return journal["head"], journal["durable"], journal["used_bytes"]


def fill_journal(volume):
    """Until nobody can append any more and all of it is durable; the bytes that are in use."""
    before = None
    while (now := journal_of(volume)) != before or now[0] != now[1]:
        before = now
        time.sleep(2)
    return now[2]


def recover_a_full_journal(scratch, size, at_least, limit=None):
    volume = scratch.volume(size, mount=("debug_points",))
    root = volume.mount()
    # What the index has not persisted, the journal keeps.
    volume.debug("park", "index.before_manifest_sync")
    directories = [root / name for name in ("a", "b")]
    for directory in directories:
        directory.mkdir()
    counts = [scratch.path / name for name in ("a", "b")]
    children = [scratch.start("python3", "-c", CREATE, *paths) for paths in zip(directories, counts)]
    used = fill_journal(volume)
    check(used >= at_least, f"writers were stopped with {used >> 10} KiB in the journal")
    made = [int(count.read_text()) for count in counts]
    volume.kill()
    for child in children:
        check(child.wait(60) == 0, "a writer ended with another error than that of the dead mount")
    begin = time.monotonic()
    notes = volume.mount_notes()
    seconds = time.monotonic() - begin
    print(f"  {used >> 20} MiB of journal: {notes}", f"  mount.ourfs took {seconds:.2f} s", sep="\n")
    told = re.search(r"was not unmounted; replayed (\d+) journal records, .+, in [0-9.]+ s, ready after [0-9.]+ s$", notes)
    check(told, f"mount.ourfs does not say what it replayed: {notes!r}")
    check(int(told[1]) >= sum(made), "fewer records than files were replayed")
    check(limit is None or seconds < limit, f"recovery took {seconds:.2f} s, the limit is {limit} s")
    for directory, files in zip(directories, made):
        missing = set(map(str, range(files))).difference(path.name for path in directory.iterdir())
        check(not missing, f"{directory.name}: {len(missing)} of {files} durable files are missing")
    volume.umount()
    volume.fsck()


@case(seconds=20)
def full_journal_is_recovered(scratch):
    """Writers fill the journal while the index cannot persist anything; kill -9; mount says what it replayed."""
    recover_a_full_journal(scratch, "512M", at_least=1 << 20)


@case(seconds=80, full_only=True)
def full_journal_of_the_default_size_is_recovered_soon(scratch):
    """The same with 64 MiB, half of which is all that fits beside the memtables: in less than 5 s."""
    recover_a_full_journal(scratch, "16G", at_least=30 << 20, limit=None if SANITIZED else 5.0)
