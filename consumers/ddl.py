"""The rows of embassy.ddl as commands, and the text of each; schemas/sql/source_ddl.sql says what the columns hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from consumers.text_rows import segment_rows
from embassy.model.batch import Batch, Operation, Segment
from embassy.model.relation import Relation
from embassy.model.sql_text import (
    Unreadable,
    innermost,
    is_tagged,
    of_extension,
    pick,
    statements,
    without_concurrently,
)


class Command(NamedTuple):
    """A row of embassy.ddl."""

    ordinal: int
    tag: str
    role: str
    settings: Mapping[str, str]
    how: str
    query: str | None
    query_of: int | None
    nth: int
    objects: Sequence[Mapping[str, Any]]
    filled: Sequence[Mapping[str, Any]]
    stored: Sequence[Mapping[str, str]]
    shapes: Sequence[Mapping[str, Any]]

    @property
    def backslashes(self) -> bool:
        """Whether one escapes in its text's plain strings."""
        return self.settings.get("standard_conforming_strings") == "off"

    def __str__(self) -> str:
        named = ", ".join([str(found["identity"]) for found in self.objects if found.get("identity")])
        return f"DDL {self.ordinal}, {self.tag}" + (f" ({named})" if named else "")


def holds_ddl(batch: Batch) -> bool:
    """Whether a batch has statements to execute."""
    return any(relation.is_ddl for relation in batch.relations)


def commands(relation: Relation, segment: Segment) -> list[Command]:
    """The statements that a segment brings: none unless it inserts them."""
    if not relation.is_ddl or segment.operation is not Operation.INSERT:
        return []
    names = [relation.columns[position].name for position in segment.columns]
    return [_command(dict(zip(names, row, strict=True))) for row in segment_rows(segment)]


def text_of(command: Command, query: str) -> str | None:
    """What to execute; None: another command of the stream brings it about.

    Args:
        command: whose.
        query: its own or, if it has none, that of the row that it refers to.

    Raises:
        Unreadable: the query does not tell.
    """
    if command.how == "statement":
        return query
    if command.how == "context":
        inner = innermost(query, command.tag, command.nth, backslashes=command.backslashes)
        return None if inner is None else without_concurrently(inner)
    found = statements(query, backslashes=command.backslashes)
    if command.how == "body":
        if not 0 < command.nth <= len(found) or not is_tagged(found[command.nth - 1], command.tag):
            raise Unreadable(f"the function's statement {command.nth} is not {command.tag}")
        return without_concurrently(found[command.nth - 1])
    if any(map(of_extension, found)) and not any(is_tagged(statement, command.tag) for statement in found):
        return None  # a script dropped something, and the replica's script does so too
    return without_concurrently(pick(query, command.tag, command.nth, backslashes=command.backslashes))


def _command(row: Mapping[str, bytes | None]) -> Command:
    def text(name: str) -> str:
        value = row[name]
        return value.decode() if value is not None else ""

    return Command(
        ordinal=int(text("ordinal")),
        tag=text("tag"),
        role=text("role"),
        settings=json.loads(text("settings")),
        how=text("how"),
        query=text("query") if row["query"] is not None else None,
        query_of=int(text("query_of")) if row["query_of"] is not None else None,
        nth=int(text("nth") or 0),
        objects=json.loads(text("objects")),
        filled=json.loads(text("filled")),
        stored=json.loads(text("stored")),
        shapes=json.loads(text("shapes")),
    )
