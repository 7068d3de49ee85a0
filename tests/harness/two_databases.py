"""A source and a replica without anything between them: real pgoutput in, batches across, the applier out."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
import pytest

from consumers.applier import SETTINGS, Applier
from consumers.ddl_executor import DdlExecutor
from consumers.replay import Replay
from consumers.targets import Targets
from deploy.lab import databases
from deploy.lab.lab import Lab
from deploy.workload.comparison import compare_tables
from embassy.model.batch import Batch
from embassy.pg import ddl_capture, publication, replica_schema, source_schema
from embassy.pg.apply_session import ApplySession, Call, Query
from embassy.pg.catalog import source_tables
from embassy.pg.connection import connect, place_of
from embassy.wire.batch_codec import BatchEncoder, decode_batch
from producers import pgoutput_decoder as pgoutput
from producers.batch_builder import PART_MESSAGES, BatchBuilder
from tests.harness.lab import MakeDatabase

Connection = psycopg.Connection[Any]


@dataclass
class TwoDatabases:
    """A database at home and one in the embassy."""

    source_dsn: str
    replica_dsn: str
    source: Connection
    """An administrator of the source, in autocommit mode."""
    replica: Connection
    """An administrator of the replica, in autocommit mode."""
    session: ApplySession
    """The consumer's session."""
    applier: Applier
    replays: list[str] = field(default_factory=list)
    """Why batches were applied change by change."""
    slot: str = ""
    received: Callable[[], list[bytes]] | None = None
    """What the source has committed since it was last asked; None: the slot is asked by SQL."""
    builder: BatchBuilder = field(default_factory=BatchBuilder)
    """A replication session describes each table once."""

    def close(self) -> None:
        """End all sessions."""
        for connection in (self.source, self.replica, self.session.connection):
            connection.close()

    def both(self, statements: LiteralString) -> None:
        """Run DDL on both sides."""
        self.source.execute(statements)
        self.replica.execute(statements)

    def publish(self) -> None:
        """Begin to capture the source's changes."""
        self.slot = f"test_{secrets.token_hex(6)}"
        self.source.execute("CREATE PUBLICATION embassy FOR ALL TABLES WITH (publish_via_partition_root = false)")
        self.source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.slot,))

    def publish_with_ddl(self) -> None:
        """Begin to capture the source's changes, DDL included, as provisioning would."""
        self.slot = f"test_{secrets.token_hex(6)}"
        replica_schema.ensure(self.replica)
        with connect(self.source_dsn, application_name="embassy-provision", autocommit=True) as connection:
            source_schema.ensure(connection, producer_role=databases.PRODUCER)
            publication.create(connection, "embassy")
            for table in source_tables(connection, "embassy"):
                if table.needs_whole_row:
                    publication.identify_by_whole_row(connection, table)
                publication.add(connection, "embassy", table)
            ddl_capture.capture(connection, "embassy")
        self.source.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.slot,))

    def batches(self, *, part_messages: int = PART_MESSAGES, together: bool = True) -> list[Batch]:
        """What the source has committed since it was last asked, encoded and decoded.

        Args:
            part_messages: how many messages of a transaction make it a large one, in parts of so many.
            together: whether whole transactions share a batch.
        """
        if self.received is None:
            self.builder = BatchBuilder()
        builder, encoder = self.builder, BatchEncoder()
        found: list[Batch] = []
        messages: list[bytes] = []
        begin = None
        for message in (self.received or self._from_slot)():
            if message[0] == pgoutput.BEGIN:
                begin, messages = pgoutput.decode_begin(message), []
            elif message[0] != pgoutput.COMMIT:
                messages.append(message)
            else:
                assert begin is not None
                commit = pgoutput.decode_commit(message)
                if len(messages) <= part_messages:
                    builder.add_transaction(begin, commit, messages)
                    if not together or builder.full:
                        found.append(builder.build_whole())
                    continue
                if builder.transactions:
                    found.append(builder.build_whole())
                starts = range(0, len(messages), part_messages)
                for part, start in enumerate(starts):
                    builder.add_part(begin, messages[start : start + part_messages])
                    last = commit if part == len(starts) - 1 else None
                    found.append(builder.build_part(begin, part, last))
        if builder.transactions:
            found.append(builder.build_whole())
        return [decode_batch(encoder.encode(batch)) for batch in found]

    def _from_slot(self) -> list[bytes]:
        rows = self.source.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL,"
            " 'proto_version', '1', 'publication_names', 'embassy')",
            (self.slot,),
        ).fetchall()
        return [message for (message,) in rows]

    def apply(self, batches: Sequence[Batch]) -> None:
        """Apply batches in one transaction; it is rolled back if that fails."""
        self.applier.begin()
        try:
            for batch in batches:
                self.applier.apply(batch)
        except BaseException:
            self.session.run([Call(Query("ROLLBACK"))])
            raise
        self.session.run([Call(Query("COMMIT"))])

    def apply_exactly(self, batches: Sequence[Batch]) -> None:
        """Apply batches change by change, in one transaction."""
        self.session.begin()
        for batch in batches:
            Replay(self.session, Targets(self.session), DdlExecutor(self.session), batch, lambda: None).run()
        self.session.run([Call(Query("COMMIT"))])

    def carry(self, *, exactly: bool = False, part_messages: int = PART_MESSAGES, together: bool = True) -> None:
        """Apply what the source has committed, and compare the two; the fast path must do if it is taken."""
        batches = self.batches(part_messages=part_messages, together=together)
        assert batches
        if exactly:
            self.apply_exactly(batches)
        else:
            self.apply(batches)
            assert self.replays == []
        self.compare()

    def compare(self) -> None:
        """Fail unless both sides hold the same."""
        compared = compare_tables(self.source_dsn, self.replica_dsn)
        assert compared
        assert [table for table in compared if not table.equal] == []


MakePair = Callable[[LiteralString], TwoDatabases]
"""Called with the DDL of the tables; returns two databases that have them, captured from now on."""


@pytest.fixture
def pair(lab: Lab, make_database: MakeDatabase) -> Iterator[MakePair]:
    """A maker of pairs."""
    made: list[TwoDatabases] = []

    def make(ddl: LiteralString) -> TwoDatabases:
        found = new_pair(lab, make_database("home"), make_database("embassy-1"))
        made.append(found)
        found.both(ddl)
        found.publish()
        return found

    yield make
    for found in made:
        found.close()


def new_pair(lab: Lab, source: str, replica: str) -> TwoDatabases:
    """Two databases that are there already."""
    home, embassy = lab.home.postgres, lab.site("embassy-1").postgres
    return between(
        home.dsn(databases.ADMIN, source),
        embassy.dsn(databases.ADMIN, replica),
        embassy.dsn(databases.CONSUMER, replica),
    )


def between(source_dsn: str, replica_dsn: str, consumer_dsn: str) -> TwoDatabases:
    """Two databases of any servers."""
    consumer = connect(
        consumer_dsn,
        application_name="embassy-test-consumer",
        autocommit=True,
        settings={**ApplySession.settings(), **SETTINGS},
    )
    replays: list[str] = []
    session = ApplySession(consumer, place=place_of(consumer_dsn), pulse=lambda: None)
    return TwoDatabases(
        source_dsn,
        replica_dsn,
        connect(source_dsn, application_name="test", autocommit=True),
        connect(replica_dsn, application_name="test", autocommit=True),
        session,
        Applier(session, replayed=replays.append, pulse=lambda: None),
        replays,
    )
