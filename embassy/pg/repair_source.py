"""Rows and large objects that a repair asks for at home; the producer sends them, as it does any others."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from embassy.model.errors import RefusedError
from embassy.model.large_objects import TABLES
from embassy.model.repair_plan import RepairPlan
from embassy.pg import large_objects

_REQUEST = "SELECT embassy.request_copy(%s, %s, %s::text[], %s::text[], %s)"


class Requested(NamedTuple):
    """What was asked for."""

    copies: list[int]
    """Numbers, of rows of tables."""
    objects_at: datetime | None
    """When large objects were, by home's clock; None: none were."""


def request(connection: psycopg.Connection[Any], plan: RepairPlan, reason: str) -> Requested:
    """Ask for everything in a plan, or for nothing.

    Raises:
        RefusedError: a table of the plan is gone, or large objects are not carried.
    """
    copies: list[int] = []
    objects_at = None
    try:
        with connection.transaction():
            for repair in plan.tables:
                if repair.table in TABLES:
                    if reason_not := large_objects.why_not_compared(connection):
                        raise RefusedError(reason_not, hint="embassy provision apply, by a superuser")
                    objects_at = large_objects.request(connection, repair.ranges, reason)
                    continue
                for first, last in repair.ranges or ((None, None),):
                    ends = tuple(None if end is None else list(end) for end in (first, last))
                    row = connection.execute(_REQUEST, (*repair.table, *ends, reason)).fetchone()
                    assert row is not None, "the function returns the copy's number"
                    copies.append(int(row[0]))
    except psycopg.errors.UndefinedTable as error:
        raise RefusedError(
            error.diag.message_primary or "a table is gone", hint="verify again, and make the plan anew"
        ) from error
    return Requested(copies, objects_at)


def unfinished(connection: psycopg.Connection[Any], stream: bytes, requested: Requested) -> int:
    """How many copies are not in the stream yet; large objects are one."""
    row = connection.execute(
        "SELECT count(*) FROM embassy.table_copy WHERE copy = ANY (%s) AND state <> 'done'", (requested.copies,)
    ).fetchone()
    assert row is not None, "an aggregate has one row"
    return int(row[0]) + (not large_objects.is_later(connection, stream, requested.objects_at))
