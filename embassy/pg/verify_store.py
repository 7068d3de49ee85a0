"""What verifications have found, in the replica: written by the consumer, read by everyone else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from embassy.model.verification import Key, TableName
from embassy.pg.presence import has_table
from embassy.runtime.metrics import VERIFY_RESULTS

_RUNS_KEPT = 20

RESULTS = VERIFY_RESULTS
"""What can be found of a row; columns of ``embassy.verification``."""


DIFFERENCES = ("mismatched", "missing", "extra")
"""Those that say that a row is not as at home."""


class TableResult(NamedTuple):
    """How a table compares."""

    table: TableName
    rows: int
    mismatched: int
    missing: int
    extra: int
    in_flight: int
    undecided: str

    @property
    def differing(self) -> int:
        """Rows that are not as at home."""
        return self.mismatched + self.missing + self.extra

    @property
    def matched(self) -> int:
        """Rows that are."""
        return max(0, self.rows - self.mismatched - self.missing - self.in_flight)

    @property
    def doubt(self) -> str:
        """Why not every row is proven to be as at home; empty if each is."""
        if self.differing:
            return f"{self.differing} rows differ"
        return self.undecided or (
            f"{self.in_flight} rows changed while they were compared" if self.in_flight else ""
        )


class Finding(NamedTuple):
    """A row that differs."""

    kind: str
    key_columns: tuple[str, ...]
    key: Key


class FoundTable(NamedTuple):
    """A table as it was compared last."""

    result: TableResult
    run: UUID
    verified_at: float
    """Seconds since 1970, by the replica's clock."""
    findings: list[Finding]
    """Empty unless asked for."""


class Run(NamedTuple):
    """A verification."""

    run: UUID
    whole: bool
    began_at: float
    ended_at: float | None
    """None: it goes on, or whoever ran it at home was stopped."""
    tables: int | None
    outcome: str | None


class Summary(NamedTuple):
    """What is known of a stream's replica as a whole."""

    rows: dict[str, int]
    """By result: how many rows of all tables, as each was compared last. Empty if none was."""
    succeeded_at: float | None
    """When the newest verification of everything ended that found all alike; seconds since 1970."""


def begin_run(connection: psycopg.Connection[Any], stream: bytes, run: UUID, *, whole: bool) -> None:
    """Note that a verification begins; the oldest ones are forgotten."""
    connection.execute(
        """INSERT INTO embassy.verify_run (run, stream, whole, began_at)
           VALUES (%s, %s, %s, pg_catalog.clock_timestamp()) ON CONFLICT (run) DO NOTHING""",
        (run, stream, whole),
    )
    connection.execute(
        """DELETE FROM embassy.verify_run WHERE stream = %(stream)s AND run NOT IN (
               SELECT run FROM embassy.verify_run WHERE stream = %(stream)s ORDER BY began_at DESC LIMIT %(kept)s)
           AND run IS DISTINCT FROM (
               SELECT run FROM embassy.verify_run WHERE stream = %(stream)s AND whole AND outcome = 'match'
               ORDER BY ended_at DESC LIMIT 1)""",
        {"stream": stream, "kept": _RUNS_KEPT},
    )


def store_table(
    connection: psycopg.Connection[Any],
    stream: bytes,
    run: UUID,
    result: TableResult,
    findings: Iterable[Finding],
    *,
    sampled: bool,
) -> None:
    """Note a table's result in place of the one before; but rows that differed stay noted until all are known not to.

    Args:
        connection: in a transaction.
        stream: whose replica it is.
        run: the verification.
        result: how the table compares.
        findings: the rows that differ.
        sampled: whether only some rows were compared.
    """
    named = {"stream": stream, "schema": result.table.schema, "table": result.table.name, "run": run}
    if not result.differing and (sampled or result.in_flight or result.undecided):
        noted = connection.execute(
            """SELECT mismatched + missing + extra > 0 FROM embassy.verification
               WHERE stream = %(stream)s AND schema_name = %(schema)s AND table_name = %(table)s""",
            named,
        ).fetchone()
        if noted == (True,):
            return
    connection.execute(
        """INSERT INTO embassy.verification AS v (stream, schema_name, table_name, run, verified_at, rows, matched,
                                                  mismatched, missing, extra, in_flight, undecided)
           VALUES (%(stream)s, %(schema)s, %(table)s, %(run)s, pg_catalog.clock_timestamp(), %(rows)s, %(matched)s,
                   %(mismatched)s, %(missing)s, %(extra)s, %(in_flight)s, %(undecided)s)
           ON CONFLICT (stream, schema_name, table_name) DO UPDATE
           SET run = excluded.run, verified_at = excluded.verified_at, rows = excluded.rows, matched = excluded.matched,
               mismatched = excluded.mismatched, missing = excluded.missing, extra = excluded.extra,
               in_flight = excluded.in_flight, undecided = excluded.undecided""",
        {**named, **result._asdict(), "matched": result.matched, "table": result.table.name},
    )
    connection.execute(
        """DELETE FROM embassy.verify_finding
           WHERE stream = %(stream)s AND schema_name = %(schema)s AND table_name = %(table)s""",
        named,
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO embassy.verify_finding (stream, schema_name, table_name, run, kind, key_columns, key)
               VALUES (%(stream)s, %(schema)s, %(table)s, %(run)s, %(kind)s, %(key_columns)s, %(key)s)""",
            [
                {**named, "kind": found.kind, "key_columns": list(found.key_columns), "key": list(found.key)}
                for found in findings
            ],
        )


def end_run(connection: psycopg.Connection[Any], stream: bytes, run: UUID, *, tables: int) -> None:
    """Note that a verification has ended, and how. One of everything forgets tables that are no longer there."""
    for table in ("verification", "verify_finding"):
        connection.execute(
            f"""DELETE FROM embassy.{table} WHERE stream = %(stream)s AND run <> %(run)s
                AND EXISTS (SELECT FROM embassy.verify_run WHERE run = %(run)s AND whole)
                AND pg_catalog.to_regclass(pg_catalog.format('%%I.%%I', schema_name, table_name)) IS NULL""".encode(),
            {"stream": stream, "run": run},
        )
    connection.execute(
        """UPDATE embassy.verify_run r
           SET ended_at = pg_catalog.clock_timestamp(), tables = %(tables)s,
               outcome = CASE WHEN t.differing > 0 THEN 'differs'
                              WHEN t.compared < %(tables)s OR t.open > 0 THEN 'undecided' ELSE 'match' END
           FROM (SELECT count(*) AS compared, coalesce(sum(mismatched + missing + extra), 0) AS differing,
                        count(*) FILTER (WHERE in_flight > 0 OR undecided <> '') AS open
                 FROM embassy.verification WHERE stream = %(stream)s AND run = %(run)s) t
           WHERE r.run = %(run)s""",
        {"stream": stream, "run": run, "tables": tables},
    )


def summary(connection: psycopg.Connection[Any], stream: bytes) -> Summary:
    """What is known of a stream's replica as a whole."""
    if not is_provisioned(connection):
        return Summary({}, None)
    counts = ", ".join(f"coalesce(sum({result}), 0)::bigint" for result in RESULTS)
    row = connection.execute(
        f"SELECT count(*), {counts} FROM embassy.verification WHERE stream = %s".encode(), (stream,)
    ).fetchone()
    assert row is not None, "an aggregate has one row"
    success = connection.execute(
        """SELECT extract(epoch FROM max(ended_at))::float8 FROM embassy.verify_run
           WHERE stream = %s AND whole AND outcome = 'match'""",
        (stream,),
    ).fetchone()
    assert success is not None, "an aggregate has one row"
    return Summary(dict(zip(RESULTS, row[1:], strict=True)) if row[0] else {}, success[0])


def known_differences(connection: psycopg.Connection[Any], stream: bytes) -> list[str]:
    """Tables with rows that are not as at home, as far as they were ever compared: ``schema.table: N``."""
    if not is_provisioned(connection):
        return []
    return [
        f"{schema}.{table}: {rows}"
        for schema, table, rows in connection.execute(
            """SELECT schema_name, table_name, mismatched + missing + extra FROM embassy.verification
               WHERE stream = %s AND mismatched + missing + extra > 0 ORDER BY 1, 2""",
            (stream,),
        )
    ]


def find_run(connection: psycopg.Connection[Any], stream: bytes, run: UUID | None) -> Run | None:
    """A verification, or the newest."""
    row = connection.execute(
        """SELECT run, whole, extract(epoch FROM began_at)::float8, extract(epoch FROM ended_at)::float8, tables, outcome
           FROM embassy.verify_run WHERE stream = %s AND (%s::uuid IS NULL OR run = %s)
           ORDER BY began_at DESC LIMIT 1""",
        (stream, run, run),
    ).fetchone()
    return None if row is None else Run(*row)


def tables(connection: psycopg.Connection[Any], stream: bytes, *, with_findings: bool) -> list[FoundTable]:
    """Each table that was ever compared, in order of their names."""
    found: dict[tuple[str, str], list[Finding]] = {}
    if with_findings:
        for schema, name, kind, columns, key in connection.execute(
            """SELECT schema_name, table_name, kind, key_columns, key FROM embassy.verify_finding WHERE stream = %s
               ORDER BY key""",
            (stream,),
        ):
            found.setdefault((schema, name), []).append(Finding(kind, tuple(columns), tuple(key)))
    return [
        FoundTable(TableResult(TableName(schema, name), *counts), run, verified_at, found.get((schema, name), []))
        for schema, name, run, verified_at, *counts in connection.execute(
            """SELECT schema_name, table_name, run, extract(epoch FROM verified_at)::float8, rows, mismatched, missing,
                      extra, in_flight, undecided
               FROM embassy.verification WHERE stream = %s ORDER BY 1, 2""",
            (stream,),
        )
    ]


def is_provisioned(connection: psycopg.Connection[Any]) -> bool:
    """Whether the replica can keep results."""
    return has_table(connection, "embassy.verification")
