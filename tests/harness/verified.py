"""A replica that is compared with its source in the stream, without anything between them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import pytest

from consumers.verifier import Verifier
from embassy.model.verification import Message, TableName
from embassy.pg import verify_source
from embassy.pg.apply_session import Call, Query
from producers.verification import Verification, Wish
from tests.harness.two_databases import TwoDatabases

STREAM = b"\x01" * 16


@dataclass
class Verified:
    """A source and a replica with a verifier behind the applier."""

    two: TwoDatabases
    gauges: list[tuple[Mapping[str, int], float | None]] = field(default_factory=list)
    between: Callable[[Message], None] = lambda _: None
    """Done between a chunk's snapshot and the transaction that tells it."""

    def __post_init__(self) -> None:
        self.verifier = Verifier(self.two.session, stream=STREAM, gauges=self)

    def verified(self, rows: Mapping[str, int], succeeded_at: float | None) -> None:
        self.gauges.append((rows, succeeded_at))

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Do what is to be done between."""
        say = verify_source.say

        def after_something(connection: Any, run: uuid.UUID, ordinal: int, message: Message) -> int:
            self.between(message)
            return say(connection, run, ordinal, message)

        monkeypatch.setattr(verify_source, "say", after_something)

    def table(self, table: TableName, rows: int, done: int, of: int) -> None:
        assert rows >= 0
        assert done <= of

    def run(self, *, whole: bool = True, tables: Sequence[TableName], **options: Any) -> str:
        run = uuid.uuid4()
        with verify_source.open_source(self.two.source_dsn) as connection:
            home = Verification(
                connection, run, stream=STREAM, progress=self, chance=random.Random(7), chunk_rows=50
            )
            list(home.run(Wish(tables, whole, **options)))
        self.carry()
        return str(run)

    def carry(self) -> None:
        for batch in self.two.batches(together=False):
            self.two.applier.begin()
            self.two.applier.apply(batch)
            self.verifier.applied(batch)
            self.two.session.run([Call(Query("COMMIT"))])

    def home(self, statement: LiteralString) -> None:
        self.two.source.execute(statement)

    def spoil(self, *statements: LiteralString) -> None:
        with self.two.replica.transaction():
            self.two.replica.execute("SET LOCAL session_replication_role = replica")
            for statement in statements:
                self.two.replica.execute(statement)

    def results(self) -> dict[str, tuple[Any, ...]]:
        return {
            name: tuple(rest)
            for name, *rest in self.two.replica.execute(
                "SELECT table_name, rows, mismatched, missing, extra, in_flight, undecided FROM embassy.verification"
            )
        }

    def findings(self) -> set[tuple[Any, ...]]:
        return {
            (name, kind, tuple(columns), tuple(key))
            for name, kind, columns, key in self.two.replica.execute(
                "SELECT table_name, kind, key_columns, key FROM embassy.verify_finding"
            )
        }

    def outcome(self, run: str) -> tuple[Any, ...] | None:
        return self.two.replica.execute(
            "SELECT whole, outcome, tables FROM embassy.verify_run WHERE run = %s", (run,)
        ).fetchone()
