"""What the mounted cases share: scratch space, volumes, commands, and the clean-up that always happens."""
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import Callable

CASES = []
COMMANDS = None
FULL = os.environ.get("OURFS_FULL") == "1"
SANITIZED = os.environ.get("OURFS_SANITIZED") == "1"


class Failure(Exception):
    """A test's assertion that did not hold."""


@dataclass
class Case:
    name: str
    function: Callable
    smoke: bool
    full_only: bool
    seconds: int


def case(name=None, smoke=False, full_only=False, seconds=5):
    """`seconds`: about how long it takes. The longest ones begin first."""
    def register(function):
        CASES.append(Case(name or function.__name__, function, smoke, full_only, seconds))
        return function
    return register


def use_commands(directory):
    global COMMANDS
    COMMANDS = directory


def check(condition, message):
    if not condition:
        raise Failure(message)


def run(*command, ok=(0,), timeout=600, **kwargs):
    """Runs a command; its output is kept. Fails the test if the exit code is not in `ok`."""
    command = [str(c) for c in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout,
                          errors="replace", **kwargs)
    if ok is not None and done.returncode not in ok:
        raise Failure(f"{' '.join(command)[:300]}: exit code {done.returncode}\n"
                      f"    {done.stdout[-2000:].strip()}\n    {done.stderr[-2000:].strip()}")
    return done


def ourfs(command, *arguments, **kwargs):
    return run(COMMANDS / command, *arguments, **kwargs)


def seeded_random():
    seed = int(os.environ.get("OURFS_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"  seed: OURFS_SEED={seed}", flush=True)
    return random.Random(seed)


def file_hash(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def image_hash(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def writeback_cache_size(data=512):
    """Of a volume that is large enough for the kernel's writeback cache while it holds `data` MiB: with less free
    than a fifth of memory the daemon has all writers go past it."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{memory // 4 // 2 ** 20 + data}M"


def fsync_tree(root):
    """fsync of every file and directory, bottom up."""
    for directory, _, names in os.walk(root, topdown=False):
        for name in names + [""]:
            path = os.path.join(directory, name)
            if os.path.islink(path) or not (os.path.isfile(path) or os.path.isdir(path)):
                continue
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def same_tree(left, right):
    """Compares contents, owners, modes, times, links, ACLs and attributes."""
    done = run("rsync", "-aHAXcn", "--delete", "--itemize-changes", f"{left}/", f"{right}/")
    check(done.stdout.strip() == "", f"{left} and {right} differ:\n{done.stdout[:2000]}")


class Volume:
    def __init__(self, scratch, image, options):
        self.scratch, self.image, self.options = scratch, image, options
        self.dir = scratch.path / f"mnt-{image.stem}"
        self.dir.mkdir(exist_ok=True)
        self.pid = None

    def mount(self, extra=(), timeout=120):
        self.mount_notes(extra, timeout)
        return self.dir

    def mount_notes(self, extra=(), timeout=120):
        """Mounts; what mount.ourfs said."""
        log = self.scratch.path / "daemon.log"
        options = list(self.options) + list(extra) + [f"logfile={log}"]
        done = ourfs("mount.ourfs", self.image, self.dir, "-o", ",".join(options), timeout=timeout)
        check(os.path.ismount(self.dir), f"{self.dir} is not mounted after mount.ourfs returned 0")
        self.pid = daemon_of(self.image)
        self.scratch.pids.add(self.pid)
        return done.stderr.strip()

    def umount(self, timeout=300):
        run("umount", self.dir, timeout=timeout)
        self.pid = None

    def kill(self):
        """kill -9 of the daemon; the mount point is made free again."""
        check(self.pid, "no daemon to kill")
        os.kill(self.pid, signal.SIGKILL)
        wait_gone(self.pid)
        run("umount", "-l", self.dir, ok=(0, 1, 32))
        self.pid = None

    def fsck(self, *flags, ok=(0,)):
        return ourfs("fsck.ourfs", *(flags or ("-n",)), self.image, ok=ok, timeout=600)

    def stats(self):
        import json
        return json.loads(ourfs("ourfs", "stats", "--json", self.dir).stdout)

    def debug(self, *words):
        """Sync points and mutants of the daemon; the volume is mounted with debug_points."""
        return ourfs("ourfs", "debug", self.dir, *words).stdout.strip()

    def await_parked(self, point, limit=20.0):
        end = time.monotonic() + limit
        while self.debug("parked", point) == "0":
            check(time.monotonic() < end, f"nobody came to {point} within {limit} s")
            time.sleep(0.005)

    def resident(self):
        """The most memory that the daemon has held so far."""
        for line in open(f"/proc/{self.pid}/status"):
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        raise Failure("no VmHWM")


def daemon_of(image):
    """The process that has the image open."""
    wanted = os.stat(image)
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if "mount.ourfs" not in (entry / "cmdline").read_bytes().decode(errors="replace"):
                continue
            for fd in (entry / "fd").iterdir():
                stat = os.stat(fd)
                if (stat.st_dev, stat.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return int(entry.name)
        except OSError:
            continue
    raise Failure(f"no daemon has {image} open")


def wait_gone(pid, limit=30.0):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as f:
                if f.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.01)
    raise Failure(f"process {pid} is still there after {limit} s")


class Scratch:
    def __init__(self, name):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="ourfs-test-", dir="/var/tmp"))
        self.pids = set()
        self.children = []

    def volume(self, size="4G", name="volume", mkfs=(), mount=()):
        image = self.path / f"{name}.img"
        ourfs("mkfs.ourfs", *mkfs, image, size)
        return Volume(self, image, mount)

    def start(self, *command, **kwargs):
        child = subprocess.Popen([str(c) for c in command], **kwargs)
        self.children.append(child)
        return child

    def mounts(self):
        found = []
        for line in open("/proc/self/mountinfo"):
            target = line.split()[4].encode().decode("unicode_escape")
            if target.startswith(str(self.path) + "/"):
                found.append(target)
        return found

    def clean(self, keep_log):
        leftovers = []
        running = [child for child in self.children if child.poll() is None]
        for child in running:
            child.kill()
        for target in reversed(self.mounts()):
            leftovers.append(f"mount {target}")
            subprocess.run(["umount", "-l", target], stderr=subprocess.DEVNULL)
        for pid in self.pids:
            try:
                name = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if b"mount.ourfs" not in name:
                continue
            try:
                wait_gone(pid, 5)
            except Failure:
                leftovers.append(f"daemon {pid}")
                os.kill(pid, signal.SIGKILL)
        for child in running:  # one that waits for a daemon ends when that is gone
            child.wait()
        for line in subprocess.run(["losetup", "-l", "-n", "-O", "NAME,BACK-FILE"], capture_output=True,
                                   text=True).stdout.splitlines():
            if str(self.path) in line:
                leftovers.append(f"loop {line}")
                subprocess.run(["losetup", "-d", line.split()[0]])
        log = self.path / "daemon.log"
        if keep_log and log.exists():
            print("  the daemon's log ends with:")
            for line in log.read_text(errors="replace").splitlines()[-25:]:
                print(f"    {line}")
        shutil.rmtree(self.path, ignore_errors=True)
        return leftovers
