"""What a superseded source committed and the embassy does not have, as people and scripts read it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from embassy.model.batch import Operation
from embassy.model.large_objects import CHANGES
from embassy.model.own_tables import OWN_SCHEMA
from embassy.model.relation import Relation
from embassy.model.source_transaction import Change, SourceTransaction, Values


def readable(transactions: Iterable[SourceTransaction]) -> Iterator[dict[str, Any]]:
    """Each transaction as an object: DDL by its text, large objects as they travel.

    Other rows of the product's own are left out, and transactions that are nothing else. Values are PostgreSQL's text;
    None is NULL. A column whose large value did not change is left out of ``new``.
    """
    for transaction in transactions:
        changes = [told for change in transaction.changes if (told := _told(change)) is not None]
        if changes:
            yield {
                "xid": transaction.xid,
                "committed_at": datetime.fromtimestamp(transaction.committed_at / 1e6, UTC).isoformat(),
                "end_lsn": str(transaction.end_lsn),
                "changes": changes,
            }


def lacking(bundle: Mapping[str, Any]) -> str:
    """What a file does not have, for people; empty if it is whole.

    Args:
        bundle: ``complete``; if it is not, ``missing_after`` and ``missing_upto`` (what lies between is not in the file),
            and ``missing_why``.
    """
    if bundle["complete"]:
        return ""
    return (
        f"; NOT WHOLE: what home committed between {bundle['missing_after']} and {bundle['missing_upto']} is missing: "
        f"{bundle['missing_why']}. Keep home's topic"
    )


def _told(change: Change) -> dict[str, Any] | None:
    relation = change.relation
    if change.operation is Operation.INSERT and change.new is not None:
        values = _texts(change.new)
        if relation.is_ddl:
            return {"op": "ddl", "tag": values["tag"], "role": values["role"], "query": values["query"]}
        if (relation.schema, relation.name) == CHANGES:
            told = {name: value for name, value in values.items() if value is not None and name != "ordinal"}
            return {"op": "large_object", **told}
    if relation.schema == OWN_SCHEMA:
        return None
    found: dict[str, Any] = {"op": change.operation.name.lower(), "table": _name(relation)}
    if change.old is not None:
        found["old"] = _texts(change.old)
    if change.new is not None:
        found["new"] = _texts(change.new)
    return found


def _texts(values: Values) -> dict[str, str | None]:
    return {name: None if value is None else value.decode("utf-8") for name, value in values.items()}


def _name(relation: Relation) -> str:
    return f"{relation.schema}.{relation.name}"
