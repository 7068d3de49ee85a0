"""Why a replica must not be promoted as it is. Tables of pieces that are not installed count as not applicable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from embassy.pg import verify_store
from embassy.pg.catalog import brief
from embassy.pg.presence import has_table
from embassy.pg.replica_opening import missing_roles
from embassy.pg.table_copies import LACKS_KEY, awaited

_SUBSCRIPTIONS = """
SELECT subname FROM pg_catalog.pg_subscription
WHERE subenabled AND subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY 1"""
_COPIES = f"""
SELECT schema_name || '.' || table_name, bool_and({LACKS_KEY}) FROM embassy.table_copy
WHERE state <> 'done' GROUP BY 1 ORDER BY 1"""


def obstacles(
    connection: psycopg.Connection[Any],
    stream: bytes,
    *,
    roles: Sequence[str],
    accept_undrained: bool,
    accept_differences: bool,
    accept_incomplete: bool,
) -> Iterator[str]:
    """Everything that stands in the way, as words for the operator.

    Args:
        connection: with the replica.
        stream: whose replica it is.
        roles: the application's roles, which are to be let in.
        accept_undrained: whether a stream that was frozen may be promoted where it stands.
        accept_differences: whether rows that were found to differ from home may stay as they are, and tables that home
            keeps out of the stream.
        accept_incomplete: whether tables may stay as they are whose rows have not all been copied.
    """
    if connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone() == (True,):
        yield "the server is a standby: promote it to a primary first, or name the primary in replica.dsn"
    copying, withheld = not_whole(connection)
    if copying and not accept_incomplete:
        yield (
            f"tables whose rows have not all been copied: {brief(copying)} (should their source be lost for good: a plan "
            "with --accept-incomplete)"
        )
    if withheld and not accept_differences:
        yield (
            f"tables that home kept out of the stream, for they have no key: {brief(withheld)} (a plan with "
            "--accept-differences)"
        )
    if has_table(connection, "embassy.control") and not accept_undrained:
        row = connection.execute(
            "SELECT frozen_by, freeze_reason FROM embassy.control WHERE stream = %s AND frozen_at IS NOT NULL",
            (stream,),
        ).fetchone()
        if row is not None:
            yield (
                f"the stream is frozen by {row[0]}: {row[1]} (a plan with --accept-undrained promotes it where it "
                "stands)"
            )
    if not accept_differences and (differing := verify_store.known_differences(connection, stream)):
        yield (
            f"rows that differ from home's, as last compared: {brief(differing)} (embassy repair; or a plan with "
            "--accept-differences)"
        )
    missing = missing_roles(connection, roles)
    if missing:
        yield f"roles of promotion.application_roles do not exist: {', '.join(missing)}"
    subscriptions = [name for (name,) in connection.execute(_SUBSCRIPTIONS)]
    if subscriptions:
        yield f"subscriptions write here: {brief(subscriptions)}"


def not_whole(connection: psycopg.Connection[Any]) -> tuple[list[str], list[str]]:
    """Tables that lack rows: those with a copy under way or still to come, and those that wait for a key at home."""
    copies = connection.execute(_COPIES.encode()).fetchall() if has_table(connection, "embassy.table_copy") else []
    waiting = awaited(connection) if has_table(connection, "embassy.awaited_copy") else []
    copying = {name for name, lacks_key in copies if not lacks_key} | {
        f"{schema}.{name}" for schema, name in waiting
    }
    return sorted(copying), [name for name, lacks_key in copies if lacks_key and name not in copying]


def is_frozen(connection: psycopg.Connection[Any], stream: bytes) -> bool:
    """Whether nothing is applied because someone, or a threshold, said so."""
    if not has_table(connection, "embassy.control"):
        return False
    row = connection.execute(
        "SELECT true FROM embassy.control WHERE stream = %s AND frozen_at IS NOT NULL", (stream,)
    ).fetchone()
    return row is not None
