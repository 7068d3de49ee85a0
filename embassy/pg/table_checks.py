"""Whether everything of a database at home is in the stream, and home stays able to change it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from embassy.model.diagnosis import Level, Remark
from embassy.pg import large_objects, publication_watch, source_schema
from embassy.pg.catalog import GENERATED_IDENTITY_VERSION, SourceTable, brief, source_tables
from embassy.pg.publication import publication_state

_APPLY = "embassy provision apply"
_LOOK_SECONDS = 900


def table_remarks(
    connection: psycopg.Connection[Any], place: str, publication: str, stream: bytes
) -> Iterator[Remark]:
    """The publication and each table that is not as it should be; one remark for each check that finds nothing."""
    tables = source_tables(connection, publication)
    yield from _publication(connection, place, publication, stream, {str(t) for t in tables if t.published})
    version = connection.info.server_version
    found = [remark for table in tables for remark in _table(table, version)]
    yield from found
    for code, text in (
        ("PG07", "each published table identifies its rows"),
        ("PG08", "no table is unlogged"),
        ("PG09", f"all {len(tables)} tables are published"),
        ("PG12", "no row is told apart by generated columns"),
    ):
        if all(remark.code != code for remark in found):
            yield Remark(code, Level.OK, place, text)
    yield from _large_objects(connection, place, stream)


def _publication(
    connection: psycopg.Connection[Any], place: str, name: str, stream: bytes, published: set[str]
) -> Iterator[Remark]:
    state = publication_state(connection, name)
    noted = source_schema.is_provisioned(connection)
    if state is not None and noted and source_schema.publication_was_replaced(connection, stream, name):
        yield Remark(
            "PG06",
            Level.FAIL,
            place,
            f"publication {name} was dropped and made anew: what was committed meanwhile is in no stream",
            "resync the stream under a new enrolment",
        )
    elif state is None:
        yield Remark("PG06", Level.FAIL, place, f"there is no publication {name}", _APPLY)
    elif state.faults:
        for fault in state.faults:
            yield Remark("PG06", Level.FAIL, place, f"publication {name}: {fault}", f"ALTER PUBLICATION {name}")
    elif left_out := [gap for gap in publication_watch.gaps(connection, name) if gap in published]:
        yield Remark(
            "PG06",
            Level.FAIL,
            place,
            f"publication {name} was altered by someone else, and has not all changes of {brief(left_out)}",
            f"{_APPLY} has them copied",
        )
    else:
        yield Remark("PG06", Level.OK, place, f"publication {name} leaves nothing out")


def _table(table: SourceTable, version: int) -> Iterator[Remark]:
    place = str(table)
    quoted = sql.Identifier(table.schema, table.name).as_string()
    if table.unlogged:
        yield Remark(
            "PG08", Level.WARN, place, "unlogged: its rows are not replicated", f"ALTER TABLE {quoted} SET LOGGED"
        )
        return
    if table.breaks_updates(version):
        yield Remark(
            "PG12",
            Level.FAIL,
            place,
            f"no key of plain columns, and generated columns ({brief(list(table.generated))}): "
            + (
                "its rows cannot be updated at home"
                if table.published
                else "not replicated; published, its rows could not be updated at home"
            ),
            f"ALTER TABLE {quoted} ADD PRIMARY KEY (…)",
        )
        return
    if table.needs_whole_row:
        level = Level.FAIL if table.published else Level.WARN
        yield Remark("PG07", level, place, "no key", f"ALTER TABLE {quoted} REPLICA IDENTITY FULL ({_APPLY} does)")
    elif not table.has_key and table.generated and not table.partitioned:
        yield Remark(
            "PG12",
            Level.WARN,
            place,
            f"its rows are told apart by all columns but {brief(list(table.generated))}; from PostgreSQL "
            f"{GENERATED_IDENTITY_VERSION // 10_000} on home could not update them",
            f"ALTER TABLE {quoted} ADD PRIMARY KEY (…) before an upgrade",
        )
    if not table.published:
        yield Remark("PG09", Level.FAIL, place, "not in the publication: it is not replicated", _APPLY)


def _large_objects(connection: psycopg.Connection[Any], place: str, stream: bytes) -> Iterator[Remark]:
    there = large_objects.count(connection)
    if not large_objects.is_carried(connection):
        if there:
            yield Remark(
                "PG13",
                Level.WARN,
                place,
                f"{there} large objects are not carried: who provisioned home may not read them",
                f"{_APPLY} as a superuser, or GRANT SELECT ON pg_catalog.pg_largeobject TO its role first",
            )
        else:
            yield Remark("PG13", Level.OK, place, "there are no large objects")
        return
    unwatched = large_objects.unwatched(connection)
    if unwatched:
        yield Remark(
            "PG13",
            Level.WARN,
            place,
            f"transactions that write {brief(unwatched)} do not take their large objects along: they come later",
            _APPLY,
        )
    state = large_objects.state(connection, stream)
    if state is not None and state.behind:
        yield Remark(
            "PG13",
            Level.WARN,
            place,
            f"{state.behind} of {there} large objects are still to come",
            "wait; where the number does not fall, the producer's log says what for",
        )
    elif state is not None and state.as_of is not None and _age_seconds(connection, state.as_of) > _LOOK_SECONDS:
        yield Remark(
            "PG13",
            Level.WARN,
            place,
            f"what is new in large objects was last looked for at {state.as_of:%Y-%m-%dT%H:%M:%SZ}",
            "start embassy producer run; if it runs, its log says why not",
        )
    elif not unwatched:
        yield Remark("PG13", Level.OK, place, f"{there} large objects are carried")


def _age_seconds(connection: psycopg.Connection[Any], then: datetime) -> float:
    row = connection.execute(
        "SELECT extract(epoch FROM pg_catalog.clock_timestamp() - %s)::float8", (then,)
    ).fetchone()
    return float(row[0]) if row else 0.0
