"""Bringing a returned database level: rows by their keys where a verification names them, else whole tables.

Everything travels through the stream; this only asks for it at the source, and waits until the replica has it.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from embassy.cli.repair import repair_of
from embassy.cli.verify import compared_tables
from embassy.model.errors import RefusedError, TransientError
from embassy.model.large_objects import PAGES
from embassy.model.repair_plan import RepairPlan, TableRepair
from embassy.model.verification import TableName
from embassy.pg import large_objects, repair_source, table_copies, verify_source, verify_store
from embassy.pg.connection import place_of
from embassy.pg.repair_source import Requested
from embassy.pg.setup_errors import explained
from embassy.runtime.config import Stream
from producers.verification import Verification, Wish

_POLL_SECONDS = 0.2
_ROUNDS = 3
_REASON = "failback"


class LevelWish(NamedTuple):
    """How a database is brought level."""

    snapshot: bool
    """Whole tables, whatever is known of their rows."""
    wait_seconds: float
    """How long nothing may move."""


class Leveller:
    """Brings one replica level with its source."""

    def __init__(
        self, name: str, stream: Stream, wish: LevelWish, tell: Callable[[str], None], *, quiet: bool
    ) -> None:
        """Take a stream.

        Args:
            name: the registry's.
            stream: whose configuration names both databases.
            wish: how.
            tell: told of each stage, in words.
            quiet: draw no bars.
        """
        self._name = name
        self._stream = stream
        self._wish = wish
        self._tell = tell
        self._quiet = quiet

    def run(self, replica: psycopg.Connection[Any]) -> None:
        """Ask for what the replica lacks until nothing is; returns once no table waits for rows.

        Raises:
            RefusedError: the source is not configured here, or its copies do not do it.
            TransientError: nothing moves: the roles of the stream have to run.
        """
        source = self._stream.source
        if source is None:
            waiting = table_copies.awaited(replica)
            raise RefusedError(
                f"it follows, and {len(waiting)} tables wait for rows: " + _brief(waiting),
                place=self._name,
                hint="add streams.NAME.source, naming the embassy's database, and run this again; or, in the embassy, "
                "embassy resync TABLE for each",
            )
        with (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                console=Console(stderr=True),
                transient=True,
                disable=self._quiet,
            ) as bars,
            explained(place_of(source.dsn)),
            verify_source.open_source(source.dsn) as embassy,
        ):
            work = _Levelling(
                self._name,
                self._stream,
                _Ends(embassy, replica),
                _Shown(bars, self._tell),
                self._wish.wait_seconds,
            )
            tables = compared_tables(embassy, source.publication)
            if self._wish.snapshot or not work.by_rows(tables):
                awaited = [TableName(*table) for table in table_copies.awaited(replica)]
                work.by_tables([*awaited, *(table for table in tables if table == PAGES)])
            table_copies.await_no_more(replica)


class _Ends(NamedTuple):
    """The two databases."""

    embassy: psycopg.Connection[Any]
    replica: psycopg.Connection[Any]


class _Shown(NamedTuple):
    """Where it is seen how far it is."""

    bars: Progress
    tell: Callable[[str], None]


class _Levelling:
    """One run of it, between two sessions."""

    def __init__(
        self,
        name: str,
        stream: Stream,
        ends: _Ends,
        shown: _Shown,
        wait_seconds: float,
    ) -> None:
        self._name = name
        self._stream = stream
        self._identity = bytes.fromhex(stream.stream)
        self._embassy, self._replica = ends
        self._bars, self._tell = shown
        self._wait_seconds = wait_seconds

    def by_rows(self, tables: list[TableName]) -> bool:
        """Compare every row, and have those sent that differ; returns whether all are proven to be alike in the end."""
        wanted, whole = tables, True
        for _ in range(_ROUNDS):
            run = self._verified(wanted, whole=whole)
            found = [
                table
                for table in verify_store.tables(self._replica, self._identity, with_findings=True)
                if table.run == run
            ]
            differing = [table for table in found if table.result.differing]
            open_tables = [t for t in found if t.result.differing or t.result.in_flight or t.result.undecided]
            if len(found) == len(wanted) and not open_tables:
                return True
            if differing:
                rows = sum(table.result.differing for table in differing)
                self._tell(f"{rows} rows of {len(differing)} tables differ: they are sent")
                self._sent([repair_of(self._replica, table) for table in differing])
            # A row that was in flight may be one that is missing: it is looked at once more.
            wanted, whole = [table.result.table for table in open_tables] or tables, False
        return False

    def by_tables(self, tables: Iterable[TableName]) -> None:
        """Have whole tables sent."""
        repairs = [TableRepair(table, (), (), 0) for table in tables]
        self._tell(f"{len(repairs)} tables are sent whole")
        self._sent(repairs)

    def _verified(self, tables: list[TableName], *, whole: bool) -> uuid.UUID:
        self._tell(f"comparing {len(tables)} tables")
        run = uuid.uuid4()
        task = self._bars.add_task(f"{self._name}: comparing", total=len(tables))
        verification = Verification(
            self._embassy, run, stream=self._identity, progress=_Silent(), chance=random.SystemRandom()
        )
        for _ in verification.run(Wish(tables, whole)):
            self._bars.advance(task)
        self._until(lambda: self._ended(run), "the comparison does not reach the replica")
        self._bars.remove_task(task)
        return run

    def _ended(self, run: uuid.UUID) -> bool:
        found = verify_store.find_run(self._replica, self._identity, run)
        return found is not None and found.ended_at is not None

    def _sent(self, repairs: list[TableRepair]) -> None:
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        plan = RepairPlan(self._name, self._stream.stream, made_at, tuple(repairs))
        self._arrived(repair_source.request(self._embassy, plan, _REASON))

    def _arrived(self, requested: Requested) -> None:
        copies = requested.copies
        task = self._bars.add_task(f"{self._name}: rows come", total=len(copies))

        def all_there() -> bool:
            row = self._replica.execute(
                "SELECT count(*) FROM embassy.table_copy WHERE copy = ANY (%s) AND state = 'done'", (copies,)
            ).fetchone()
            there = int(row[0]) if row else 0
            self._bars.update(task, completed=there)
            return there == len(copies) and large_objects.is_later(
                self._replica, self._identity, requested.objects_at
            )

        self._until(all_there, "the rows do not reach the replica")
        self._bars.remove_task(task)

    def _until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait as long as something moves.

        Raises:
            TransientError: nothing has for too long.
        """
        moved_at, before = time.monotonic(), self._place()
        while not reached():
            now = self._place()
            if now != before:
                moved_at, before = time.monotonic(), now
            if time.monotonic() - moved_at > self._wait_seconds:
                raise TransientError(
                    f"{what}: nothing has moved for {self._wait_seconds:g} s",
                    place=self._name,
                    hint="producer, bridge and consumer of the reverse stream have to run; then run this again",
                )
            time.sleep(_POLL_SECONDS)

    def _place(self) -> object:
        """What moves when rows of any kind come, and heartbeats do not count."""
        return self._replica.execute(
            """SELECT coalesce(sum(rows_copied), 0), count(*) FILTER (WHERE state = 'done'),
                      (SELECT max(verified_at) FROM embassy.verification),
                      (SELECT max(behind) FROM embassy.large_object_state) FROM embassy.table_copy"""
        ).fetchone()


class _Silent:
    """Rows are not worth a bar of their own here."""

    def table(self, table: TableName, rows: int, done: int, of: int) -> None:
        """Nothing."""


def _brief(tables: list[tuple[str, str]], most: int = 10) -> str:
    named = ", ".join(f"{schema}.{name}" for schema, name in tables[:most])
    return named + (f" and {len(tables) - most} more" if len(tables) > most else "")
