"""A table that is copied while it is changed and altered, over many schedules: commits seen late, crashes, redone chunks.

The model of the source keeps the one promise of PostgreSQL that the copy rests on: whoever touches a row that another
transaction has touched waits until every new snapshot sees that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from producers.chunk_rows import escaped, merge, unescaped
from producers.copy_window import CopyWindow, Snapshot
from producers.pgoutput_decoder import DELETE, INSERT, NULL_ELEMENT, decode_row_change
from tests.harness import pgoutput
from tests.harness.pgoutput import UNCHANGED

KEYS = 12
OID = 77
Rows = dict[int, tuple[bytes, bytes]]
"""Per key a plain value, and one that an update may leave unsent."""


class Committed(NamedTuple):
    xid: int
    messages: list[bytes]
    keys: frozenset[int]
    truncates: bool = False
    alters: bool = False
    """Rows have other values afterwards, and no message says so: the replica executes the statement."""


@dataclass
class Request:
    low: int | None
    high: int | None
    at: int | None = None
    """Everything up to here is copied."""
    done: bool = False
    keys: frozenset[int] = frozenset()
    """Only these rows."""


@dataclass
class Chunk:
    request: Request
    snapshot: Snapshot
    log_end: int
    low: int | None
    low_inclusive: bool
    high: int | None
    text: bytes
    last: int | None
    gone: frozenset[int] = frozenset()
    """Of rows asked for by their keys, those that were not there; the chunk speaks of no range."""


@dataclass
class World:
    random: Random
    rows: Rows = field(default_factory=dict)
    log: list[Committed] = field(default_factory=list)
    unseen: set[int] = field(default_factory=set)
    next_xid: int = (1 << 32) - 5  # ids wrap around within the test
    sent: int = 0
    replica: Rows = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    window: CopyWindow = field(default_factory=CopyWindow)
    unproven: set[int] = field(default_factory=set)
    chunk: Chunk | None = None
    calm: bool = False

    # ------------------------------------------------------------------ the source

    def commit(self) -> None:
        locked = set().union(*(c.keys for c in self.log if c.xid in self.unseen))
        if any(c.truncates or c.alters for c in self.log if c.xid in self.unseen):
            return
        messages: list[bytes] = []
        touched: set[int] = set()
        random = self.random
        if not self.unseen and self.chunk is None and random.random() < 0.03:
            self.rows.clear()
            self._log(Committed(self.next_xid, [pgoutput.truncate([OID])], frozenset(range(KEYS)), truncates=True))
            return
        for _ in range(random.randint(1, 3)):
            key, new = random.randrange(KEYS), random.randrange(KEYS)
            if {key, new} & locked:
                continue
            touched |= {key, new}
            value = random.choice([b"a", b"b\t\\", b"\\N", b"c\n"])
            if key not in self.rows:
                self.rows[key] = value, value * 2
                messages.append(pgoutput.insert(OID, (b"%d" % key, value, value * 2)))
            elif random.random() < 0.3:
                del self.rows[key]
                messages.append(pgoutput.delete(OID, key=(b"%d" % key, None, None)))
            else:
                moved = new not in self.rows and random.random() < 0.5
                large = self.rows[key][1] if random.random() < 0.6 else value * 3
                sent = UNCHANGED if large == self.rows[key][1] else large
                del self.rows[key]
                self.rows[new if moved else key] = value, large
                old = (b"%d" % key, None, None) if moved else None
                messages.append(pgoutput.update(OID, (b"%d" % (new if moved else key), value, sent), key=old))
        self._log(Committed(self.next_xid, messages, frozenset(touched)))

    def alter(self) -> None:
        """Whoever alters the table waits for those who have changed it, and they for him; so do readers."""
        if not self.unseen and self.random.random() < 0.2:
            altered(self.rows)
            self._log(Committed(self.next_xid, [], frozenset(range(KEYS)), alters=True))

    def _log(self, committed: Committed) -> None:
        self.log.append(committed)
        self.unseen.add(committed.xid)
        self.next_xid += 1

    def see(self) -> None:
        if self.unseen:
            self.unseen.discard(self.random.choice(sorted(self.unseen)))

    def seen_rows(self) -> Rows:
        """What a new snapshot sees."""
        rows: Rows = {}
        for committed in self.log:
            if committed.xid not in self.unseen:
                if committed.alters:
                    altered(rows)
                for message in committed.messages:
                    change(rows, message)
        return rows

    # ------------------------------------------------------------------ the producer

    def deliver(self) -> None:
        if self.sent == len(self.log):
            return
        committed = self.log[self.sent]
        for message in committed.messages:
            if message[0] == b"U"[0] and self.unfinished:
                found = decode_row_change(message)
                if found.old is not None and found.new is not None and None in found.new:
                    new = int(found.new[0][4:])  # type: ignore[index]
                    self.requests.append(Request(new, new))
        self.sent += 1
        if committed.alters:
            self.window.altered(committed.xid % (1 << 32))
            altered(self.replica)
            return
        self.window.delivered(committed.xid % (1 << 32), committed.messages)
        if self.unfinished:
            for message in committed.messages:
                change(self.replica, message, lenient=True)
        else:
            for message in committed.messages:
                change(self.replica, message)

    def read(self) -> None:
        pending = [request for request in self.requests if not request.done]
        if self.chunk is not None or not pending:
            return
        if any(c.alters for c in self.log if c.xid in self.unseen):
            return
        request = self.random.choice(pending)
        if request.keys:
            self.read_rows(request)
            return
        low, inclusive = (request.low, True) if request.at is None else (request.at, False)
        snapshot = Snapshot(min(self.unseen, default=self.next_xid), self.next_xid, frozenset(self.unseen))
        rows = self.seen_rows()
        inside = [
            key
            for key in sorted(rows)
            if (low is None or key > low or (inclusive and key == low))
            and (request.high is None or key <= request.high)
        ]
        limit = self.random.randint(1, 4)
        taken = inside[:limit]
        last = taken[-1] if len(inside) > limit else None
        text = b"".join(b"%d\t%s\t%s\n" % (k, escaped(rows[k][0]), escaped(rows[k][1])) for k in taken)
        self.chunk = Chunk(
            request, snapshot, len(self.log), low, inclusive, request.high if last is None else last, text, last
        )

    def read_rows(self, request: Request) -> None:
        snapshot = Snapshot(min(self.unseen, default=self.next_xid), self.next_xid, frozenset(self.unseen))
        rows = {key: row for key, row in self.seen_rows().items() if key in request.keys}
        text = b"".join(b"%d\t%s\t%s\n" % (k, escaped(rows[k][0]), escaped(rows[k][1])) for k in rows)
        gone = request.keys - rows.keys()
        self.chunk = Chunk(
            request, snapshot, len(self.log), None, low_inclusive=False, high=None, text=text, last=None, gone=gone
        )

    def ship(self) -> None:
        chunk = self.chunk
        if chunk is None or self.sent < chunk.log_end:
            return
        self.chunk = None
        missing = self.window.missing_in(chunk.snapshot, {xid % (1 << 32) for xid in self.unproven})
        if missing is None:
            return
        merged = merge(chunk.text, (0,), missing)
        if (b"%d" % (chunk.request.low or 0),) in merged.incomplete and chunk.request.low is not None:
            return
        if merged.incomplete & {(b"%d" % key,) for key in chunk.request.keys}:
            return
        spared = {int(key) for (key,) in merged.spared}
        spoken_of = chunk.gone if chunk.request.keys else {key for key in self.replica if within(chunk, key)}
        if chunk.request.keys:
            spared = {int(key) for (key,) in merge(b"", (0,), missing).spared}
        for key in spoken_of - spared:
            self.replica.pop(key, None)
        for line in merged.copy_text.split(b"\n")[:-1]:
            key_text, small, large = line.split(b"\t")
            self.replica[int(key_text)] = unescaped(small), unescaped(large)
        assert merged.rows == merged.copy_text.count(b"\n")
        if not self.calm and self.random.random() < 0.15:
            self.crash()  # shipped, and not noted: it is redone
        elif chunk.last is None:
            chunk.request.done = True
        else:
            chunk.request.at = chunk.last

    def crash(self) -> None:
        """The producer starts anew: what it delivered of what no snapshot sees yet is known by the locks only."""
        self.window = CopyWindow(kept_bytes_most=self.random.choice([0, 60, 1 << 20]))
        self.unproven = set(self.unseen)
        self.chunk = None

    @property
    def unfinished(self) -> bool:
        return not all(request.done for request in self.requests)


def within(chunk: Chunk, key: int) -> bool:
    """Whether a key is in the chunk's range."""
    above = chunk.low is None or key > chunk.low or (chunk.low_inclusive and key == chunk.low)
    return above and (chunk.high is None or key <= chunk.high)


def altered(rows: Rows) -> None:
    """What the statement does to each row."""
    for key, (small, large) in rows.items():
        rows[key] = small + b"'", large


def change(rows: Rows, message: bytes, *, lenient: bool = False) -> None:
    """Apply a message as the replica does; where a copy is unfinished, rows may be missing."""
    if message[0] == b"T"[0]:
        rows.clear()
        return
    found = decode_row_change(message)
    new = None if found.new is None else [None if v is None else v[4:] for v in found.new]
    old = None if found.old is None else int(found.old[0][4:])  # type: ignore[index]
    if found.kind == INSERT:
        assert new is not None
        key, small, large = values(new)
        assert lenient or key not in rows
        assert large is not None
        rows[key] = small, large
        return
    if found.kind == DELETE:
        assert old is not None
        assert lenient or old in rows
        rows.pop(old, None)
        return
    assert new is not None
    key, small, large = values(new)
    before = rows.pop(key if old is None else old, None)
    assert lenient or before is not None
    if before is not None:
        rows[key] = small, before[1] if large is None else large
    elif old is not None and large is not None:
        rows[key] = small, large


def values(new: list[bytes | None]) -> tuple[int, bytes, bytes | None]:
    key, small, large = new
    assert key is not None
    assert small is not None
    return int(key), small, large


def worlds(random: Random) -> Iterator[World]:
    world = World(random)
    for _ in range(random.randint(0, 6)):
        world.commit()
    world.unseen.clear()
    world.sent = len(world.log)  # what was there before the stream
    if random.random() < 0.5:  # a replica that differs: its table is copied anew
        world.replica = {random.randrange(KEYS): (b"stale", b"wrong") for _ in range(4)}
    if random.random() < 0.3:  # a replica that differs in rows that are known
        world.replica = dict(world.rows)
        wrong = frozenset(random.sample(range(KEYS), 5))
        for key in wrong:
            world.replica.pop(key, None)
            if random.random() < 0.6:
                world.replica[key] = b"stale", b"wrong"
        world.requests.append(Request(None, None, keys=wrong))
    else:
        world.requests.append(Request(None, None))
    yield world


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 1 << 64))
def test_a_copied_table_is_the_sources_whatever_happens_meanwhile(seed: int) -> None:
    random = Random(seed)
    (world,) = worlds(random)
    steps = [
        world.commit,
        world.alter,
        world.see,
        world.see,
        world.deliver,
        world.deliver,
        world.read,
        world.ship,
        world.ship,
    ]
    for _ in range(random.randint(10, 120)):
        random.choice(steps)()
        if random.random() < 0.02:
            world.crash()
    world.calm = True
    world.unseen.clear()
    for _ in range(200):
        if not world.unfinished and world.sent == len(world.log):
            break
        world.deliver()
        world.read()
        world.ship()
    assert not world.unfinished
    assert world.replica == world.rows
    for _ in range(10):  # and from here on every change finds its row
        world.commit()
        world.unseen.clear()
        world.deliver()
    assert world.replica == world.rows


@given(st.binary())
def test_copy_text_comes_back(value: bytes) -> None:
    assert unescaped(escaped(value)) == value
    assert not set(escaped(value)) & set(b"\t\n\r\b\f\v")


def test_a_snapshot_sees_what_was_over_when_it_was_taken() -> None:
    snapshot = Snapshot.parse("4294967290:4294967300:4294967290,4294967298")
    seen = {xid: snapshot.sees(xid % (1 << 32)) for xid in range(4294967288, 4294967303)}
    assert [xid for xid, is_seen in seen.items() if not is_seen] == [
        4294967290, 4294967298, 4294967300, 4294967301, 4294967302
    ]  # fmt: skip
    assert Snapshot.parse("7:7:").sees(6)
    assert not Snapshot.parse("7:7:").sees(7)


def test_null_is_not_a_text() -> None:
    changed = pgoutput.update(OID, (b"1", None, b"\\N"))
    assert decode_row_change(changed).new == [b"\0\0\0\x011", NULL_ELEMENT, b"\0\0\0\x02\\N"]
    assert merge(b"1\tx\ty\n", (0,), [changed]).copy_text == b"1\t\\N\t\\\\N\n"
