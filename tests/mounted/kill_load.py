#!/usr/bin/env python3
"""One process of the load that the daemon is killed under: it changes files in a directory of its own, and writes
down on another filesystem what it begins and what it was answered. kill_judge.py reads that.

  kill_load.py DIRECTORY STATE LOG SEED WORKER

STATE is what is there, as the judge found it (JSON); LOG gets one JSON array a line: an operation that begins, or
["done", …] when it was answered with success. It ends when the daemon is gone.
"""
import json
import os
import random
import struct
import sys

SECTOR = 512
MOST_SECTORS = 64
MOST_FILES = 12


def stamp(worker, serial, sector, version):
    """A sector: whose it is, and which write it comes from. Version 0 is zeros."""
    if version == 0:
        return bytes(SECTOR)
    return struct.pack("<HHIQ", worker, sector, serial, version) * (SECTOR // 16)


class Load:
    def __init__(self, directory, state, log, seed, worker):
        os.chdir(directory)  # paths from the root lead elsewhere once the dead mount is detached
        self.worker, self.log = worker, log
        self.rng = random.Random(seed)
        self.names = state["names"]  # path: serial
        self.sizes = {int(serial): file["size"] for serial, file in state["files"].items()}  # in sectors
        self.serial, self.version = state["serial"], state["version"]

    def note(self, *words):
        self.log.write(json.dumps(words) + "\n")
        self.log.flush()

    def some_file(self):
        return self.rng.choice(sorted(self.names))

    def new_name(self):
        return f"{self.rng.choice('ab')}/{self.rng.randrange(20)}"

    def create(self):
        name = self.new_name()
        if name in self.names or len(self.names) >= MOST_FILES:
            return self.unlink()
        self.serial += 1
        self.note("create", name, self.serial)
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        self.note("done", os.fstat(fd).st_ino)
        os.close(fd)
        self.names[name] = self.serial
        self.sizes[self.serial] = 0
        self.store(name, 0, self.rng.randint(1, 16))

    def store(self, name, first, count):
        serial = self.names[name]
        self.version += 1
        data = b"".join(stamp(self.worker, serial, s, self.version) for s in range(first, first + count))
        fd = os.open(name, os.O_RDWR)
        self.note("write", serial, first, count, self.version)
        at = 0
        while at < len(data):  # it may be cut short where the daemon dies
            at += os.pwrite(fd, data[at:], first * SECTOR + at)
        self.note("done")
        os.close(fd)
        self.sizes[serial] = max(self.sizes[serial], first + count)

    def overwrite(self):
        first = self.rng.randrange(MOST_SECTORS - 1)
        self.store(self.some_file(), first, self.rng.randint(1, min(16, MOST_SECTORS - first)))

    def append(self):
        name = self.some_file()
        first = self.sizes[self.names[name]]
        if first < MOST_SECTORS:
            self.store(name, first, self.rng.randint(1, min(8, MOST_SECTORS - first)))

    def truncate(self):
        name = self.some_file()
        serial, size = self.names[name], self.rng.randrange(MOST_SECTORS)
        self.note("truncate", serial, size)
        os.truncate(name, size * SECTOR)
        self.note("done")
        self.sizes[serial] = size

    def rename(self):
        source = self.some_file()
        target = self.some_file() if self.rng.random() < 0.4 else self.new_name()
        if source == target:
            return
        self.note("rename", source, target)
        os.rename(source, target)
        self.note("done")
        self.names[target] = self.names.pop(source)

    def unlink(self):
        name = self.some_file()
        self.note("unlink", name)
        os.unlink(name)
        self.note("done")
        del self.names[name]

    def fsync(self):
        name = self.some_file()
        self.sync(name, "fsync", os.fsync, self.names[name])

    def fdatasync(self):
        name = self.some_file()
        self.sync(name, "fdatasync", os.fdatasync, self.names[name])

    def fsync_directory(self):
        directory = self.rng.choice("ab")
        self.sync(directory, "fsyncdir", os.fsync, directory)

    def sync(self, path, word, function, whom):
        fd = os.open(path, os.O_RDONLY)
        self.note(word, whom)
        function(fd)
        self.note("done")
        os.close(fd)

    def replace(self):
        """As an editor saves a file: whole, durable, then over the old one."""
        target = self.some_file()
        self.create()
        source = max(self.names, key=self.names.get)
        if source == target or target not in self.names:
            return
        self.sync(source, "fsync", os.fsync, self.names[source])
        self.note("rename", source, target)
        os.rename(source, target)
        self.note("done")
        self.names[target] = self.names.pop(source)
        self.sync(target[0], "fsyncdir", os.fsync, target[0])

    def run(self):
        steps = [self.create, self.overwrite, self.overwrite, self.append, self.append, self.truncate, self.rename,
                 self.unlink, self.fsync, self.fsync, self.fdatasync, self.fsync_directory, self.replace]
        while True:
            (self.rng.choice(steps) if len(self.names) > 3 else self.create)()


def main():
    directory, state, log, seed, worker = sys.argv[1:]
    with open(state) as f:
        found = json.load(f)
    load = Load(directory, found, open(log, "w"), int(seed), int(worker))
    try:
        load.run()
    except OSError as error:
        load.note("ended", error.errno, str(error))


if __name__ == "__main__":
    main()
