"""Whatever producers die of: a source is refused if it is older than the newest KEY, and only then."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from embassy.model.incarnation import new_name
from embassy.model.lsn import Lsn
from embassy.model.record import Head, RecordKind
from embassy.pg.incarnations import Noted
from embassy.pg.replication_session import SourceIdentity
from embassy.wire.head_search import find_head
from embassy.wire.sealing import Sealed, Sealer
from producers.continuity import UnknownIncarnationError, check_continuity
from producers.incarnation import Standing, begin_incarnation
from tests.harness.memory_log import GENESIS, MemoryLog, seal, verified

_SOURCE = SourceIdentity(7, 1)


class _DiedError(Exception):
    """The producer was killed."""


class _Sealing:
    """As the sealer, without cryptography."""

    generation = 1

    def key_record(self, head: Head, incarnation: bytes, **_source: int) -> Sealed:
        return Sealed(*seal(head, RecordKind.KEY, incarnation=incarnation, generation=1))


@dataclass(frozen=True)
class Database:
    """What it has noted, and what it ever had."""

    names: tuple[bytes, ...] = ()
    ever: frozenset[bytes] = frozenset()

    def noting(self, name: bytes, follows: bytes) -> Database:
        """As embassy.note_incarnation; tests/integration/test_provision.py holds that to the same."""
        kept = self.names[self.names.index(follows) :] if follows in self.names else self.names
        return Database((*kept, name), self.ever | {name})


@dataclass
class World:
    rng: random.Random
    database: Database = Database()
    topic: MemoryLog = field(default_factory=MemoryLog)
    late: list[bytes] = field(default_factory=list)
    """Appends of dead producers that are still on their way."""
    snapshots: list[Database] = field(default_factory=list)

    def start(self, *, noting: bool = True, dies: str = "", sends: int = 1) -> None:
        """A producer starts; ``dies``: where it is killed."""
        found = find_head(self.topic, verified, GENESIS)
        standing = Standing(GENESIS, 0) if found is None else Standing(found.head, found.next_offset)
        self.check(standing.head, begun=found is not None)

        def named(follows: bytes) -> bytes:
            name = new_name(noted=noting)
            if dies == "before note":
                raise _DiedError
            if noting:
                self.database = self.database.noting(name, follows)
            if dies == "after note":
                raise _DiedError
            return name

        def append_and_wait(value: bytes) -> int:
            if dies == "on the way":
                self.late.append(value)
                raise _DiedError
            self.deliver_some()
            offset = self.topic.append(value)
            if dies == "after append":
                raise _DiedError
            return offset

        try:
            head, _ = begin_incarnation(
                standing,
                sealer=cast("Sealer", _Sealing()),
                source=_SOURCE,
                named=named,
                append_and_wait=append_and_wait,
                log=self.topic,
                verified=verified,
            )
        except _DiedError:
            return
        for _ in range(sends):
            value, head = seal(head, RecordKind.DATA, incarnation=head.incarnation, body=self.rng.randbytes(3))
            self.topic.append(value)

    def deliver_some(self) -> None:
        while self.late and self.rng.random() < 0.7:
            self.topic.append(self.late.pop(self.rng.randrange(len(self.late))))

    def check(self, head: Head, *, begun: bool) -> None:
        check_continuity(
            last=_SOURCE if begun else None,
            now=_SOURCE,
            incarnation=head.incarnation,
            noted=Noted(self.database.names),
            resume_lsn=head.resume_lsn,
            confirmed_lsn=Lsn(0),
            flushed_lsn=Lsn(1 << 40),  # the log has grown past the stream's end
            switch_points={},
            slot="embassy_x",
        )

    def halts(self) -> bool:
        try:
            self.start(dies="before note")
        except UnknownIncarnationError:
            return True
        return False

    @property
    def newest(self) -> bytes:
        found = find_head(self.topic, verified, GENESIS)
        return b"" if found is None else found.head.incarnation


_STEPS: dict[str, Callable[[World], Any]] = {
    "run": World.start,
    "run and send nothing": lambda world: world.start(sends=0),
    "die before the note": lambda world: world.start(dies="before note"),
    "die after the note": lambda world: world.start(dies="after note"),
    "die with the KEY on the way": lambda world: world.start(dies="on the way"),
    "die after the KEY": lambda world: world.start(dies="after append"),
    "late words arrive": World.deliver_some,
    "snapshot": lambda world: world.snapshots.append(world.database),
}
_steps = st.lists(st.sampled_from(sorted(_STEPS)), max_size=25)


@given(_steps, st.integers(0, 2**32))
def test_no_death_makes_a_source_look_restored(steps: list[str], seed: int) -> None:
    world = World(random.Random(seed))
    for step in steps:
        _STEPS[step](world)  # raises if it does
    assert not world.halts()


@given(_steps, _steps, st.integers(0, 2**32))
def test_a_restored_source_is_refused_exactly_if_it_is_older_than_the_newest_key(
    before: list[str], after: list[str], seed: int
) -> None:
    world = World(random.Random(seed))
    for step in (*before, "snapshot", *after):
        _STEPS[step](world)
    newest = world.newest
    for snapshot in world.snapshots:
        world.database = snapshot
        assert world.halts() == (newest != b"" and newest not in snapshot.ever)


@given(_steps, st.integers(0, 2**32))
def test_a_program_that_notes_nothing_may_write_in_between(steps: list[str], seed: int) -> None:
    world = World(random.Random(seed))
    for step in steps:
        _STEPS[step](world)
        world.start(noting=False)
        world.start(dies="before note")
    world.start()
    world.start(noting=False)
    assert not world.halts()


def test_the_last_state_before_a_key_is_refused_and_the_first_behind_its_note_is_not() -> None:
    world = World(random.Random(1))
    world.start()
    world.snapshots.append(world.database)
    world.start(dies="after note")
    world.snapshots.append(world.database)
    world.start()
    world.snapshots.append(world.database)
    halts = []
    for snapshot in world.snapshots:
        world.database = snapshot
        halts.append(world.halts())
    assert halts == [True, True, False]
