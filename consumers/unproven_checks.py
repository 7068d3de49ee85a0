"""CHECK constraints that were added NOT VALID: they say nothing of rows that were there before."""

from __future__ import annotations

from typing import NamedTuple

from embassy.pg.apply_session import ApplySession, Call, Query

_UNPROVEN = """
SELECT pg_catalog.quote_ident(conname), pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint
WHERE conrelid = %s::regclass AND contype = 'c' AND NOT convalidated AND coninhcount = 0"""


class Unproven(NamedTuple):
    """What takes a table's away for a moment, and what brings them back."""

    taken: list[Call]
    back: list[Call]


def unproven_checks(session: ApplySession, name: str) -> Unproven:
    """Those of a table, by its name as SQL writes it."""
    found = session.connection.execute(_UNPROVEN.encode(), (name,)).fetchall()
    return Unproven(
        [Call(Query(f"ALTER TABLE {name} DROP CONSTRAINT {constraint}")) for constraint, _ in found],
        [Call(Query(f"ALTER TABLE {name} ADD CONSTRAINT {constraint} {what}")) for constraint, what in found],
    )
