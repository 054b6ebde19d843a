"""People's ordinary programs on a mounted volume, and their files after a remount and after kill -9."""
import os
import pathlib
import subprocess
import time

from harness import (case, check, fsync_tree, ourfs, run, same_tree, seeded_random, file_hash, writeback_cache_size,
                     SANITIZED)

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]

PROGRAM = r"""
#include <stdio.h>
#include <string.h>
int main(int argc, char** argv) { printf("%s %zu\n", argv[0], strlen(argv[argc - 1])); return 0; }
"""


def source_tree(scratch, most=14000):
    """At least 10,000 real files: copied once to the scratch disk, with links, ACLs and attributes added."""
    tree = scratch.path / "tree"
    tree.mkdir()
    count = 0
    for origin in ("/usr/include", "/usr/share/doc", "/usr/share/man", "/usr/lib/python3", "/usr/share/perl"):
        for directory, names, files in os.walk(origin):
            names.sort()
            target = tree / directory.lstrip("/")
            target.mkdir(parents=True, exist_ok=True)
            for name in sorted(files):
                source = os.path.join(directory, name)
                if os.path.islink(source):
                    os.symlink(os.readlink(source), target / name)
                else:
                    run_copy(source, target / name)
                count += 1
            if count >= most:
                break
        if count >= most:
            break
    check(SANITIZED or count >= 10000, f"only {count} files for the source tree")
    odd = tree / "odd"
    odd.mkdir()
    (odd / "file").write_text("hard link\n")
    os.link(odd / "file", odd / "link")
    os.mkfifo(odd / "fifo")
    (odd / ("n" * 255)).write_text("long name\n")
    with open(odd / "sparse", "wb") as f:
        f.seek(10 << 20)
        f.write(b"end")
    os.setxattr(odd / "file", "user.colour", b"blue")
    run("setfacl", "-m", "u:1:r,g:2:rw", odd / "file")
    os.chown(odd / "sparse", 1000, 1001)
    os.utime(odd / "sparse", ns=(1_000_000_007, 1_234_567_890_123_456_789))
    return tree


def run_copy(source, target):
    with open(source, "rb") as a, open(target, "wb") as b:
        b.write(a.read())
    stat = os.stat(source)
    os.chmod(target, stat.st_mode & 0o7777)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def work(root, tree):
    """The load itself; what it makes is checked by verify()."""
    run("rsync", "-aHAX", f"{tree}/", f"{root}/tree/")
    run("git", "-c", "safe.directory=*", "clone", "-q", "--no-hardlinks", REPOSITORY, f"{root}/clone")
    (root / "program.c").write_text(PROGRAM)
    run("gcc", "-O1", "-o", root / "program", root / "program.c")
    for mode in ("wal", "delete"):
        script = (f"pragma journal_mode={mode}; create table t(a integer primary key, b text);"
                  "begin;" + "".join(f"insert into t values({i}, hex(randomblob(200)));" for i in range(2000)) + "commit;"
                  + "".join(f"update t set b='x{i}' where a={i};" for i in range(0, 400, 7)))
        run("sqlite3", root / f"{mode}.db", input=script)


def verify(root, tree):
    same_tree(tree, root / "tree")
    run("git", "-c", "safe.directory=*", "-C", root / "clone", "fsck", "--strict")
    check(run("git", "-c", "safe.directory=*", "-C", root / "clone", "status", "--porcelain").stdout == "",
          "git sees changes in the clone")
    check(run(root / "program", "four").stdout.endswith(" 4\n"), "the program that was built there answers wrong")
    for mode in ("wal", "delete"):
        out = run("sqlite3", root / f"{mode}.db", "pragma integrity_check; select count(*) from t;").stdout.split()
        check(out == ["ok", "2000"], f"sqlite {mode}: {out}")


def real_work(scratch, mkfs, mount):
    tree = source_tree(scratch, most=800 if SANITIZED else 14000)
    size = writeback_cache_size(4096) if "writeback_cache" in mount else "4G"
    volume = scratch.volume(size, mkfs=mkfs, mount=mount)
    root = volume.mount()
    work(root, tree)
    verify(root, tree)
    volume.umount()
    volume.fsck()
    volume.mount()
    verify(root, tree)

    # The same after kill -9, once everything was fsynced.
    fsync_tree(root)
    volume.kill()
    volume.fsck("-n")
    volume.mount()
    verify(root, tree)
    run("rm", "-rf", *[str(p) for p in root.iterdir()])
    check(list(root.iterdir()) == [], "rm -rf left something")
    volume.umount()
    volume.fsck()


@case(smoke=True, seconds=85)
def real_work_4k(scratch):
    real_work(scratch, ("-b", "4096"), ())


for block in (1024, 4096, 65536):
    for mode in ("writeback_cache", "no_writeback_cache"):
        if (block, mode) == (4096, "no_writeback_cache"):
            continue

        def one(scratch, block=block, mode=mode):
            real_work(scratch, ("-b", str(block)), (mode,))
        case(name=f"real_work_{block}_{mode}", full_only=True, seconds=200)(one)


WRITER = r"""
import hashlib, os, random, sys
root, log, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(seed)
log = open(log, "w")
n = 0
while True:
    name = f"d{n % 7}/f{n}"
    os.makedirs(os.path.join(root, f"d{n % 7}"), exist_ok=True)
    path = os.path.join(root, name)
    data = rng.randbytes(rng.choice([0, 1, 700, 4096, 5000, 70000, 300000]))
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)
    for at in range(0, len(data), 33333):
        os.pwrite(fd, data[at:at + 33333], at)
    if n % 3 != 2:
        os.fsync(fd)
        # Acknowledged: from here on it must survive.
        log.write(f"{name} {hashlib.sha256(data).hexdigest()}\n")
        log.flush()
    os.close(fd)
    if n % 5 == 4 and n > 20:
        victim = os.path.join(root, f"d{(n - 18) % 7}/f{n - 18}")
        if (n - 18) % 3 == 2 and os.path.exists(victim):
            os.unlink(victim)
    n += 1
"""


@case(smoke=True, seconds=25)
def what_was_fsynced_survives_kill(scratch):
    """kill -9 at random moments during the load: every file that was fsynced so far is whole."""
    rng = seeded_random()
    volume = scratch.volume("1G")
    rounds = 3 if SANITIZED else 8
    acknowledged = {}
    for number in range(rounds):
        root = volume.mount()
        load = root / f"load{number}"
        load.mkdir()
        log = scratch.path / f"log{number}"
        writer = scratch.start("python3", "-c", WRITER, load, log, rng.randrange(1 << 30), stderr=subprocess.DEVNULL)
        moment = rng.uniform(0.1, 2.0)
        started = time.monotonic()
        while not (log.exists() and log.stat().st_size > 0):
            check(writer.poll() is None and time.monotonic() - started < 60, "the writer does not get going")
            time.sleep(0.01)
        try:
            writer.wait(moment)
        except subprocess.TimeoutExpired:
            pass
        check(writer.poll() is None, "the writer failed before the daemon was killed")
        volume.kill()
        writer.kill()
        writer.wait()
        for line in log.read_text().splitlines():
            parts = line.split()
            if len(parts) == 2 and len(parts[1]) == 64:
                acknowledged[f"load{number}/{parts[0]}"] = parts[1]
        volume.fsck("-n")
        root = volume.mount()
        for name, digest in acknowledged.items():
            path = root / name
            check(path.exists(), f"round {number}: {name} was fsynced and is gone")
            check(file_hash(path) == digest, f"round {number}: {name} was fsynced and differs")
        volume.umount()
        volume.fsck()
    check(len(acknowledged) > rounds, "too few files were fsynced to judge")


@case()
def sync_makes_everything_durable(scratch):
    volume = scratch.volume("512M")
    root = volume.mount()
    for i in range(200):
        (root / f"f{i}").write_bytes(os.urandom(10000))
    digests = {f"f{i}": file_hash(root / f"f{i}") for i in range(200)}
    run("sync", "-f", root)
    volume.kill()
    root = volume.mount()
    for name, digest in digests.items():
        check(file_hash(root / name) == digest, f"{name} differs after sync and kill -9")
    volume.umount()
    volume.fsck()
