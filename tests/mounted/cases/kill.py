"""kill -9 of the daemon under load, again and again on one volume: what was fsynced is there (kill_judge.py), and
fsck finds nothing."""
import json
import pathlib
import sys
import time

import kill_load
from harness import FULL, Failure, case, check, run, seeded_random
from kill_judge import Judge, empty_state
from kill_load import SECTOR

WORKERS = 4
ROUNDS = 200 if FULL else 10


class Battle:
    """A volume, the processes that change it, and what is known of it."""

    def __init__(self, scratch, mount=()):
        self.scratch, self.rng = scratch, seeded_random()
        self.volume = scratch.volume("256M", mount=("commit=1",) + mount)
        self.volume.mount()
        self.states = [empty_state() for _ in range(WORKERS)]
        self.operations = self.acknowledged = 0
        for worker in range(WORKERS):
            for parent in "ab":
                (self.directory(worker) / parent).mkdir(parents=True)
        run("sync", "-f", self.volume.dir)

    def directory(self, worker):
        return self.volume.dir / f"process{worker}"

    def log(self, worker):
        return self.scratch.path / f"log{worker}"

    def begin(self):
        """Starts the load, and comes back when all of it works."""
        children = []
        for worker, state in enumerate(self.states):
            before = self.scratch.path / f"state{worker}"
            before.write_text(json.dumps(state))
            self.log(worker).write_text("")
            children.append(self.scratch.start(sys.executable, pathlib.Path(kill_load.__file__), self.directory(worker),
                                               before, self.log(worker), self.rng.randrange(1 << 30), worker))
        end = time.monotonic() + 60
        while any(self.log(worker).stat().st_size == 0 for worker in range(WORKERS)):
            check(time.monotonic() < end, "the load does not get going")
            time.sleep(0.01)
        return children

    def await_promise(self):
        """Until a sync that names rest on has been answered."""
        end = time.monotonic() + 60
        while not any(Judge(worker, state, self.log(worker).read_text().splitlines(True)).durable_names
                      for worker, state in enumerate(self.states)):
            check(time.monotonic() < end, "no fsync was answered")
            time.sleep(0.01)

    def kill(self, children):
        """The daemon dies; the dead mount goes; the load sees it and ends."""
        for child in children:
            check(child.poll() is None, "a process of the load ended before the daemon was killed")
        self.volume.kill()
        for child in children:
            check(child.wait(60) == 0, "a process of the load failed")

    def judge(self):
        """fsck, a mount with replay, and what each process finds again."""
        self.volume.fsck("-n")
        self.volume.mount()
        for worker in range(WORKERS):
            with open(self.log(worker)) as f:
                judge = Judge(worker, self.states[worker], f.readlines())
            self.states[worker] = judge.judge(self.directory(worker))
            self.operations += judge.operations
            self.acknowledged += judge.acknowledged
            self.log(worker).write_text("")

    def judge_notices(self):
        """Zeros, another sector's bytes and a missing end in a durable file are no state that may be."""
        worker, name, file = next((w, name, state["files"][serial]) for w, state in enumerate(self.states)
                                  for name, serial in state["names"].items()
                                  if all(state["files"][serial]["sectors"].get(s) for s in (0, 1)))
        path = self.directory(worker) / name
        right = path.read_bytes()
        for wrong in (bytes(SECTOR) + right[SECTOR:], right[SECTOR:] + right[:SECTOR], right[:-SECTOR]):
            path.write_bytes(wrong)
            try:
                Judge(worker, self.states[worker], []).judge(self.directory(worker))
            except Failure:
                continue
            raise Failure(f"the judge takes wrong bytes of {name} ({file['size']} sectors) for right")
        path.write_bytes(right)


@case(seconds=1000 if FULL else 25)
def kill_200_times(scratch):
    """10 times without --full."""
    battle = Battle(scratch)
    number = 0
    while number < ROUNDS or (battle.acknowledged <= 20 * ROUNDS and number < 4 * ROUNDS):  # a slow disk
        number += 1
        children = battle.begin()
        time.sleep(battle.rng.uniform(0.1, 2.0))
        battle.kill(children)
        try:
            battle.judge()
        except Failure as failure:
            raise Failure(f"kill number {number}: {failure}") from None
    battle.volume.umount()
    battle.judge()  # nothing has happened since
    battle.judge_notices()
    battle.volume.umount()
    print(f"  killed {number} times: {battle.operations} operations, {battle.acknowledged} of them answered syncs")
    check(battle.acknowledged > 20 * ROUNDS, "too little was fsynced to judge")


@case(seconds=8)
def kill_finds_an_answer_that_came_early(scratch):
    """With the journal's writer parked nothing becomes durable. An fsync waits for it; with the rule switched off it
    answers, and what it promised is lost."""
    battle = Battle(scratch, mount=("debug_points",))
    for mutant in (False, True):
        if mutant:
            battle.volume.debug("mutant", "journal.acknowledge_early", "on")
        battle.volume.debug("park", "journal.before_flush")
        children = battle.begin()
        battle.volume.await_parked("journal.before_flush")
        if mutant:
            battle.await_promise()
        battle.kill(children)
        try:
            battle.judge()
        except Failure as failure:
            check(mutant, failure)
            print(f"  {failure}")
            if battle.volume.pid:
                battle.volume.umount()
            return
    raise Failure("an fsync answered before anything was written, and nobody has noticed")
