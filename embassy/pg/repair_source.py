"""Copies of rows that a repair asks for at home; the producer makes them, as it makes any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from embassy.model.errors import RefusedError
from embassy.model.repair_plan import RepairPlan

_REQUEST = "SELECT embassy.request_copy(%s, %s, %s::text[], %s::text[], %s)"


def request(connection: psycopg.Connection[Any], plan: RepairPlan, reason: str) -> list[int]:
    """Ask for everything in a plan, or for nothing; the copies' numbers.

    Raises:
        RefusedError: a table of the plan is gone.
    """
    copies = []
    try:
        with connection.transaction():
            for repair in plan.tables:
                for first, last in repair.ranges or ((None, None),):
                    ends = tuple(None if end is None else list(end) for end in (first, last))
                    row = connection.execute(_REQUEST, (*repair.table, *ends, reason)).fetchone()
                    assert row is not None, "the function returns the copy's number"
                    copies.append(int(row[0]))
    except psycopg.errors.UndefinedTable as error:
        raise RefusedError(
            error.diag.message_primary or "a table is gone", hint="verify again, and make the plan anew"
        ) from error
    return copies


def unfinished(connection: psycopg.Connection[Any], copies: Sequence[int]) -> int:
    """How many of these copies are not in the stream yet."""
    row = connection.execute(
        "SELECT count(*) FROM embassy.table_copy WHERE copy = ANY (%s) AND state <> 'done'", (list(copies),)
    ).fetchone()
    assert row is not None, "an aggregate has one row"
    return int(row[0])
