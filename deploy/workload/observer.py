"""Observers: threads that keep reading a replica, as its users would, and note what they see and when."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from deploy.workload.attempt import now
from deploy.workload.ledger import Ledger, Outcome, Sighting
from deploy.workload.severing import sever

if TYPE_CHECKING:
    from uuid import UUID

    from deploy.workload.registry import Connection, RegistryWorkload

_RECONNECT_SECONDS = 0.2
_GAPS_KEPT = 1_000
_CHECKS_SHARE = 0.2
"""Invariants may keep the replica busy for at most this share of the time."""


class Observer:
    """Watches one registry on one server: which tokens show, and whether every snapshot is a state the source had.

    New journal rows are found by a cursor per client. A client's transactions follow one another, so a replica that
    shows one but not an earlier committed one has shown them out of order; that counts as torn too. A sequence whose
    COMMIT was never answered may show late or never: such gaps are asked for again at each poll.

    Start it once the initial copy of the registry is complete: until then a replica shows no state of the source.
    """

    def __init__(
        self,
        workload: RegistryWorkload,
        dsn: str,
        ledger: Ledger,
        *,
        interval_seconds: float = 0.02,
        check_interval_seconds: float = 0.5,
    ) -> None:
        self._workload = workload
        self._dsn = dsn
        self._ledger = ledger
        self._interval_seconds = interval_seconds
        self._check_interval_seconds = check_interval_seconds
        self._cursor: dict[int, int] = {}
        self._gaps: dict[tuple[int, int], None] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"observer {workload.name}", daemon=True)
        self._connection: Connection | None = None
        self._polls = 0
        self._checks = 0
        journal = sql.Identifier(workload.schema, "journal")
        self._fresh = sql.SQL(
            """
            SELECT j.token, j.client, j.sequence
            FROM unnest(%s::integer[], %s::bigint[]) AS c (client, seen)
            CROSS JOIN LATERAL (
                SELECT token, client, sequence FROM {0}
                WHERE client = c.client AND sequence > c.seen ORDER BY sequence LIMIT 5000) AS j
            UNION ALL
            SELECT j.token, j.client, j.sequence
            FROM unnest(%s::integer[], %s::bigint[]) AS g (client, sequence)
            JOIN {0} AS j ON j.client = g.client AND j.sequence = g.sequence
            ORDER BY 2, 3"""
        ).format(journal)

    def start(self) -> None:
        """Begin to watch; the replica need not be reachable yet."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Stop watching; after ``timeout_seconds`` cut the connection.

        Raises:
            TimeoutError: the thread did not end even so.
        """
        self._stopping.set()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            sever(self._connection)
            self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"{self._thread.name} did not stop")

    @property
    def polls(self) -> int:
        """How often the journal was read."""
        return self._polls

    @property
    def checks(self) -> int:
        """How often all invariants were checked in one snapshot."""
        return self._checks

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(
                    self._dsn, autocommit=True, application_name=self._thread.name, connect_timeout=5
                ) as connection:
                    self._connection = connection
                    self._watch(connection)
            except psycopg.Error:
                # A replica that restarts, or refuses for a while, says nothing about its contents.
                self._stopping.wait(_RECONNECT_SECONDS)

    def _watch(self, connection: Connection) -> None:
        next_check = time.monotonic()
        while not self._stopping.is_set():
            self.poll(connection)
            if time.monotonic() >= next_check:
                began = time.monotonic()
                self.check(connection)
                took = time.monotonic() - began
                next_check = began + max(self._check_interval_seconds, took / _CHECKS_SHARE)
            self._stopping.wait(self._interval_seconds)

    def poll(self, connection: Connection) -> None:
        """Read the journal rows that are new since the last poll."""
        first = self._ledger.first_sequences()
        rows: list[tuple[UUID, int, int]] = connection.execute(
            self._fresh,
            (
                list(first),
                [self._cursor.get(client, sequence - 1) for client, sequence in first.items()],
                [client for client, _ in self._gaps],
                [sequence for _, sequence in self._gaps],
            ),
        ).fetchall()
        seen_at = now()
        self._polls += 1
        if not rows:
            return
        self._ledger.see([token for token, _, _ in rows], seen_at)
        for _, client, sequence in rows:
            if self._gaps.pop((client, sequence), True) is None:
                continue
            for missing in range(self._cursor.get(client, first[client] - 1) + 1, sequence):
                self._note_gap(client, missing)
            self._cursor[client] = sequence
        while len(self._gaps) > _GAPS_KEPT:
            del self._gaps[next(iter(self._gaps))]

    def _note_gap(self, client: int, sequence: int) -> None:
        self._gaps[client, sequence] = None
        # A client begins a transaction only when the one before is settled, so this outcome is final.
        if self._ledger.outcome_of(client, sequence) is Outcome.COMMITTED:
            self._ledger.report_torn(
                Sighting("commit_order", f"client {client} shows more than sequence {sequence}, but not it", now())
            )

    def check(self, connection: Connection) -> None:
        """Check all invariants in one snapshot and report those that do not hold."""
        violations = violated(connection, self._workload)
        self._checks += 1
        at = now()
        for name, evidence in violations:
            self._ledger.report_torn(Sighting(name, evidence, at))


def violated(connection: Connection, workload: RegistryWorkload) -> list[tuple[str, str]]:
    """Return the invariants that one snapshot violates, each with the first rows that show it.

    Args:
        connection: in autocommit mode, outside a transaction.
        workload: whose invariants to check.
    """
    found: list[tuple[str, str]] = []
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        for table in workload.truncated:
            # Before the snapshot is taken: to an older snapshot a table that is truncated meanwhile looks empty.
            connection.execute(f"LOCK TABLE {table} IN ACCESS SHARE MODE".encode())
        for invariant in workload.invariants:
            rows = connection.execute(invariant.sql.encode()).fetchmany(3)
            if rows:
                found.append((invariant.name, repr(rows)))
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK")
    return found
