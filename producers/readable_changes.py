"""A source's changes as people and scripts read them: whole transactions, values by column name. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from embassy.model.large_objects import CHANGES
from embassy.model.lsn import Lsn
from embassy.model.own_tables import OWN_SCHEMA
from embassy.model.relation import Relation
from producers import pgoutput_decoder as pgoutput
from producers.described import Described
from producers.pgoutput_decoder import NULL_ELEMENT, Begin, Elements

_KINDS = {pgoutput.INSERT: "insert", pgoutput.UPDATE: "update", pgoutput.DELETE: "delete"}
_TRUNCATE = b"T"[0]
_LENGTH_BYTES = 4


def readable(messages: Iterable[bytes], after: Lsn) -> Iterator[dict[str, Any]]:
    """Transactions that end behind a position, in commit order; DDL by its text, large objects as they travel.

    Other rows of the product's own are left out.

    Values are PostgreSQL's text; None is NULL. A column whose large value did not change is left out of ``new``.

    Raises:
        IntegrityError: a message cannot be understood.
    """
    described = Described()
    begun: Begin | None = None
    changes: list[dict[str, Any]] = []
    for message in messages:
        kind = message[0]
        if described.take(message):
            continue
        if kind == pgoutput.BEGIN:
            begun, changes = pgoutput.decode_begin(message), []
        elif kind == pgoutput.COMMIT:
            commit = pgoutput.decode_commit(message)
            if begun is not None and changes and commit.end_lsn > after:
                yield {
                    "xid": begun.xid,
                    "committed_at": datetime.fromtimestamp(commit.committed_at / 1e6, UTC).isoformat(),
                    "end_lsn": str(commit.end_lsn),
                    "changes": changes,
                }
            begun, changes = None, []
        elif kind in _KINDS:
            changes += _row(message, described)
        elif kind == _TRUNCATE:
            truncated = [described.relation(oid, message) for oid in pgoutput.decode_truncate(message).oids]
            changes += [{"op": "truncate", "table": _name(r)} for r in truncated if r.schema != OWN_SCHEMA]


def _row(message: bytes, described: Described) -> list[dict[str, Any]]:
    change = pgoutput.decode_row_change(message)
    relation = described.relation(change.oid, message)
    if relation.is_ddl and change.kind == pgoutput.INSERT and change.new is not None:
        values = _values(relation, change.new)
        return [{"op": "ddl", "tag": values["tag"], "role": values["role"], "query": values["query"]}]
    if (relation.schema, relation.name) == CHANGES and change.kind == pgoutput.INSERT and change.new is not None:
        values = _values(relation, change.new)
        told = {name: value for name, value in values.items() if value is not None and name != "ordinal"}
        return [{"op": "large_object", **told}]
    if relation.schema == OWN_SCHEMA:
        return []
    found: dict[str, Any] = {"op": _KINDS[change.kind], "table": _name(relation)}
    if change.old is not None:
        values = _values(relation, change.old)
        key = {column.name for column in relation.columns if column.in_key}
        found["old"] = values if change.old_is_whole else {name: values[name] for name in values if name in key}
    if change.new is not None:
        found["new"] = _values(relation, change.new)
    return [found]


def _values(relation: Relation, row: Elements) -> dict[str, str | None]:
    return {
        column.name: None if value == NULL_ELEMENT else value[_LENGTH_BYTES:].decode("utf-8")
        for column, value in zip(relation.columns, row, strict=True)
        if value is not None
    }


def _name(relation: Relation) -> str:
    return f"{relation.schema}.{relation.name}"
