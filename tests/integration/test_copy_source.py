"""Rows of a table as a copy reads them: all of them, in whole rows, and never fewer without an error."""

from __future__ import annotations

import psycopg
import pytest

from embassy.pg import copy_source
from embassy.pg.copy_source import Range
from tests.harness.two_databases import MakePair

_ROWS = 40_000


def test_rows_come_whole_and_a_copy_that_is_cut_short_does_not_look_finished(pair: MakePair) -> None:
    two = pair("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, note text)")
    source = two.source
    source.execute("INSERT INTO s.t SELECT i, repeat('x', i %% 900) FROM generate_series(1, %s) i", (_ROWS,))
    with source.cursor() as cursor, cursor.copy("COPY (SELECT * FROM s.t ORDER BY id) TO STDOUT") as copied:
        expected = b"".join(bytes(row) for row in copied)

    with copy_source.reading(source, "s", "t") as found:
        assert found is not None
        table = found[0]
        blocks = list(copy_source.copy_rows(source, table, Range(), None))
        assert b"".join(blocks) == expected
        assert all(block.endswith(b"\n") for block in blocks)
        assert len(blocks) < _ROWS
        assert list(copy_source.copy_rows(source, table, Range((str(_ROWS),)), None)) == []

    with copy_source.reading(source, "s", "t"):
        early = copy_source.copy_rows(source, table, Range(), None)
        next(early)
        early.close()
    with copy_source.reading(source, "s", "t"):
        last = copy_source.copy_rows(source, table, Range((str(_ROWS - 1),)), None)
        assert next(last).count(b"\n") == 1
        last.close()
    assert source.execute("SELECT count(*) FROM s.t").fetchone() == (_ROWS,)

    with psycopg.connect(two.source_dsn, autocommit=True) as reader:
        pid = reader.info.backend_pid
        rows = copy_source.copy_rows(reader, table, Range(), None)
        next(rows)
        source.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        with pytest.raises(psycopg.OperationalError, match=r"terminat|closed"):
            list(rows)
