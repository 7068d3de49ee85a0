"""The verdict of the way home: home follows the embassy, is the registry again, and nothing that was told is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import sql

from deploy.workload.comparison import compare_tables
from deploy.workload.ledger import Entry, Ledger, Outcome
from deploy.workload.observer import violated
from deploy.workload.registry import RegistryWorkload

_NS = 1e9


class Told(NamedTuple):
    """What clients of one registry were told since its promotion."""

    abroad: tuple[Ledger, ...]
    home: Ledger
    """Once it was the registry again."""


@dataclass(frozen=True, slots=True)
class RegistryReturn:
    """One registry, once home has it again."""

    name: str
    told: int
    """Committed since the promotion, abroad and then at home, as clients were told."""
    lost: int
    """Of these, not at home."""
    merged: int
    """Of what home never shipped, what is in its tables after all."""
    duplicated: int
    violated: tuple[str, ...]
    tables: int
    unequal: tuple[str, ...]
    """Tables in which both sides differ."""
    first_write_seconds: float | None
    """From the fencing of the embassy to the application's first commit at home; None: it never could."""
    failures: tuple[str, ...]

    @property
    def complaints(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        found = [
            (self.lost, f"{self.lost} transactions that clients were told are committed are not at home"),
            (self.merged, f"{self.merged} transactions that never shipped were merged into the registry"),
            (self.duplicated, f"{self.duplicated} duplicates at home"),
            (self.violated, f"impossible states at home: {', '.join(self.violated)}"),
            (self.unequal, f"both sides differ in {', '.join(self.unequal)}"),
            (self.first_write_seconds is None, "the application could not write at home again"),
            (self.failures, f"an application error: {next(iter(self.failures), '')}"),
        ]
        return tuple(f"{self.name}: {words}" for wrong, words in found if wrong)


@dataclass(frozen=True, slots=True)
class Homecoming:
    """The way home, of all registries."""

    failback_seconds: float
    """Until home was level with the embassy, which went on working."""
    switching_seconds: float
    """Of ``promote run`` at home."""
    following_seconds: float
    """Until the embassy's databases were replicas again."""
    writable: tuple[str, ...]
    """Registries that could be written to where they should not, at one of the moments it was looked at."""
    registries: tuple[RegistryReturn, ...]

    @property
    def complaints(self) -> tuple[str, ...]:
        """What is wrong, in words; empty if all is well."""
        found = [words for registry in self.registries for words in registry.complaints]
        if self.writable:
            found.append(f"two sides could be written to: {', '.join(self.writable)}")
        return tuple(found)

    @property
    def last_first_write_seconds(self) -> float | None:
        """When the last registry could be written to at home, from the fencing of the embassy on."""
        return max(
            (r.first_write_seconds for r in self.registries if r.first_write_seconds is not None), default=None
        )

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        last = self.last_first_write_seconds
        return {
            "failback_seconds": round(self.failback_seconds, 1),
            "switching_seconds": round(self.switching_seconds, 2),
            "following_seconds": round(self.following_seconds, 1),
            "last_first_write_seconds": None if last is None else round(last, 2),
            "told": sum(r.told for r in self.registries),
            "lost": sum(r.lost for r in self.registries),
            "merged": sum(r.merged for r in self.registries),
            "tables_compared": sum(r.tables for r in self.registries),
            "tables_unequal": sum(len(r.unequal) for r in self.registries),
        }


def judged_at_home(
    name: str,
    workload: RegistryWorkload,
    told_by: Told,
    *,
    home: str,
    abroad: str,
    never_shipped: Collection[UUID],
    fenced_ns: int,
) -> RegistryReturn:
    """Judge one registry by what clients were told since the promotion.

    Args:
        name: the registry's.
        workload: its business.
        told_by: what clients were told.
        home: the database at home, as an administrator.
        abroad: its replica.
        never_shipped: tokens of what home had committed before and never shipped.
        fenced_ns: when the embassy was to be fenced, by the wall clock.
    """
    with psycopg.connect(home, autocommit=True) as connection:
        journal = sql.Identifier(workload.schema, "journal")
        present = Counter(t for (t,) in connection.execute(sql.SQL("SELECT token FROM {}").format(journal)))
        broken = tuple(invariant for invariant, _ in violated(connection, workload))
    ledgers = (*told_by.abroad, told_by.home)
    told = [entry for ledger in ledgers for entry in ledger.entries() if entry.outcome is Outcome.COMMITTED]
    again = [e.commit_returned.wall_ns for e in told_by.home.entries() if _committed(e) and e.commit_returned]
    tables = compare_tables(home, abroad)
    return RegistryReturn(
        name=name,
        told=len(told),
        lost=sum(entry.token not in present for entry in told),
        merged=sum(token in present for token in never_shipped),
        duplicated=sum(count > 1 for count in present.values()),
        violated=broken,
        tables=len(tables),
        unequal=tuple(str(table.table) for table in tables if not table.equal),
        first_write_seconds=min(((moment - fenced_ns) / _NS for moment in again), default=None),
        failures=tuple(failure for ledger in ledgers for failure in ledger.failures()),
    )


def _committed(entry: Entry) -> bool:
    return entry.outcome is Outcome.COMMITTED
