"""A verification judges no row wrongly, whatever is committed, and whenever it becomes visible or is delivered."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.comparison import Difference, TableTally, differences
from consumers.touched_rows import TouchedRows
from embassy.model.verification import (
    Chunk,
    Key,
    RunBegin,
    RunEnd,
    TableBegin,
    TableEnd,
    TableName,
    decode,
    encode,
    summed,
)
from embassy.model.visibility import Visibility

KEYS: list[Key] = [(str(i),) for i in range(6)]
TABLE = TableName("s", "t")


def digest(value: int) -> bytes:
    return hashlib.sha256(str(value).encode()).digest()[:8]


@dataclass
class Open:
    xid: int
    writes: dict[Key, int | None] = field(default_factory=dict)
    logged: bool = False


@dataclass
class Home:
    """Transactions whose commit is in the log before it is visible, in any order; and the replica that follows."""

    chance: random.Random
    next_xid: int
    open: list[Open] = field(default_factory=list)
    seen: dict[Key, int] = field(default_factory=dict)
    """What a new snapshot sees."""
    delivered: dict[Key, int] = field(default_factory=dict)
    """What the replica must be: all that is in the log."""
    replica: dict[Key, int] = field(default_factory=dict)
    touched: TouchedRows | None = None

    def step(self) -> None:
        kind = self.chance.randrange(8)
        if kind == 0 or not self.open:
            self.open.append(Open(self.next_xid))
            self.next_xid += 1
        elif kind <= 3:
            running = [t for t in self.open if not t.logged]
            if running:
                self._write(self.chance.choice(running))
        elif kind <= 5:
            running = [t for t in self.open if not t.logged]
            if running:
                self._log(self.chance.choice(running))
        elif kind == 6:
            logged = [t for t in self.open if t.logged]
            if logged:
                self._show(self.chance.choice(logged))
        else:
            self._spoil()

    def _write(self, transaction: Open) -> None:
        key = self.chance.choice(KEYS)
        if any(key in other.writes for other in self.open if other is not transaction):
            return  # it would wait for the row's lock, which is held until the other is no longer in progress
        transaction.writes[key] = self.chance.choice([None, self.chance.randrange(1000)])

    def _log(self, transaction: Open) -> None:
        transaction.logged = True
        for key, value in transaction.writes.items():
            for side in (self.delivered, self.replica):
                if value is None:
                    side.pop(key, None)
                else:
                    side[key] = value
        if self.touched is not None and transaction.writes:
            self.touched.touch(transaction.xid % (1 << 32), transaction.writes)

    def _show(self, transaction: Open) -> None:
        self.open.remove(transaction)
        for key, value in transaction.writes.items():
            if value is None:
                self.seen.pop(key, None)
            else:
                self.seen[key] = value

    def _spoil(self) -> None:
        key = self.chance.choice(KEYS)
        what = self.chance.randrange(3)
        if what == 0:
            self.replica.pop(key, None)
        else:
            self.replica[key] = self.chance.randrange(1000, 2000)

    def snapshot(self) -> Visibility:
        running = frozenset(t.xid for t in self.open)
        return Visibility(min(running, default=self.next_xid), self.next_xid, running)

    def lockers(self) -> list[int]:
        return [t.xid for t in self.open if t.writes]

    def steps(self, most: int) -> None:
        for _ in range(self.chance.randrange(most)):
            self.step()


@given(st.integers(0, 1 << 32), st.sampled_from([3, (1 << 32) - 5, (7 << 32) - 9]))
@settings(max_examples=600)
def test_no_row_is_judged_wrongly(seed: int, first_xid: int) -> None:
    chance = random.Random(seed)
    home = Home(chance, first_xid)
    home.steps(30)
    touched = home.touched = TouchedRows()
    doubtful = home.lockers()  # after the table's begin was committed
    home.steps(10)
    tally = TableTally()
    for attempt in range(3):
        snapshot, rows = home.snapshot(), dict(home.seen)
        listed = attempt > 0 and chance.random() < 0.5
        scope = chance.sample(KEYS, 3) if listed else KEYS
        home.steps(12)
        theirs = {key: digest(rows[key]) for key in scope if key in rows}
        ours = {key: digest(home.replica[key]) for key in scope if key in home.replica}
        in_flight = touched.in_flight(snapshot, [xid % (1 << 32) for xid in doubtful])
        differing = differences(theirs, ours)
        present = scope if listed else theirs.keys() | ours.keys()
        before = dict(tally.found)
        tally.told(0, len(theirs), differing, in_flight, present, listed=listed)
        assert sum(map(tally.count, Difference)) == len(tally.found)
        for key in tally.found.keys() - before.keys():
            right, wrong = home.delivered.get(key), home.replica.get(key)
            assert right != wrong, "a difference that is none"
            assert (tally.found[key] is Difference.MISSING) == (wrong is None)
            assert (tally.found[key] is Difference.EXTRA) == (right is None)
        chunk = tally.chunks[0]
        if chunk.undecided is None:
            for key in present:
                if home.delivered.get(key) != home.replica.get(key):
                    assert key in tally.found or key in in_flight.keys, "a difference that was not told"
                if key in in_flight.keys and not listed and attempt == 0:
                    assert key in chunk.pending
        else:
            assert in_flight.everything or listed
            assert tally.pending >= 1
        touched.forget(snapshot)


def test_what_was_judged_later_is_no_longer_pending() -> None:
    touched, tally = TouchedRows(), TableTally()
    touched.touch(10, [("1",), ("2",)])
    unseen, seen = Visibility(10, 11, frozenset({10})), Visibility(12, 12, frozenset())
    tally.told(0, 3, {("1",): Difference.MISSING}, touched.in_flight(unseen, ()), KEYS)
    assert (tally.found, tally.pending, tally.undecided) == ({}, 2, "")
    tally.told(0, 2, {}, touched.in_flight(seen, ()), [("1",), ("2",)], listed=True)
    assert (tally.found, tally.pending, tally.rows) == ({}, 0, 3)


def test_an_open_transaction_of_before_leaves_a_chunk_undecided_until_it_is_seen() -> None:
    touched, tally = TouchedRows(), TableTally()
    tally.told(0, 5, {}, touched.in_flight(Visibility(9, 11, frozenset({9})), [9]), KEYS)
    assert tally.pending == 5
    assert "still open" in tally.undecided
    tally.told(0, 5, {}, touched.in_flight(Visibility(12, 12, frozenset()), [9]), KEYS)
    assert (tally.pending, tally.undecided) == (0, "")


def test_what_is_kept_in_mind_is_bounded() -> None:
    touched = TouchedRows(rows_most=3)
    touched.touch(10, KEYS)
    assert touched.in_flight(Visibility(20, 20, frozenset()), ()).everything


def test_what_a_snapshot_has_seen_is_forgotten() -> None:
    touched = TouchedRows(rows_most=6)
    for xid in range(10, 40):
        touched.touch(xid, KEYS)
        assert touched.in_flight(Visibility(xid, xid, frozenset()), ()).keys == frozenset(KEYS)
        touched.forget(Visibility(xid + 1, xid + 1, frozenset()))
    assert touched.in_flight(Visibility(40, 40, frozenset()), ()).keys == frozenset()


keys = st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), unique=True, max_size=5)


@given(keys, st.binary(min_size=32, max_size=32), st.booleans(), st.data())
def test_a_message_comes_as_it_went(found: list[Key], total: bytes, listed: bool, data: st.DataObject) -> None:  # noqa: FBT001
    digests = tuple(data.draw(st.sampled_from([b"", b"12345678", b"\0" * 8])) for _ in found)
    chunk = Chunk(
        TABLE,
        7,
        Visibility(3, 9, frozenset({3, 5})),
        (3,),
        len(found),
        total,
        tuple(found),
        digests,
        found[0] if found else None,
        None,
        listed,
    )
    for message in (
        chunk,
        RunBegin(whole=True),
        TableBegin(TABLE, ("a", 'b"'), ("a",), ("",)),
        TableEnd(TABLE, 3),
        RunEnd(2),
        chunk._replace(keys=(), digests=(b"12345678",) * 3, first_byte=(0, 16)),
    ):
        assert decode(encode(message)) == message


def test_sums_do_not_depend_on_order() -> None:
    assert summed([b"a", b"b"]) == summed([b"b", b"a"]) != summed([b"a"])
