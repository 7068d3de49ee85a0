"""Rows and large objects that a repair asks for at home; the producer sends them, as it does any others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from embassy.model.errors import RefusedError
from embassy.model.large_objects import TABLES
from embassy.model.repair_plan import RepairPlan
from embassy.model.verification import Key, TableName
from embassy.pg import large_objects, table_copies

_ROWS = "SELECT embassy.request_rows(%s, %s, %s::text[], %s::text[], %s::text[], %s)"


class Requested(NamedTuple):
    """What was asked for."""

    copies: list[int]
    """Numbers, of rows of tables."""
    objects_at: datetime | None
    """When large objects were, by home's clock; None: none were."""


def request(connection: psycopg.Connection[Any], plan: RepairPlan, reason: str) -> Requested:
    """Ask for everything in a plan, or for nothing.

    Raises:
        RefusedError: a table of the plan is gone, large objects are not carried, or the database is provisioned by an
            earlier version.
    """
    copies: list[int] = []
    objects_at = None
    try:
        with connection.transaction():
            for repair in plan.tables:
                if repair.table in TABLES:
                    if reason_not := large_objects.why_not_compared(connection):
                        raise RefusedError(reason_not, hint="embassy provision apply, by a superuser")
                    objects_at = large_objects.request(connection, repair.keys, reason)
                else:
                    copies += [_request(connection, repair.table, keys, reason) for keys in repair.copies]
    except psycopg.errors.UndefinedTable as error:
        raise RefusedError(
            error.diag.message_primary or "a table is gone", hint="verify again, and make the plan anew"
        ) from error
    except psycopg.errors.UndefinedFunction as error:
        raise RefusedError(
            "the database was provisioned by a version that sends no rows by their keys",
            hint="embassy provision apply",
        ) from error
    return Requested(copies, objects_at)


def _request(connection: psycopg.Connection[Any], table: TableName, keys: Sequence[Key], reason: str) -> int:
    if not keys:
        return table_copies.request(connection, *table, reason=reason)
    listed = [list(key) for key in keys]
    row = connection.execute(_ROWS, (*table, listed[0], listed[-1], listed, reason)).fetchone()
    assert row is not None, "the function returns the copy's number"
    return int(row[0])


def unfinished(connection: psycopg.Connection[Any], stream: bytes, requested: Requested) -> int:
    """How many copies are not in the stream yet; large objects are one."""
    row = connection.execute(
        "SELECT count(*) FROM embassy.table_copy WHERE copy = ANY (%s) AND state <> 'done'", (requested.copies,)
    ).fetchone()
    assert row is not None, "an aggregate has one row"
    return int(row[0]) + (not large_objects.is_later(connection, stream, requested.objects_at))
