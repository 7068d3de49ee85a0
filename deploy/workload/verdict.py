"""Judging a replica by what clients were told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from deploy.workload.ledger import Entry, Ledger, Outcome
from deploy.workload.observer import violated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from deploy.workload.registry import RegistryWorkload

_NANOSECONDS_PER_MS = 1e6
_FETCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one registry's transactions."""

    committed: int
    """Told committed, or found committed at the source afterwards."""
    applied: int
    """Of those, on the replica."""
    lost: int
    """Of those, not on the replica."""
    duplicated: int
    """Tokens that occur more than once on the replica."""
    torn: int
    """Impossible states that readers of the replica saw, and phantoms."""
    phantoms: int
    """Tokens on the replica of transactions that were rolled back, or that the source does not hold."""
    rolled_back: int
    resolved: int
    """Transactions whose COMMIT was never answered, settled by what the source holds."""
    lost_at_source: int
    """Told committed, yet not at the source: its disk lied, or the wrong server was asked."""
    latency_p50_ms: float | None
    """From sending COMMIT to the first time an observer read the transaction on the replica; None if none did."""
    latency_p99_ms: float | None
    latency_max_ms: float | None
    torn_evidence: tuple[str, ...] = ()
    """The first few impossible states, in words."""

    @property
    def is_true(self) -> bool:
        """Whether every committed transaction is on the replica, once and whole, and nothing else."""
        return (
            not (self.lost or self.duplicated or self.torn or self.lost_at_source)
            and self.applied == self.committed
        )


def resolve_unknown(ledger: Ledger, workload: RegistryWorkload, source_dsn: str) -> int:
    """Settle the transactions whose COMMIT was never answered by reading the source; return how many there were.

    Call it when the clients have stopped. It first ends the sessions they left: a backend whose client is gone may
    still be about to commit.

    Raises:
        psycopg.Error: the source is unreachable.
    """
    unknown = ledger.unknown()
    if not unknown:
        return 0
    with psycopg.connect(source_dsn, autocommit=True) as connection:
        connection.execute(_END_SESSIONS, (f"client {workload.name}/%",))
        journal = sql.Identifier(workload.schema, "journal")
        query = sql.SQL("SELECT token FROM {} WHERE token = ANY (%s)").format(journal)
        present = {token for (token,) in connection.execute(query, (unknown,))}
    return ledger.resolve(present)


# Waits up to a minute for each session; one that outlives that hangs on something a reader cannot settle.
_END_SESSIONS = """
    SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE %s"""


def ledger_verdict(ledger: Ledger, workload: RegistryWorkload, source_dsn: str, replica_dsn: str) -> Verdict:
    """Judge a replica that has had time to catch up, once all clients have stopped.

    Raises:
        psycopg.Error: one side is unreachable.
    """
    resolved = resolve_unknown(ledger, workload, source_dsn)
    at_source = _tokens(source_dsn, workload)
    on_replica = _tokens(replica_dsn, workload)
    entries = ledger.entries()
    committed = {entry.token for entry in entries if entry.outcome is Outcome.COMMITTED}
    rolled_back = {entry.token for entry in entries if entry.outcome is Outcome.ROLLED_BACK}
    phantoms = {token for token in on_replica if token in rolled_back or token not in at_source}
    evidence = [f"{s.invariant}: {s.evidence}" for s in ledger.sightings()]
    with psycopg.connect(replica_dsn, autocommit=True) as connection:
        evidence += [f"{name} (at the end): {rows}" for name, rows in violated(connection, workload)]
    latencies = sorted(latencies_ms(entries))
    return Verdict(
        committed=len(committed),
        applied=sum(token in on_replica for token in committed),
        lost=sum(token not in on_replica for token in committed),
        duplicated=sum(count > 1 for count in on_replica.values()),
        torn=len(evidence) + len(phantoms),
        phantoms=len(phantoms),
        rolled_back=len(rolled_back),
        resolved=resolved,
        lost_at_source=sum(token not in at_source for token in committed),
        latency_p50_ms=percentile(latencies, 0.50),
        latency_p99_ms=percentile(latencies, 0.99),
        latency_max_ms=latencies[-1] if latencies else None,
        torn_evidence=tuple(evidence[:5]),
    )


def _tokens(dsn: str, workload: RegistryWorkload) -> Counter[UUID]:
    """Return how often each token occurs in a side's journal."""
    counts: Counter[UUID] = Counter()
    with psycopg.connect(dsn) as connection, connection.cursor("tokens") as cursor:
        cursor.itersize = _FETCH_ROWS
        cursor.execute(sql.SQL("SELECT token FROM {}").format(sql.Identifier(workload.schema, "journal")))
        for (token,) in cursor:
            counts[token] += 1
    return counts


def latencies_ms(entries: Sequence[Entry]) -> list[float]:
    """Return how long each committed transaction took from sending COMMIT until it was read on the replica.

    Transactions whose COMMIT was never answered count too.
    """
    return [
        (entry.first_seen.monotonic_ns - entry.commit_issued.monotonic_ns) / _NANOSECONDS_PER_MS
        for entry in entries
        if entry.outcome is Outcome.COMMITTED and entry.first_seen is not None and entry.commit_issued is not None
    ]


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of the values do not exceed; None of no values."""
    if not ordered:
        return None
    rank = -int(-share * len(ordered) // 1)
    return ordered[max(rank - 1, 0)]
