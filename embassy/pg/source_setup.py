"""What a stream needs in its database at home: step by step, and nothing that could break home.

The order is the point. A table without a usable key gets REPLICA IDENTITY FULL before it is published, because home
could not update its rows otherwise. Tables are published once the slot is there, each locked for a moment against
writers: if it holds rows, a copy of them is asked for in the same transaction, so that the request is in the stream
before any change of the table. If an operator says that the replica holds the same rows, nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from embassy.model.errors import ConfigurationError, RefusedError
from embassy.model.step import Step
from embassy.pg import (
    ddl_capture,
    large_objects,
    publication,
    publication_watch,
    slots,
    source_schema,
    table_copies,
)
from embassy.pg import reign as reigns
from embassy.pg.catalog import OWN_TABLES, SourceTable, brief, source_tables
from embassy.pg.connection import connect, place_of
from embassy.pg.late_tables import LateTables
from embassy.pg.setup_errors import LOCK_SETTINGS, in_turn

_APPLICATION = "embassy-provision"
_SLOT_WAIT_SECONDS = 60.0

_LEVEL = (
    "ALTER PUBLICATION … DROP TABLE them, then run this again: it copies them; or, if the replica holds the same rows, "
    "keep writers out until this has run and pass --replica-is-level"
)


class SourceWish(NamedTuple):
    """Which stream is set up, and how."""

    dsn: str
    stream: bytes
    slot: str
    publication: str
    producer_role: str
    replica_is_level: bool
    slot_wait_seconds: float = _SLOT_WAIT_SECONDS
    """How long transactions that are open may keep the slot from being made."""


def source_steps(wish: SourceWish) -> Iterator[Step]:
    """What the stream needs at home; each step is to be taken before the next one is asked for, or none at all.

    Raises:
        ConfigurationError: the server cannot serve a stream as it is.
        RefusedError: going on would lose rows, or break home.
    """
    with connect(wish.dsn, application_name=_APPLICATION, autocommit=True, settings=LOCK_SETTINGS) as connection:
        yield from _Setup(connection, wish).steps()


class _Setup:
    def __init__(self, connection: psycopg.Connection[Any], wish: SourceWish) -> None:
        self._connection = connection
        self._wish = wish
        self._place = place_of(wish.dsn)
        self._reign = reigns.reign(connection, wish.stream)
        self._late = LateTables(
            connection, wish.publication, role=wish.producer_role, copied=not wish.replica_is_level
        )

    def steps(self) -> Iterator[Step]:
        connection, wish = self._connection, self._wish
        self._check_server()
        self._check_reign()
        ensured = source_schema.is_provisioned(connection)
        begun = ensured and source_schema.begun_at(connection, wish.stream, self._reign) is not None
        slot = slots.find_slot(connection, wish.slot)
        found = publication.publication_state(connection, wish.publication)
        self._check_slot(slot, begun=begun, ensured=ensured)
        self._check_publication(found, slot, begun=begun)
        tables = source_tables(connection, wish.publication)
        tables += [own for own in OWN_TABLES if str(own) not in map(str, tables)]
        tables = [table for table in tables if not table.unlogged]
        version = connection.info.server_version
        broken = [table for table in tables if table.breaks_updates(version)]
        self._check_partitions(broken)
        tables = [table for table in tables if table not in broken]
        left_out = self._late.left_out(tables, self._place) if slot is not None else []
        tables = [table for table in tables if table not in left_out]

        ensure = partial(source_schema.ensure, connection, producer_role=wish.producer_role)
        yield Step(self._place, "schema embassy", None if ensured else ensure, refresh=ensure)
        succeeds = self._reign.written < self._reign.epoch
        if succeeds and slot is None:
            yield self._step("the product's own tables, as a new epoch finds them", self._begin_anew)
        for table in tables:
            if table.needs_whole_row:
                identify = partial(publication.identify_by_whole_row, connection, table)
                yield self._step(f"replica identity FULL of {table}", partial(in_turn, connection, identify))
        create = partial(publication.create, connection, wish.publication)
        yield self._step(f"publication {wish.publication}", None if found else create)
        # What is published once the slot is there can be asked for in the same breath, if it holds rows.
        before = [table for table in tables if table.own or wish.replica_is_level]
        yield from self._publish(before, later=slot is not None)
        yield self._capture()
        yield self._step(f"slot {wish.slot}", self._make_slot if slot is None else None)
        yield from self._publish([table for table in tables if table not in before], later=True)
        for table in left_out:
            again = partial(in_turn, connection, partial(self._late.add_again, table))
            yield self._step(f"table {table} in the publication again, and copied", again)
        for table in broken:  # the stream brings it: the replica has to know
            yield self._withhold(table)
        yield from self._large_objects()
        if self._reign.epoch:
            note = partial(reigns.note, connection, wish.stream, self._reign.epoch, wish.slot)
            yield self._step(f"epoch {self._reign.epoch} is written here", note if succeeds else None)

    def _publish(self, tables: list[SourceTable], *, later: bool) -> Iterator[Step]:
        for table in tables:
            add = (
                partial(self._late.add, table)
                if later
                else partial(publication.add, self._connection, self._wish.publication, table)
            )
            yield self._step(
                f"table {table} in the publication",
                None if table.published else partial(in_turn, self._connection, add),
            )

    def _capture(self) -> Step:
        connection, name = self._connection, self._wish.publication
        what = "event triggers: DDL goes into the stream"
        there = ddl_capture.is_captured(connection, name)
        if ddl_capture.may_capture(connection):
            capture = partial(ddl_capture.capture, connection, name)
            return Step(self._place, what, None if there else capture, refresh=capture)
        warning = "only a superuser may create event triggers: DDL stays with the operators of both sides"
        return Step(self._place, what, None, warning="" if there else warning)

    def _large_objects(self) -> Iterator[Step]:
        connection = self._connection
        if not large_objects.may_read(connection):
            warning = (
                "only a superuser may read large objects, or who was granted SELECT on pg_largeobject: not carried"
            )
            there = large_objects.is_carried(connection)
            yield Step(self._place, "large objects go into the stream", None, warning="" if there else warning)
            return
        for table in large_objects.unwatched(connection):
            watch = partial(large_objects.watch, connection, table)
            yield self._step(f"large objects of rows of {table}", partial(in_turn, connection, watch))

    def _step(self, what: str, make: Any) -> Step:
        return Step(self._place, what, make)

    def _check_server(self) -> None:
        row = self._connection.execute(
            """SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('wal_level'),
                      pg_catalog.current_setting('max_replication_slots')::int,
                      (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name <> %s),
                      EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s)""",
            (self._wish.slot, self._wish.producer_role),
        ).fetchone()
        assert row is not None, "a query without FROM has one row"
        standby, wal_level, slots_most, slots_other, has_role = row
        if standby:
            raise ConfigurationError(
                "the server is a standby", place=self._place, hint="provision the primary: correct source.dsn"
            )
        if wal_level != "logical":
            raise ConfigurationError(
                f"wal_level is {wal_level}: the server's log does not say what changed",
                place=self._place,
                hint="ALTER SYSTEM SET wal_level = logical, then restart the server",
            )
        if slots_other >= slots_most:
            raise ConfigurationError(
                f"all {slots_most} replication slots are in use",
                place=self._place,
                hint="raise max_replication_slots, then restart the server; or drop a slot that nobody needs",
            )
        if not has_role:
            raise ConfigurationError(
                f"there is no role {self._wish.producer_role} for the producer",
                place=self._place,
                hint=f"CREATE ROLE {self._wish.producer_role} LOGIN REPLICATION, or name yours with --producer-role",
            )

    def _check_reign(self) -> None:
        if self._reign.is_replica:
            raise RefusedError(
                f"the database is a replica of epoch {self._reign.follows}: nothing is replicated from it",
                place=self._place,
                hint="it becomes a source by its promotion: embassy promote plan; or correct source.dsn",
            )

    def _begin_anew(self) -> None:
        """Nothing of what an earlier epoch said may meet what this one says in its replica, which forgets it too."""
        with self._connection.transaction():
            table_copies.number_on(self._connection)
            source_schema.forget_said(self._connection)
            large_objects.know_all(self._connection)
            table_copies.await_no_more(self._connection)

    def _check_slot(self, slot: slots.FoundSlot | None, *, begun: bool, ensured: bool) -> None:
        wish = self._wish
        if slot is None:
            if begun:
                raise RefusedError(
                    f"the stream has begun, and its slot {wish.slot} is gone: what was committed since is not in it",
                    place=self._place,
                    hint="resync the stream under a new enrolment; a second slot is never made for one that has begun",
                )
            return
        if (slot.database, slot.plugin) != (self._connection.info.dbname, "pgoutput"):
            raise RefusedError(
                f"slot {wish.slot} is another one: database {slot.database or '-'}, plugin {slot.plugin or '-'}",
                place=self._place,
                hint="name a free slot in source.slot",
            )
        if slot.wal_status == "lost":
            raise RefusedError(
                f"the server has dropped log that slot {wish.slot} still needed",
                place=self._place,
                hint="resync the stream under a new enrolment; then raise max_slot_wal_keep_size",
            )
        if not begun and not (ensured and source_schema.slot_is_proven(self._connection, wish.stream, wish.slot)):
            raise RefusedError(
                f"slot {wish.slot} is there, and nothing shows which rows it begins after",
                place=self._place,
                hint=f"the stream has not begun: SELECT pg_drop_replication_slot('{wish.slot}'), then run this again",
            )

    def _check_publication(
        self, found: publication.PublicationState | None, slot: slots.FoundSlot | None, *, begun: bool
    ) -> None:
        wish, name = self._wish, self._wish.publication
        if slot is not None and source_schema.publication_was_replaced(self._connection, wish.stream, name):
            anew = f"the stream has not begun: SELECT pg_drop_replication_slot('{wish.slot}'), then run this again"
            raise RefusedError(
                f"publication {name} was dropped since slot {wish.slot} was made: what was committed meanwhile is in "
                "no stream",
                place=self._place,
                hint="resync the stream under a new enrolment" if begun else anew,
            )
        if found is not None and found.faults:
            raise RefusedError(
                f"publication {name} is not as a stream needs it: {'; '.join(found.faults)}",
                place=self._place,
                hint="ALTER PUBLICATION, or name another one in source.publication; this one was made by something else",
            )

    def _check_partitions(self, broken: list[SourceTable]) -> None:
        found = [str(table) for table in broken if table.partition]
        if found:
            raise RefusedError(
                "once published with their root, their rows could not be updated at home: no key but generated columns: "
                f"{brief(found)}",
                place=self._place,
                hint="give their root a primary key of plain columns (from 18 on no identity may have generated ones)",
            )

    def _withhold(self, table: SourceTable) -> Step:
        """Leave a table out until it has a key, and have the replica know that it lacks it."""
        connection, name = self._connection, sql.Identifier(table.schema, table.name).as_string()
        known = connection.execute(
            "SELECT pg_catalog.to_regprocedure('embassy.is_withheld(oid)') IS NOT NULL"
        ).fetchone()
        withheld = known == (True,) and connection.execute(
            "SELECT embassy.is_withheld(%s::regclass)", (name,)
        ).fetchone() == (True,)
        return Step(
            self._place,
            f"table {table} left out of the publication until it has a key",
            None if withheld else lambda: connection.execute("SELECT embassy.withhold(%s::regclass)", (name,)),
            warning="it has generated columns and no key: once published, its rows could not be updated at home "
            f"(ALTER TABLE {name} ADD PRIMARY KEY; then its rows are copied)",
        )

    def _missing(self, filled: list[str]) -> RefusedError:
        return RefusedError(
            f"tables that were published before there was a slot hold rows: {brief(filled)}",
            place=self._place,
            hint=_LEVEL,
        )

    def _make_slot(self) -> None:
        wish = self._wish
        with slots.new_slot(wish.dsn, wish.slot, wait_seconds=wish.slot_wait_seconds) as made:
            proven = False
            try:
                filled = self._rows_before(made.snapshot)
                if filled and not wish.replica_is_level:
                    raise self._missing(filled)
                source_schema.note_beginning(
                    self._connection,
                    wish.stream,
                    slot=wish.slot,
                    begins_at=made.lsn,
                    publication=wish.publication,
                    replica_was_level=bool(filled),
                )
                publication_watch.begin(self._connection, wish.publication)
                proven = True
            finally:
                if not proven:
                    slots.drop_slot(self._connection, wish.slot)

    def _rows_before(self, snapshot: str) -> list[str]:
        """The tables with rows that the slot will not send."""
        connection = self._connection
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
            tables = source_tables(connection, self._wish.publication)
            return publication.holding_rows(
                connection,
                [
                    table
                    for table in tables
                    if table.published and not (table.own or table.partitioned or table.unlogged)
                ],
            )
