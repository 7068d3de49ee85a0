"""What a promoted database needs to be its stream's source, made while nobody can write to it yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg

from embassy.pg import reign as reigns
from embassy.pg import slots
from embassy.pg.connection import place_of
from embassy.pg.setup_errors import explained
from embassy.pg.source_setup import SourceWish, source_steps

_SLOT_SECONDS = 20.0
"""A promotion waits no longer for other databases' transactions: the way home can also copy all rows."""


class ReignWish(NamedTuple):
    """Which database is to write a stream."""

    dsn: str
    stream: bytes
    slot: str
    publication: str
    producer_role: str


def begin_reign(connection: psycopg.Connection[Any], wish: ReignWish) -> int:
    """Make publication, DDL capture and slot of the epoch that the database was promoted to; returns how many steps.

    To be called before anyone may write. A slot that is there from an epoch before, or that a run which was killed has
    left, is dropped: nothing of this epoch can be in it yet.

    Raises:
        ConfigurationError: the server cannot serve a stream.
        RefusedError: something else has the slot's or the publication's name.
        TransientError: open transactions keep the slot from being made.
    """
    state = reigns.reign(connection, wish.stream)
    if state.written == state.epoch:
        return 0
    with explained(place_of(wish.dsn)):
        found = slots.find_slot(connection, wish.slot)
        if found is not None and found.database == connection.info.dbname and not found.active:
            slots.drop_slot(connection, wish.slot)
        taken = 0
        for step in source_steps(
            SourceWish(
                wish.dsn,
                wish.stream,
                wish.slot,
                wish.publication,
                wish.producer_role,
                replica_is_level=True,
                slot_wait_seconds=_SLOT_SECONDS,
            )
        ):
            step.take()
            taken += 1
        return taken


def reverse_obstacles(connection: psycopg.Connection[Any], producer_role: str | None) -> Iterator[str]:
    """Why a promotion of this database could not prepare the stream back home, as words for the operator."""
    if producer_role is None:
        yield "promotion.reverse_role is not set"
        return
    row = connection.execute(
        """SELECT pg_catalog.current_setting('wal_level'),
                  EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s),
                  pg_catalog.current_setting('max_replication_slots')::int
                      - (SELECT count(*) FROM pg_catalog.pg_replication_slots)""",
        (producer_role,),
    ).fetchone()
    assert row is not None, "a query without FROM has one row"
    wal_level, has_role, left = row
    if wal_level != "logical":
        yield f"wal_level is {wal_level}, and has to be logical"
    if not has_role:
        yield f"there is no role {producer_role}"
    if left <= 0:
        yield "all replication slots are in use"
