#!/usr/bin/env python3
"""The protocol of docs/design.md, "The stale cached map", in every interleaving.

A file of two blocks of two halves each; a folio is a block. The agents are a writer of partial blocks,
writeback with its ioend, reclaim, a store through a shared mapping, and a change of the map elsewhere.
Each step between two yields is atomic in the code as well: it is one section under a folio lock or under
the extent map's mutex. Judged in every state: what a crash would show, and that what is dirty has space.
Judged at the end: that every half holds what was last written to it, and that no reservation leaks.

A mutant leaves one rule out, as the mutant of the same name does in the code, and has to be found.

  tests/model/stale_map.py           all scenarios; with all rules, and with each mutant
  tests/model/stale_map.py MUTANT    only this one, with the steps that break the file
"""
import collections
import copy
import pathlib
import re
import sys
from dataclasses import dataclass, field

HOLE, DELALLOC, UNWRITTEN, MAPPED = "hole", "delalloc", "unwritten", "mapped"
GARBAGE = "garbage"  # what blocks hold on disk before they were ever written
BEYOND = "beyond"    # stored by a mapping behind the end of the file: nobody's data
ZERO = "0"
WRITER, STORER = "W", "S"  # what they write
BLOCKS = 2


@dataclass
class Block:
    state: str = HOLE
    disk: list = field(default_factory=lambda: [GARBAGE, GARBAGE])
    cache: list = None  # its folio's bytes; None: not cached
    dirty: bool = False
    writeback: bool = False
    lock: str = ""      # who holds the folio lock


@dataclass
class File:
    """Everything there is. Positions and sizes are in halves."""
    blocks: list
    size: int = 2 * BLOCKS
    stored: int = 2 * BLOCKS  # the size in the index
    sequence: int = 0
    expected: list = field(default_factory=lambda: [ZERO] * 2 * BLOCKS)
    at: dict = field(default_factory=dict)  # per agent: where it stands, and what it remembers

    def key(self):
        return repr(self)


def half(file, h):
    return file.blocks[h // 2], h % 2


def from_disk(file, b):
    block = file.blocks[b]
    return list(block.disk) if block.state == MAPPED else [ZERO, ZERO]


def set_state(file, b, state):
    """Every change bumps, in the same section."""
    if file.blocks[b].state != state:
        file.blocks[b].state = state
        file.sequence += 1


# ---- agents: each yields (what it did, the next state) for every step it could take now ----

class Writer:
    """Writes the halves [first, end), folio by folio. With `fails_at`, copying that half fails."""
    name = "writer"

    def __init__(self, first, end, fails_at=None, short_remaps=False):
        self.first, self.end, self.fails_at, self.short = first, end, fails_at, short_remaps

    def start(self):
        return dict(step="eof", pos=self.first, stale=0)

    def done(self, me):
        return me["step"] == "end"

    def steps(self, file, rules):
        me = file.at[self.name]
        step = getattr(self, "do_" + me["step"], None)
        if step:
            yield from step(file, me, rules)

    def do_eof(self, file, me, rules):
        """The tail of the old last block becomes part of the file: zeros."""
        b = file.size // 2
        if self.first > file.size and file.size % 2 and rules.on("writeback.no_eof_zero"):
            block = file.blocks[b]
            if block.lock:
                return
            if block.cache is not None or block.state == MAPPED:
                block.cache = block.cache or from_disk(file, b)
                block.cache[1] = ZERO
                block.dirty = True
        me["step"] = "begin"
        yield "zeroes the tail of the last block"

    def do_begin(self, file, me, rules):
        """Map and cookie; space behind holes is reserved, and remembered as new."""
        b = me["pos"] // 2
        last = b if self.short and "new" in me else (self.end - 1) // 2
        reserved = set()
        for n in range(b, last + 1):
            if file.blocks[n].state == HOLE:
                set_state(file, n, DELALLOC)
                reserved.add(n)
        if "new" not in me:
            me["new"] = set()
        elif not rules.on("iomap.drop_new"):
            me["new"] = set()  # a remap that forgets what was reserved before
        me["new"] |= reserved
        me["map"] = {n: file.blocks[n].state for n in range(b, last + 1)}
        me["step"] = "lock"
        if rules.on("iomap.cookie_late"):
            me["cookie"] = file.sequence
        else:
            me["step"] = "cookie"
        yield f"begin: {me['map']}"

    def do_cookie(self, file, me, rules):
        me["cookie"] = file.sequence
        me["step"] = "lock"
        yield "samples the cookie late"

    def do_lock(self, file, me, rules):
        b = me["pos"] // 2
        if b not in me["map"]:
            me["step"] = "begin"
            yield "the map is used up"
            return
        if not rules.on("iomap.validate_before_lock") and not me.get("looked"):
            me["looked"] = True
            if self.stale(file, me):
                yield "stale, seen before the lock"
            else:
                yield "valid, seen before the lock"
            return
        if file.blocks[b].lock:
            return
        file.blocks[b].lock = self.name
        me["step"] = "validate"
        yield f"locks folio {b}"

    def stale(self, file, me):
        if me["cookie"] == file.sequence:
            return False
        me["step"] = "begin"
        me["stale"] += 1
        me.pop("looked", None)
        return True

    def do_validate(self, file, me, rules):
        block = file.blocks[me["pos"] // 2]
        if rules.on("iomap.no_validation") and rules.on("iomap.validate_before_lock") and self.stale(file, me):
            block.lock = ""
            yield "stale: unlocks, begins again"
            return
        me["step"] = "copy"
        yield "valid"

    def do_copy(self, file, me, rules):
        b = me["pos"] // 2
        block, end = file.blocks[b], min(self.end, 2 * b + 2)
        me.pop("looked", None)
        if self.fails_at is not None and me["pos"] <= self.fails_at < end:
            block.lock = ""
            me["step"] = "punch"
            yield "cannot copy: the write ends short"
            return
        if block.cache is None:
            zero = me["map"][b] != MAPPED
            if not rules.on("iomap.carry_new_blindly") and b in me["new"]:
                zero = True
            block.cache = [ZERO, ZERO] if zero else from_disk(file, b)
        for h in range(me["pos"], end):
            block.cache[h % 2] = WRITER
            file.expected[h] = WRITER
        block.dirty = True
        block.lock = ""
        file.size = max(file.size, end)
        me["pos"] = end
        me["step"] = "end" if end == self.end else "lock"
        yield f"copies into folio {b}"

    def do_punch(self, file, me, rules):
        """Gives back what is left of the new range, folio by folio, under each one's lock."""
        left = sorted(n for n in me["new"] if 2 * n + 2 > me["pos"])
        if not left:
            me["step"] = "end"
            yield "has nothing more to give back"
            return
        b = left[0]
        block = file.blocks[b]
        if rules.on("iomap.punch_ignores_dirty"):
            if block.lock:
                return
            keep = block.dirty
        else:
            keep = False
        if not keep and block.state == DELALLOC:
            set_state(file, b, HOLE)
        me["new"] = me["new"] - {b}
        yield f"keeps block {b}, it is dirty" if keep else f"gives block {b} back"


class Writeback:
    """One folio at a time, over and over."""
    name = "writeback"

    def start(self):
        return dict(step="map")

    def done(self, me):
        return True  # it may rest whenever it likes

    def steps(self, file, rules):
        me = file.at[self.name]
        if me["step"] == "map":
            for b in range(BLOCKS):
                yield from self.submit(file, me, rules, b)
            return
        yield getattr(self, "do_" + me["step"])(file, me, rules)

    def submit(self, file, me, rules, b):
        block = file.blocks[b]
        if not block.dirty or block.lock or block.writeback or block.cache is None:
            return
        with_tail_zeroed = rules.on("writeback.no_eof_zero")
        yield f"writes folio {b}", lambda f: self.take(f, b, with_tail_zeroed, rules)

    def take(self, file, b, with_tail_zeroed, rules):
        block, me = file.blocks[b], file.at[self.name]
        if with_tail_zeroed:
            for n in range(2):
                if 2 * b + n >= file.size:
                    block.cache[n] = ZERO
        if block.state == DELALLOC:
            set_state(file, b, UNWRITTEN if rules.on("writeback.publish_mapped_early") else MAPPED)
        block.dirty, block.writeback = False, True
        me.update(step="io", block=b, bytes=list(block.cache), size=min(file.size, 2 * b + 2))

    def do_io(self, file, me, rules):
        file.blocks[me["block"]].disk = me["bytes"]
        me["step"] = "first"
        return "its write is done"

    def do_first(self, file, me, rules):
        me["step"] = "second"
        return self.convert(file, me, rules) if rules.on("writeback.end_before_convert") else self.end(file, me)

    def do_second(self, file, me, rules):
        done = self.end(file, me) if rules.on("writeback.end_before_convert") else self.convert(file, me, rules)
        file.at[self.name] = self.start()
        return done

    def convert(self, file, me, rules):
        if file.blocks[me["block"]].state == UNWRITTEN:
            set_state(file, me["block"], MAPPED)
        size = me["size"] if rules.on("writeback.size_unclamped") else file.size
        file.stored = max(file.stored, size)
        return "converts the extent, stores the size"

    def end(self, file, me):
        file.blocks[me["block"]].writeback = False
        return "ends writeback"


class Reclaim:
    name = "reclaim"

    def start(self):
        return dict(left=2)

    def done(self, me):
        return True

    def steps(self, file, rules):
        for b, block in enumerate(file.blocks):
            if file.at[self.name]["left"] and block.cache is not None and not (block.dirty or block.writeback or block.lock):
                yield f"evicts folio {b}", lambda f, b=b: self.evict(f, b)

    def evict(self, file, b):
        file.blocks[b].cache = None
        file.at[self.name]["left"] -= 1


class Store:
    """A store through a shared mapping, once: under the folio lock alone."""
    name = "store"

    def __init__(self, *halves):
        self.halves = halves

    def start(self):
        return dict(left=list(self.halves))

    def done(self, me):
        return not me["left"]

    def steps(self, file, rules):
        me = file.at[self.name]
        if not me["left"]:
            return
        h = me["left"][0]
        block, n = half(file, h)
        if block.lock:
            return
        if block.cache is None:
            block.cache = from_disk(file, h // 2)
        if block.state == HOLE:
            set_state(file, h // 2, DELALLOC)
        inside = h < file.size
        block.cache[n] = STORER if inside else BEYOND
        if inside:
            file.expected[h] = STORER
            block.dirty = True
        me["left"] = me["left"][1:]
        yield f"stores into half {h}"


class Elsewhere:
    """The map changes where nobody looks."""
    name = "elsewhere"

    def start(self):
        return dict(left=1)

    def done(self, me):
        return True

    def steps(self, file, rules):
        if file.at[self.name]["left"]:
            file.at[self.name]["left"] = 0
            file.sequence += 1
            yield "bumps"


# ---- judgement ----

def broken_now(file):
    for b, block in enumerate(file.blocks):
        if block.dirty and block.state == HOLE:
            return f"block {b} is dirty and has no space"
        crashed = from_disk(file, b)
        for n in range(2):
            h = 2 * b + n
            if h < file.stored and crashed[n] in (GARBAGE, BEYOND):
                return f"after a crash half {h} shows {crashed[n]}"
    return None


def broken_append(file):
    """An ioend stores no size beyond what it wrote. (Ioends may come in any order.)"""
    last = file.stored - 1
    if last >= 0 and file.expected[last] != ZERO and from_disk(file, last // 2)[last % 2] == ZERO:
        return f"after a crash the last half, {last}, shows zeros"
    return None


def broken_at_end(file):
    for h in range(file.size):
        block, n = half(file, h)
        shown = block.cache[n] if block.cache is not None else from_disk(file, h // 2)[n]
        if shown != file.expected[h]:
            return f"half {h} shows {shown}, not {file.expected[h]}"
    for b, block in enumerate(file.blocks):
        if block.state == DELALLOC and not block.dirty:
            return f"the reservation of block {b} has leaked"
    return None


# ---- exploration ----

class Rules:
    """All of them, or all but the one that `mutant` leaves out: a rule is named after its mutant."""

    def __init__(self, mutant=None):
        self.mutant = mutant

    def on(self, rule):
        return rule != self.mutant


@dataclass
class Scenario:
    name: str
    file: File
    agents: list
    judges: tuple = (broken_now,)
    finds: tuple = ()  # the mutants that it has to find

    def explore(self, rules):
        """(number of states, None or (what is broken, the steps to it))"""
        first = copy.deepcopy(self.file)
        first.at = {a.name: a.start() for a in self.agents}
        seen, waiting = {first.key()}, collections.deque([(first, ())])
        while waiting:
            file, path = waiting.popleft()
            wrong = next(filter(None, (judge(file) for judge in self.judges)), None)
            if not wrong and all(a.done(file.at[a.name]) for a in self.agents):
                wrong = broken_at_end(file)
            if wrong:
                return len(seen), (wrong, path)
            for agent in self.agents:
                for what, after in successors(agent, file, rules):
                    key = after.key()
                    if key not in seen:
                        seen.add(key)
                        waiting.append((after, path + (f"{agent.name} {what}",)))
        return len(seen), None


def successors(agent, file, rules):
    """Agents change the file that they are given: each step gets a copy."""
    trial = copy.deepcopy(file)
    for step in agent.steps(trial, rules):
        if isinstance(step, tuple):
            what, change = step
            after = copy.deepcopy(file)
            change(after)
            yield what, after
        else:
            yield step, trial
            return


def old_data():
    """One unwritten block; an earlier partial write is dirty in the cache."""
    return File([Block(UNWRITTEN, cache=[ZERO, STORER], dirty=True), Block()], expected=[ZERO, STORER, ZERO, ZERO])


def short_file():
    """One half long; a mapping has stored behind the end of the file."""
    return File([Block(MAPPED, disk=["old", ZERO], cache=["old", BEYOND]), Block()], size=1, stored=1,
                expected=["old", ZERO, ZERO, ZERO])


SCENARIOS = [
    Scenario("a partial write over an unwritten extent, written back and evicted", old_data(),
             [Writer(0, 1), Writeback(), Reclaim(), Elsewhere()],
             finds=("iomap.no_validation", "iomap.validate_before_lock", "iomap.cookie_late",
                    "writeback.end_before_convert")),
    Scenario("a partial write into a hole that a store fills meanwhile", File([Block(), Block()]),
             [Writer(0, 1), Writeback(), Reclaim(), Store(1), Elsewhere()],
             finds=("iomap.no_validation", "iomap.carry_new_blindly", "writeback.publish_mapped_early")),
    Scenario("a write over two blocks, remaps of one block each", File([Block(), Block()]),
             [Writer(1, 3, short_remaps=True), Writeback(), Reclaim(), Store(0), Elsewhere()],
             finds=("iomap.no_validation",)),
    Scenario("the same, and the second block cannot be copied", File([Block(), Block()]),
             [Writer(1, 3, fails_at=2, short_remaps=True), Writeback(), Elsewhere()],
             finds=("iomap.drop_new",)),
    Scenario("a write that fails beside a store into its new space", File([Block(), Block()]),
             [Writer(0, 3, fails_at=2), Writeback(), Reclaim(), Store(3)],
             finds=("iomap.punch_ignores_dirty",)),
    Scenario("a write behind the end of a file with bytes beyond it", short_file(),
             [Writer(2, 3), Writeback(), Reclaim()],
             finds=("writeback.no_eof_zero",)),
    Scenario("an appending write of two blocks", File([Block(), Block()], size=0, stored=0),
             [Writer(0, 3), Writeback(), Reclaim()], judges=(broken_now, broken_append),
             finds=("writeback.size_unclamped",)),
]


def mutants_in_the_code():
    root = pathlib.Path(__file__).resolve().parents[2]
    found = set()
    for source in [*root.glob("iomap/src/*.cc"), *root.glob("writeback/src/*.cc")]:
        found |= set(re.findall(r'mutantEnabled\("([^"]+)"\)', source.read_text()))
    return found


def main():
    known = {mutant for s in SCENARIOS for mutant in s.finds}
    if len(sys.argv) > 1 and sys.argv[1] not in known:
        print(f"stale_map.py: no mutant '{sys.argv[1]}'; there are: {' '.join(sorted(known))}", file=sys.stderr)
        return 2
    failed = 0
    for missing in sorted(known - mutants_in_the_code()):
        print(f"FAILED: the code has no mutant {missing}")
        failed += 1
    for scenario in SCENARIOS:
        if len(sys.argv) > 1 and sys.argv[1] not in scenario.finds:
            continue
        states, broken = scenario.explore(Rules())
        print(f"{scenario.name}: {states} states")
        if broken:
            print(f"  FAILED: {broken[0]}\n    " + "\n    ".join(broken[1]))
            failed += 1
        for mutant in scenario.finds:
            if len(sys.argv) > 1 and mutant != sys.argv[1]:
                continue
            states, broken = scenario.explore(Rules(mutant))
            if broken:
                print(f"  {mutant}: found, {broken[0]}")
                if len(sys.argv) > 1:
                    print("    " + "\n    ".join(broken[1]))
            else:
                print(f"  FAILED: {mutant} is not found in {states} states")
                failed += 1
    return 1 if failed else 0


sys.exit(main())
