"""fsck.ourfs as a command: its child process, its progress, its JSON. What it mends is tested in tests/fs."""
import json
import os
import pty
import select
import subprocess

import harness
from harness import case, check, image_hash, run

PHASES = 8


def filled(scratch, count=200):
    volume = scratch.volume("64M")
    root = volume.mount()
    for i in range(count):
        (root / f"file{i}").write_bytes(b"f" * 5000)
    volume.umount()
    return volume


@case()
def fsck_survives_a_library_that_aborts(scratch):
    """In every phase, looking and mending: one line, exit code 4, and the volume can be checked again."""
    volume = filled(scratch)
    for flags in (("-n",), ("-y",)):
        for phase in range(1, PHASES + 1):
            done = volume.fsck(*flags, "--abort-in", str(phase), ok=(4,))
            lines = done.stderr.splitlines()
            check(len(lines) == 1, f"not one line: {lines}")
            for word in ("signal 6", "while it looked at", "the index is damaged"):
                check(word in lines[0], f"'{lines[0]}' does not say '{word}'")
            report = json.loads(volume.fsck("--json", *flags, "--abort-in", str(phase), ok=(4,)).stdout)
            check(report["exit_code"] == 4 and "signal 6" in report["error"], f"{report}")
    volume.fsck("-y")
    volume.fsck("-n")


@case()
def mount_survives_a_library_that_aborts(scratch):
    """The daemon is gone before the mount is ready: one line that says what to do, and nothing is mounted."""
    volume = filled(scratch)
    done = run(harness.COMMANDS / "mount.ourfs", "--abort-in-daemon", volume.image, volume.dir, ok=(2,))
    lines = done.stderr.splitlines()
    check(len(lines) == 1, f"not one line: {lines}")
    for word in (str(volume.image), "signal 6", "fsck.ourfs -n"):
        check(word in lines[0], f"'{lines[0]}' does not say '{word}'")
    check(not os.path.ismount(volume.dir), "something is mounted")
    volume.mount()
    volume.umount()
    volume.fsck("-n")


@case()
def read_only_mount_tells_of_lost_records(scratch):
    """A hole in the journal: a mount that writes is refused, one that reads goes on and says what is missing."""
    volume = scratch.volume("64M")
    root = volume.mount()
    for i in range(20):
        with open(root / f"file{i}", "wb") as file:
            file.write(b"f" * 5000)
            os.fsync(file.fileno())
    volume.kill()
    with open(volume.image, "r+b") as image:
        image.seek(120)  # of the superblock: where the journal starts
        start = int.from_bytes(image.read(8), "little")
        image.seek(start)
        image.write(bytes(4096))  # the first record; later ones say that it was durable
    refused = run(harness.COMMANDS / "mount.ourfs", volume.image, volume.dir, ok=(32,))
    check("durable" in refused.stderr and len(refused.stderr.splitlines()) == 1, refused.stderr)
    mounted = run(harness.COMMANDS / "mount.ourfs", "-o", "ro", volume.image, volume.dir)
    volume.pid = harness.daemon_of(volume.image)
    scratch.pids.add(volume.pid)
    check("what was written last is missing" in mounted.stderr, mounted.stderr)
    check(not (volume.dir / "file19").exists(), "a file of a record that was not replayed")
    volume.umount()
    volume.fsck("-n", ok=(4,))


@case()
def mount_tells_of_a_damaged_superblock(scratch):
    """Either copy: a mount that writes says so and makes it anew, so the next one says nothing."""
    volume = scratch.volume("64M")
    for slot in (0, 64 << 10):
        with open(volume.image, "r+b") as image:
            image.seek(slot + 3000)
            image.write(b"x")
        for damaged in (True, False):
            mounted = run(harness.COMMANDS / "mount.ourfs", volume.image, volume.dir)
            volume.pid = harness.daemon_of(volume.image)
            scratch.pids.add(volume.pid)
            check(("one of the two superblocks is damaged" in mounted.stderr) == damaged,
                  f"slot {slot}: {mounted.stderr}")
            volume.umount()
            volume.fsck("-n")


@case()
def fsck_ends_with_its_parent(scratch):
    """A child that goes on alone would hold the lock, and could meet the next mount."""
    volume = filled(scratch)
    read_end, write_end = os.pipe()
    parent = scratch.start(harness.COMMANDS / "fsck.ourfs", "-n", "--pause-in", 3, "-C", write_end, volume.image,
                           pass_fds=(write_end,), stdout=subprocess.DEVNULL)
    os.close(write_end)
    seen = b""
    while b"\n3 " not in seen:
        piece = os.read(read_end, 4096)
        check(piece, "fsck ended before it was killed")
        seen += piece
    parent.kill()
    parent.wait()
    # The end of the pipe comes when the child has ended: it holds the pipe, too.
    while select.select([read_end], [], [], 30)[0]:
        if not os.read(read_end, 4096):
            break
    else:
        raise harness.Failure("the child goes on without its parent")
    os.close(read_end)
    volume.fsck("-n")


@case()
def fsck_reports_in_json(scratch):
    volume = filled(scratch)
    report = json.loads(volume.fsck("-n", "--json").stdout)
    expected = {"source": str(volume.image), "mode": "look", "exit_code": 0, "error": None, "was_clean": True,
                "replayed_records": 0, "problem_count": 0, "mended_count": 0, "inodes": 201, "files": 200,
                "directories": 1, "symlinks": 0, "others": 0, "orphans": 0, "names": 200, "attributes": 0,
                "problems": [], "notes": []}
    for key, value in expected.items():
        check(report[key] == value, f"{key} is {report[key]}, should be {value}")
    check(report["extents"] >= 200 and report["used_bytes"] > 200 * 4096 and report["free_bytes"] > 0, f"{report}")

    with open(volume.image, "r+b") as image:  # one superblock
        image.seek(64 << 10)
        image.write(b"\0" * 4096)
    report = json.loads(volume.fsck("-n", "--json").stdout)
    check(report["exit_code"] == 0 and len(report["notes"]) == 1 and "copy B" in report["notes"][0], f"{report}")
    report = json.loads(volume.fsck("-y", "--json").stdout)
    check(report["mode"] == "mend" and report["exit_code"] == 0, f"{report}")
    report = json.loads(volume.fsck("-n", "--json").stdout)
    check(report["notes"] == [], f"{report}")

    with open(volume.image, "r+b") as image:
        image.write(b"\0" * (128 << 10))
    before = image_hash(volume.image)
    done = volume.fsck("-y", "--json", ok=(8,))
    report = json.loads(done.stdout)
    check(report["error"] == "not an ourfs volume" and report["exit_code"] == 8, f"{report}")
    check(len(done.stderr.splitlines()) == 1, f"not one line on stderr: {done.stderr}")
    check(image_hash(volume.image) == before, "what is no volume was changed")


@case()
def fsck_shows_progress(scratch):
    volume = filled(scratch, 2000)
    # To a descriptor: phases in order, never above 100 percent.
    read_end, write_end = os.pipe()
    done = run(harness.COMMANDS / "fsck.ourfs", "-n", "-C", write_end, volume.image, pass_fds=(write_end,))
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        lines = [line.split(maxsplit=3) for line in pipe]
    phases = [int(line[0]) for line in lines]
    check(phases == sorted(phases) and set(phases) == set(range(1, PHASES + 1)), f"phases: {phases}")
    for phase, at, total, device in lines:
        check(int(at) <= int(total) and device.strip() == str(volume.image), f"{phase} {at} {total} {device}")
    check(len([p for p in phases if p == 5]) > 20, "names were checked without a word")
    check("\r" not in done.stdout, "a bar where there is no terminal")

    # On a terminal: a bar, which is gone in the end.
    master, slave = pty.openpty()
    child = scratch.start(harness.COMMANDS / "fsck.ourfs", "-n", volume.image, stdout=slave)
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:
        pass
    os.close(master)
    check(child.wait() == 0, "fsck failed on a terminal")
    text = shown.decode()
    for word in ("names 50%", "8/8 the tree", "1/8 the blocks of the index"):
        check(word in text, f"'{word}' was not shown: {text[-500:]}")
    last = text.rstrip("\r\n").split("\x1b[K")[-1]
    check(last == f"{volume.image}: clean", f"the last line is {last!r}")
    one = run(harness.COMMANDS / "fsck.ourfs", "-n", "-C", "77", volume.image, ok=(16,))
    check("not an open descriptor" in one.stderr, one.stderr)


@case()
def salvage_copies_what_a_damaged_volume_holds(scratch):
    """A real tree; then without superblocks, and without its first MiB or without MANIFEST too."""
    volume = scratch.volume("128M")
    root = volume.mount()
    source = scratch.path / "source"
    run("cp", "-a", "/usr/share/man/man8" if os.path.isdir("/usr/share/man/man8") else "/etc", source)
    (source / "links").mkdir()
    for i in range(5):
        os.link(source / "links" / "0", source / "links" / str(i)) if i else (source / "links" / "0").write_text("x" * 9999)
    os.symlink("nowhere", source / "links" / "symlink")
    run("setfattr", "-n", "user.color", "-v", "blue", source / "links" / "0")
    run("setfacl", "-m", "u:1234:rwx", source / "links")
    run("rsync", "-aHAX", f"{source}/", f"{root}/")
    volume.umount()

    before = image_hash(volume.image)
    to = scratch.path / "sound"
    done = volume.fsck("--salvage", to)
    check("all of it was copied" in done.stdout, done.stdout)
    harness.same_tree(source, to)
    check(image_hash(volume.image) == before, "salvage has changed the volume")
    refused = volume.fsck("--salvage", to, ok=(8,))
    check("not empty" in refused.stderr, refused.stderr)

    with open(volume.image, "r+b") as image:
        image.write(b"\0" * (128 << 10))
    to = scratch.path / "no-superblock"
    report = json.loads(volume.fsck("--json", "--salvage", to, ok=(4,)).stdout)
    check(report["mode"] == "salvage" and report["exit_code"] == 4 and report["problem_count"] == 1, f"{report}")
    check("both superblocks are lost" in report["problems"][0], f"{report}")
    harness.same_tree(source, to)

    # The file table as well, and the first records of the journal, which has been applied.
    data = bytearray(volume.image.read_bytes())
    with open(volume.image, "r+b") as image:
        image.write(os.urandom(1 << 20))
    to = scratch.path / "no-head"
    report = json.loads(volume.fsck("--json", "--salvage", to, ok=(4,)).stdout)
    check(report["problem_count"] == 2, f"{report}")
    check("the file table is lost" in report["problems"][0] and "blocks of 4096 bytes" in report["problems"][1],
          f"{report}")
    harness.same_tree(source, to)

    # With the file table, every block of the MANIFEST: its units begin with a checksum, and name their file.
    at = data.find(b"leveldb.BytewiseComparator")
    spoiled = 0
    while at >= 0:
        block = at - at % 4096
        data[block:block + 4096] = b"\x5a" * 4096
        spoiled += 1
        at = data.find(b"leveldb.BytewiseComparator", block + 4096)
    check(spoiled > 0, "no MANIFEST found")
    volume.image.write_bytes(data)
    to = scratch.path / "no-manifest"
    report = json.loads(volume.fsck("--json", "--salvage", to, ok=(4,)).stdout)
    check(report["problem_count"] > 1, f"{report}")
    copied = subprocess.run(["rsync", "-aHAXcn", "--itemize-changes", f"{source}/", f"{to}/"], capture_output=True,
                            text=True, check=True).stdout.splitlines()
    total = report["files"] + report["directories"] + report["symlinks"]
    check(len(copied) < total / 2, f"{len(copied)} of {total} differ: {copied[:20]}")
