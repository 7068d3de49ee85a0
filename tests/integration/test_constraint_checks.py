"""What a replica's rows may break unseen while the stream is applied, found by query before a promotion."""

from __future__ import annotations

from typing import LiteralString

import pytest

from deploy.lab import databases
from deploy.lab.lab import Lab
from embassy.pg.connection import connect
from embassy.pg.constraint_checks import Violation, check_constraints
from tests.harness.lab import MakeDatabase

_TEMPORAL_VERSION = 180_000
_TABLES: LiteralString = """
CREATE SCHEMA s;
CREATE TABLE s.booking (
    id int PRIMARY KEY, during int4range, note text, cancelled bool,
    CONSTRAINT overlap EXCLUDE USING gist (during WITH &&) WHERE (NOT cancelled) DEFERRABLE,
    CONSTRAINT alike EXCLUDE USING btree (lower(note) WITH =) DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE s.day (at int) PARTITION BY LIST (at);
CREATE TABLE s.day_1 PARTITION OF s.day (CONSTRAINT once EXCLUDE USING btree (at WITH =) DEFERRABLE) FOR VALUES IN (1);
INSERT INTO s.booking SELECT i, int4range(i, i + 1), 'n' || i, false FROM generate_series(1, 100) i;
INSERT INTO s.booking VALUES (101, '[1,100)', NULL, true);
INSERT INTO s.day VALUES (1);
"""
_BROKEN: LiteralString = """
INSERT INTO s.booking VALUES (201, '[7,9)', 'N7', false), (202, '[500,501)', NULL, false), (203, NULL, 'other', false);
INSERT INTO s.day VALUES (1), (1);
"""
_TEMPORAL: LiteralString = """
CREATE TABLE s.rate (id int4range, valid daterange,
    CONSTRAINT rate_key PRIMARY KEY (id, valid WITHOUT OVERLAPS) DEFERRABLE);
CREATE TABLE s.price (id int4range, valid daterange, UNIQUE (id, valid WITHOUT OVERLAPS));
CREATE TABLE s.sale (of int4range, valid daterange, CONSTRAINT of_price FOREIGN KEY (of, PERIOD valid)
    REFERENCES s.price (id, PERIOD valid));
INSERT INTO s.rate VALUES ('[1,2)', '[2024-01-01,2025-01-01)'), ('[1,2)', '[2025-01-01,2026-01-01)');
INSERT INTO s.price SELECT id, valid FROM s.rate;
INSERT INTO s.sale VALUES ('[1,2)', '[2024-06-01,2025-06-01)'), (NULL, '[2024-06-01,2025-06-01)');
"""
_TEMPORAL_BROKEN: LiteralString = """
INSERT INTO s.rate VALUES ('[1,2)', '[2025-12-31,2027-01-01)');
INSERT INTO s.sale VALUES ('[1,2)', '[2025-06-01,2026-06-01)'), ('[9,10)', '[2024-06-01,2024-06-02)');
"""


@pytest.mark.parametrize("temporal", [False, True], ids=["exclusion", "temporal"])
def test_rows_that_break_what_replicas_do_not_check_are_counted(
    lab: Lab, make_database: MakeDatabase, *, temporal: bool
) -> None:
    dsn = lab.site("embassy-1").postgres.dsn(databases.ADMIN, make_database("embassy-1"))
    with connect(dsn, application_name="test", autocommit=True) as replica:
        if temporal and replica.info.server_version < _TEMPORAL_VERSION:
            pytest.skip("PERIOD is of PostgreSQL 18")
        replica.execute("CREATE SCHEMA s" if temporal else _TABLES)
        if temporal:
            replica.execute(_TEMPORAL)
        whole = check_constraints(replica)
        assert whole.violations == ()
        assert whole.constraints == (2 if temporal else 3)
        replica.execute("SET session_replication_role = replica")
        replica.execute(_TEMPORAL_BROKEN if temporal else _BROKEN)
        found = check_constraints(replica).violations
    assert set(found) == (
        {Violation("s.rate", "rate_key", 1), Violation("s.sale", "of_price", 2)}
        if temporal
        else {
            Violation("s.booking", "overlap", 1),
            Violation("s.booking", "alike", 1),
            Violation("s.day_1", "once", 2),
        }
    )
