"""What tables have at the source, and no statement of the stream has made; the source's text of it says all.

What a failed CREATE INDEX CONCURRENTLY left behind becomes an index by REINDEX, which does not travel, or by a TRUNCATE,
if it failed in its last transaction, where event triggers run and may wait for a lock in vain. It becomes the table's
owner's. And DETACH PARTITION … CONCURRENTLY gives the partition a CHECK for its bounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from consumers.ddl import Command
from embassy.model.sql_text import statements
from embassy.pg.apply_session import ApplySession, Call, Query, StatementFailed

_OF_PARTITIONED = " ON ONLY "
"""In the text of an index that is valid only with an index of each partition."""
_CHECK = re.compile(r'("([^"]|"")+"|[^ "]+) CHECK \(')
_NAME_OF = """
SELECT pg_catalog.format('%%I', a.name), pg_catalog.format('%%I', b.name)
FROM pg_catalog.pg_class t, LATERAL (SELECT (pg_catalog.parse_ident(%s))[1]) a (name),
     LATERAL (SELECT (pg_catalog.parse_ident(%s))[1]) b (name)
WHERE t.oid = pg_catalog.to_regclass(%s)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = t.relnamespace AND c.relname = a.name)"""
"""Nothing if the table's schema has an index of that name."""


def make(session: ApplySession, table: str, kind: str, lacking: Sequence[str]) -> bool:
    """Make what a table lacks; False: it cannot be made.

    Args:
        session: the replica's.
        table: its name, as SQL writes it.
        kind: ``indexes`` or ``constraints``.
        lacking: the source's texts.
    """
    if kind == "indexes" and not any(_OF_PARTITIONED in what for what in lacking):
        texts = list(lacking)
    elif kind == "constraints" and all(map(_CHECK.match, lacking)):
        texts = [f"ALTER TABLE {table} ADD CONSTRAINT {what}" for what in lacking]
    else:
        return False
    try:
        session.run([Call(Query(text)) for text in texts])
    except StatementFailed:
        return False
    return True


def lend(session: ApplySession, command: Command, statement: str) -> None:
    """Make those that an ALTER TABLE is about to use, under the names by which it calls them.

    Raises:
        StatementFailed: one cannot be made.
    """
    for name, later in used(statement, backslashes=command.backslashes):
        for shape in command.shapes:
            row = session.connection.execute(_NAME_OF.encode(), (name, later, shape["table"])).fetchone()
            if row is None:
                continue
            for what in shape["indexes"]:
                verb, found, rest = what.partition(f" INDEX {row[1]} ON ")
                if found and verb in ("CREATE", "CREATE UNIQUE"):
                    session.run([Call(Query(f"{verb} INDEX {row[0]} ON {rest}"))])


def used(statement: str, *, backslashes: bool = False) -> Iterator[tuple[str, str]]:
    """Indexes that an ALTER TABLE names, as they are written: the name, and the one that it has afterwards.

    Raises:
        Unreadable: as for `embassy.model.sql_text.statements`.
    """
    for found in statements(statement, backslashes=backslashes):
        texts = [found.text[word.start : word.end] for word in found.words]
        words = [word.text for word in found.words]
        constraint = ""
        for at, word in enumerate(words[:-2]):
            if word == ",":
                constraint = ""
            elif words[at : at + 2] == ["ADD", "CONSTRAINT"]:
                constraint = texts[at + 2]
            elif words[at : at + 2] in (["USING", "INDEX"], ["CLUSTER", "ON"]):
                yield texts[at + 2], constraint or texts[at + 2]


def renames(statement: str, *, backslashes: bool = False) -> bool:
    """Whether a statement gives what it names another name.

    Raises:
        Unreadable: as for `embassy.model.sql_text.statements`.
    """
    return any(found.has("RENAME") for found in statements(statement, backslashes=backslashes))
