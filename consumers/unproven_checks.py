"""What was added NOT VALID to a table, its parents or its domains: it says nothing of rows that were there before.

Such constraints are taken out of sight of the transaction that writes such rows, in the catalogue: inherited ones cannot
be dropped, and what is dropped and added again loses its comment. No other session sees anything of it. All others are
enforced meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from consumers.text_rows import INT8_OID
from embassy.pg.apply_session import ApplySession, Call, Query

_INT8_ARRAY_OID = 1016

_UNPROVEN = """
WITH RECURSIVE used (type) AS (
    SELECT atttypid FROM pg_catalog.pg_attribute
    WHERE attrelid = %(table)s::pg_catalog.regclass AND attnum > 0 AND NOT attisdropped
    UNION
    SELECT within.type FROM used
    JOIN pg_catalog.pg_type t ON t.oid = used.type
    CROSS JOIN LATERAL (
        SELECT t.typbasetype UNION ALL SELECT t.typelem
        UNION ALL SELECT rngsubtype FROM pg_catalog.pg_range WHERE t.oid IN (rngtypid, rngmultitypid)
        UNION ALL SELECT atttypid FROM pg_catalog.pg_attribute
                  WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
    ) within (type)
    WHERE within.type <> 0
)
SELECT oid::bigint, conrelid::bigint, CASE WHEN contype = 'n' THEN conkey[1] ELSE 0 END
FROM pg_catalog.pg_constraint
WHERE NOT convalidated AND (
    conrelid = %(table)s::pg_catalog.regclass AND contype IN ('c', 'n')
    OR contype = 'c' AND contypid IN (SELECT type FROM used WHERE type <> 0))"""

# 'x' is what neither a table nor a domain looks for when it gathers its checks; a table expects as many as it counts.
_CHECKS_AWAY = Query(
    "UPDATE pg_catalog.pg_constraint SET contype = 'x' WHERE oid::bigint = ANY ($1)", (_INT8_ARRAY_OID,)
)
_CHECKS_BACK = Query(
    "UPDATE pg_catalog.pg_constraint SET contype = 'c' WHERE oid::bigint = ANY ($1)", (_INT8_ARRAY_OID,)
)
_COUNTED = Query(
    "UPDATE pg_catalog.pg_class SET relchecks = relchecks + $2 WHERE oid::bigint = $1", (INT8_OID, INT8_OID)
)
_NULLS_LET_IN = Query(
    "UPDATE pg_catalog.pg_attribute SET attnotnull = false WHERE attrelid::bigint = $1 AND attnum = ANY ($2)",
    (INT8_OID, _INT8_ARRAY_OID),
)
_NULLS_KEPT_OUT = Query(
    "UPDATE pg_catalog.pg_attribute SET attnotnull = true WHERE attrelid::bigint = $1 AND attnum = ANY ($2)",
    (INT8_OID, _INT8_ARRAY_OID),
)


class Unproven(NamedTuple):
    """What takes a table's out of sight for a moment, and what brings them back, in the same transaction."""

    taken: list[Call]
    back: list[Call]


def unproven_checks(session: ApplySession, name: str) -> Unproven:
    """Those of a table, by its name as SQL writes it."""
    found = session.connection.execute(_UNPROVEN.encode(), {"table": name}).fetchall()
    taken: list[Call] = []
    back: list[Call] = []
    if not found:
        return Unproven(taken, back)
    # As for any change of a table's row in the catalogue: VACUUM writes there in place.
    session.connection.execute(f"LOCK TABLE ONLY {name} IN SHARE UPDATE EXCLUSIVE MODE".encode())
    checks = [oid for oid, _, column in found if not column]
    columns = [column for _, _, column in found if column]
    relation = max(relation for _, relation, _ in found)
    of_table = sum(1 for _, relation, column in found if relation and not column)
    if checks:
        taken.append(Call(_CHECKS_AWAY, [_array(checks)]))
        back.append(Call(_CHECKS_BACK, [_array(checks)]))
    if of_table:
        taken.append(Call(_COUNTED, [b"%d" % relation, b"%d" % -of_table]))
        back.append(Call(_COUNTED, [b"%d" % relation, b"%d" % of_table]))
    if columns:
        taken.append(Call(_NULLS_LET_IN, [b"%d" % relation, _array(columns)]))
        back.append(Call(_NULLS_KEPT_OUT, [b"%d" % relation, _array(columns)]))
    return Unproven(taken, back)


def _array(numbers: Iterable[int]) -> bytes:
    return b"{" + b",".join(b"%d" % number for number in numbers) + b"}"
