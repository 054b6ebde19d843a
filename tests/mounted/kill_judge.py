"""What may be in the directory of one process of kill_load.py after the daemon was killed.

  - Names are those after some prefix of its operations. It reaches at least to the last one that an fsync of the
    file or of the directory concerned has covered.
  - A sector holds what it held when an fsync or fdatasync covered it, or at any later moment; if none did, it may be
    zeros, too. The size is one of those that it had since then, or lies between them.
  - Nothing else ever: each sector says whose it is.
What is found is on the volume, and so has to be there after the next kill as well.
"""
import json
import os
import struct

from harness import Failure, check
from kill_load import SECTOR, stamp

GONE = (103, 107)  # ECONNABORTED, ENOTCONN: what a process is told when the daemon is gone


def empty_state():
    return {"names": {}, "files": {}, "serial": 0, "version": 0}


class File:
    """Its history: (time, value) of the size and of each sector. `synced`: when the last sync began that was
    answered; what was done before that is durable."""

    def __init__(self, found=None):
        self.ino = found["ino"] if found else None
        self.sizes = [(-1, found["size"] if found else 0)]
        self.sectors = {int(s): [(-1, v)] for s, v in found["sectors"].items()} if found else {}
        self.synced = 0 if found else -1

    def allowed(self, history):
        covered = [i for i, (time, _) in enumerate(history) if time < self.synced]
        return [value for _, value in history[covered[-1] if covered else 0:]]

    def sector(self, number):
        return self.sectors.setdefault(number, [(-1, 0)])


class Judge:
    """One process: the state at the beginning, and what its log adds."""

    def __init__(self, worker, state, lines):
        self.worker, self.state = worker, state
        self.files = {int(s): File(found) for s, found in state["files"].items()}
        self.trees = [dict(state["names"])]
        self.touched = [()]  # by the operation that led to the tree of the same number
        self.durable_names = 0
        self.serial, self.version = state["serial"], state["version"]
        self.acknowledged = self.operations = self.time = 0
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        for entry, after in zip(entries, entries[1:] + [None]):
            self.time += 1
            if entry[0] == "ended":
                check(entry[1] in GONE, f"process {worker}: {entry[2]} while the daemon was alive")
            elif entry[0] != "done":
                answer = after if after and after[0] == "done" else None
                getattr(self, "_" + entry[0])(*entry[1:], done=answer)
                self.operations += 1

    def _tree(self, tree, *touched):
        self.trees.append(tree)
        self.touched.append(touched)

    def _create(self, name, serial, done):
        self.serial = serial
        self.files[serial] = File()
        if done:
            self.files[serial].ino = done[1]
        self._tree({**self.trees[-1], name: serial}, serial, name[0])

    def _rename(self, source, target, done):
        tree = dict(self.trees[-1])
        serial = tree.pop(source)
        tree[target] = serial
        self._tree(tree, serial, source[0], target[0])

    def _unlink(self, name, done):
        tree = dict(self.trees[-1])
        del tree[name]
        self._tree(tree, name[0])

    def _write(self, serial, first, count, version, done):
        self.version = version
        file = self.files[serial]
        for s in range(first, first + count):
            file.sector(s).append((self.time, version))
        file.sizes.append((self.time, max(file.sizes[-1][1], first + count)))

    def _truncate(self, serial, size, done):
        file = self.files[serial]
        for s in range(size, file.sizes[-1][1]):
            file.sector(s).append((self.time, 0))
        file.sizes.append((self.time, size))

    def _fdatasync(self, serial, done):
        if done:
            self.files[serial].synced = self.time
            self.acknowledged += 1

    def _fsync(self, serial, done):
        self._fdatasync(serial, done)
        self._fsyncdir(serial, done)

    def _fsyncdir(self, whom, done):
        if done:
            self.durable_names = max([self.durable_names] + [i for i, t in enumerate(self.touched) if whom in t])
            self.acknowledged += 1

    def judge(self, directory):
        """The state that is found; Failure if it must not be."""
        found = {}
        for parent in "ab":
            with os.scandir(os.path.join(directory, parent)) as entries:
                found.update({f"{parent}/{e.name}": e.stat().st_ino for e in entries})
        fits = [t for t in self.trees[self.durable_names:] if self._same(t, found)]
        if not fits:
            newest = self.trees[-1]
            raise Failure(f"process {self.worker}: names: {sorted(found)} is no state since number "
                          f"{self.durable_names} of {len(self.trees) - 1}; the last one is {sorted(newest)}")
        # Two states may differ only in which file has the name, if it had no answer yet.
        for tree in fits:
            try:
                return self._state(directory, tree)
            except Failure as failure:
                wrong = failure
        raise wrong

    def _same(self, tree, found):
        return tree.keys() == found.keys() and all(self.files[s].ino in (None, found[n]) for n, s in tree.items())

    def _state(self, directory, tree):
        files = {}
        for name, serial in tree.items():
            with open(os.path.join(directory, name), "rb") as f:
                files[serial] = self._file(name, serial, f.read(), os.fstat(f.fileno()).st_ino)
        return {"names": tree, "files": files, "serial": self.serial, "version": self.version}

    def _file(self, name, serial, data, ino):
        file, who = self.files[serial], f"process {self.worker}: {name} (inode {ino})"
        sizes = file.allowed(file.sizes)
        size, rest = divmod(len(data), SECTOR)
        check(rest == 0 and min(sizes) <= size <= max(sizes), f"{who} has {len(data)} bytes, not {sizes} sectors")
        sectors = {}
        for s in range(size):
            piece = data[s * SECTOR:(s + 1) * SECTOR]
            version = struct.unpack_from("<HHIQ", piece)[3]
            check(piece == stamp(self.worker, serial, s, version), f"{who}: sector {s} holds what is not its own")
            values = file.allowed(file.sectors.get(s, [(-1, 0)]))
            check(version in values, f"{who}: sector {s} holds version {version}, not {values}")
            sectors[s] = version
        return {"ino": ino, "size": size, "sectors": sectors}
