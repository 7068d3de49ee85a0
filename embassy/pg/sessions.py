"""Ending other sessions of a server."""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple

import psycopg

_END_SECONDS = 10


class Ended(NamedTuple):
    """What became of sessions that were to end."""

    gone: int
    stayed: list[int]
    """The processes of those that are there still."""


def end_sessions(connection: psycopg.Connection[Any], which: LiteralString, *values: object) -> Ended:
    """End sessions; each has ten seconds.

    The server says of one that went by itself just then what it says of one that stays, so it is looked for once more.

    Args:
        connection: an administrator's, in autocommit mode.
        which: a condition on ``a``, a row of pg_stat_activity.
        values: of the condition's parameters.
    """
    told = connection.execute(
        f"""SELECT a.pid, pg_catalog.pg_terminate_backend(a.pid, {_END_SECONDS * 1000})
            FROM pg_catalog.pg_stat_activity a WHERE {which}""",
        values,
    ).fetchall()
    stayed = [pid for pid, ended in told if not ended]
    if stayed:
        rows = connection.execute(
            f"SELECT a.pid FROM pg_catalog.pg_stat_activity a WHERE a.pid = ANY (%s) AND {which}",
            (stayed, *values),
        )
        stayed = [pid for (pid,) in rows]
    return Ended(len(told) - len(stayed), stayed)
