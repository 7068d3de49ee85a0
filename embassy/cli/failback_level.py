"""Bringing a returned database level: rows by their keys where a verification names them, else whole tables.

Everything travels through the stream; this only asks for it at the source, and waits until the replica has it.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
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
from embassy.pg.verify_store import FoundTable, TableResult
from embassy.runtime.config import Stream
from producers.verification import Verification, Wish

_POLL_SECONDS = 0.2
_ROUNDS = ((True, False), (False, False), (False, True))
"""Of a comparison: whether it is the first, and the last."""
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
            work.level(compared_tables(embassy, source.publication), snapshot=self._wish.snapshot)
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
        self._by_digest = False
        """Whether the next comparison reads all of a table whose key has a collation, and goes by digests."""

    def level(self, tables: list[TableName], *, snapshot: bool) -> None:
        """Compare every row, and have sent what is not alike: rows by their keys, in the end whole tables.

        What stays in doubt, the comparisons have noted in the replica.

        Args:
            tables: all that can be compared.
            snapshot: whether tables are sent whole that wait for rows, or differ.
        """
        if snapshot:
            self._send_whole({*self._awaited(), *(table for table in tables if table == PAGES)})
        left = self._compare(tables, whole=True, by_keys=not snapshot)
        in_doubt = {name for name, table in left.items() if table is None or _is_sent_whole(table.result)}
        if again := in_doubt | (left.keys() & self._awaited()):
            self._send_whole(again)
            self._compare([*left], whole=False, by_keys=True)

    def _compare(
        self, tables: list[TableName], *, whole: bool, by_keys: bool
    ) -> dict[TableName, FoundTable | None]:
        """Compare every row, and have those sent that differ, and compare again, until all are proven to be alike.

        Args:
            tables: which.
            whole: whether they are all that are compared.
            by_keys: whether rows are sent by their keys, where these are known; else their tables.

        Returns:
            Those of which that is not proven at the last time, as they are noted; None: nothing is.
        """
        left: dict[TableName, FoundTable | None] = dict.fromkeys(tables)
        for first, last in _ROUNDS:
            run = self._verified(Wish([*left], whole and first, by_digest=self._by_digest))
            noted = {
                table.result.table: table
                for table in verify_store.tables(self._replica, self._identity, with_findings=True)
            }
            proven = {name for name, table in noted.items() if table.run == run and not table.result.doubt}
            # A row that was in flight may be one that is missing: it is looked at once more.
            left = {name: noted.get(name) for name in left if name not in proven}
            # Rows whose keys a collation orders otherwise here and there can be told apart by digests only, once and for
            # all. A table that could not be judged, and of which rows were known to differ, is not noted anew.
            self._by_digest |= any(
                table is None or table.run != run or bool(table.result.undecided) for table in left.values()
            )
            if not left or last:
                break
            if differing := [table for table in left.values() if table is not None and table.result.differing]:
                rows = sum(table.result.differing for table in differing)
                self._tell(f"{rows} rows of {len(differing)} tables differ: they are sent")
                self._sent(
                    [
                        repair_of(self._replica, table) if by_keys else _whole(table.result.table)
                        for table in differing
                    ]
                )
        return left

    def _awaited(self) -> set[TableName]:
        return {TableName(*table) for table in table_copies.awaited(self._replica)}

    def _send_whole(self, tables: set[TableName]) -> None:
        if tables:
            self._tell(f"{len(tables)} tables are sent whole")
            self._sent([_whole(table) for table in sorted(tables)])

    def _verified(self, wish: Wish) -> uuid.UUID:
        self._tell(f"comparing {len(wish.tables)} tables" + (", by digest" if wish.by_digest else ""))
        run = uuid.uuid4()
        task = self._bars.add_task(f"{self._name}: comparing", total=len(wish.tables))
        verification = Verification(
            self._embassy, run, stream=self._identity, progress=_Silent(), chance=random.SystemRandom()
        )
        for _ in verification.run(wish):
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


def _whole(table: TableName) -> TableRepair:
    return TableRepair(table, (), (), 0)


def _is_sent_whole(result: TableResult) -> bool:
    """Whether a table is, once sending its rows has not helped: not for rows that only change too often to be judged."""
    return bool(result.differing or result.undecided)


class _Silent:
    """Rows are not worth a bar of their own here."""

    def table(self, table: TableName, rows: int, done: int, of: int) -> None:
        """Nothing."""


def _brief(tables: list[tuple[str, str]], most: int = 10) -> str:
    named = ", ".join(f"{schema}.{name}" for schema, name in tables[:most])
    return named + (f" and {len(tables) - most} more" if len(tables) > most else "")
