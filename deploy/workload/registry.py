"""What a registry's workload consists of: rows to begin with, kinds of transactions, and truths that always hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias
from uuid import UUID

import psycopg
from psycopg.rows import TupleRow

Connection: TypeAlias = psycopg.Connection[TupleRow]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much a workload writes; the defaults suit a demonstration on a small machine."""

    people: int = 2_000
    """Rows of each registry's main table at the start (some registries hold a fraction of it)."""
    bulk_rows: int = 100_000
    """Rows that one indexation of pensions updates."""
    text_bytes: int = 200_000
    """Size of the largest texts and photographs."""
    document_min_bytes: int = 1_000_000
    document_max_bytes: int = 5_000_000
    """Size of the large court documents that come now and then."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one run of a transaction may know of itself."""

    token: UUID
    """Fresh for every transaction: identifiers derived from it never collide, whatever the seed."""
    client: int
    scale: Scale


TransactionBody: TypeAlias = Callable[[Connection, Random, Ticket], None]
"""Writes the rows of one business transaction; it neither begins nor commits, nor writes the journal.

A body locks rows in a fixed order (stated in its module), so that clients seldom deadlock. When it finds nothing
to work on it returns: the transaction then consists of its journal row alone.
"""


@dataclass(frozen=True, slots=True)
class TransactionKind:
    """One kind of business transaction."""

    name: str
    weight: int
    """How often it occurs in a deck, beside the weights of the registry's other kinds."""
    run: TransactionBody
    heavy: bool = False
    """Too large to be tried under a savepoint first."""


@dataclass(frozen=True, slots=True)
class Invariant:
    """A statement that every committed state of the registry satisfies, on whichever side."""

    name: str
    sql: str
    """Returns rows only when violated; reads within the registry's own schemas."""
    torn_by: str
    """An example of half a transaction, as a replica would apply it (no triggers, so no cascades either).

    After it ``sql`` returns something; the tests prove it.
    """


@dataclass(frozen=True, slots=True)
class RegistryWorkload:
    """All that is known of one registry's business.

    A registry of which only a SQL file is known has no schema, no transactions and no invariants; its tables are
    compared, nothing more.
    """

    name: str
    schema: str
    """Schema of the journal table; empty when there is none."""
    seed_rows: Callable[[Connection, Random, Scale], None]
    """Fills an empty registry within the caller's transaction."""
    transactions: tuple[TransactionKind, ...]
    invariants: tuple[Invariant, ...]
    truncated: tuple[str, ...] = ()
    """Tables that invariants read and transactions truncate, as SQL names.

    TRUNCATE does not respect older snapshots (they see an empty table), so whoever checks locks these first.
    """

    @property
    def has_transactions(self) -> bool:
        """Whether clients can run against this registry."""
        return bool(self.transactions)


def no_rows(_connection: Connection, _rng: Random, _scale: Scale) -> None:
    """Seed nothing."""
