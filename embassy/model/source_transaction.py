"""A source's transaction for readers that go through changes one by one, wherever it was read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from embassy.model.batch import Operation
from embassy.model.lsn import Lsn
from embassy.model.relation import Relation

Values = Mapping[str, bytes | None]
"""Each column's text in UTF-8, by name; None is NULL. A large value that did not change is not there."""


class Change(NamedTuple):
    """What was done to one row; TRUNCATE: to one table."""

    relation: Relation
    operation: Operation
    old: Values | None
    """DELETE, and an UPDATE that changes the key: the key's columns, under REPLICA IDENTITY FULL all."""
    new: Values | None
    """INSERT, UPDATE."""


class SourceTransaction(NamedTuple):
    """One transaction that was committed."""

    xid: int
    committed_at: int
    """Source time of the commit, microseconds since 1970 UTC."""
    end_lsn: Lsn
    """End of its commit record."""
    changes: Sequence[Change]
    """In their order; the product's own rows too."""
