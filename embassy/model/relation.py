"""Tables as the stream describes them."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class ReplicaIdentity(Enum):
    """Which old values PostgreSQL sends for updates and deletes (``pg_class.relreplident``)."""

    DEFAULT = "d"
    NOTHING = "n"
    FULL = "f"
    INDEX = "i"


class Column(NamedTuple):
    """A published column."""

    name: str
    type_oid: int
    type_name: str
    """Schema and name, with a dot between and unquoted, of a type that is not built in (from pgoutput's Type message;
    of a domain, those of its base type), else empty."""
    type_modifier: int
    in_key: bool
    """Part of the replica identity; of every column under FULL."""


class Relation(NamedTuple):
    """A published table, as of some point of the stream."""

    schema: str
    name: str
    identity: ReplicaIdentity
    columns: tuple[Column, ...]

    @property
    def key(self) -> tuple[int, ...]:
        """Positions of the columns of the replica identity."""
        return tuple(i for i, column in enumerate(self.columns) if column.in_key)

    @property
    def is_ddl(self) -> bool:
        """Whether its rows are statements to be executed at their place."""
        return self.schema == "embassy" and self.name == "ddl"

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"
